/**
 * Quantization, quantization-aware training and export of small language models: {@link Model}
 * loads one, {@link quantize} makes a smaller one by one of the {@link recipes}.
 *
 * @module halfstep
 */
export { ERROR_CODES, type ErrorCode, HalfstepError } from './errors.js'
export * from './generated/recipes.js'
export type * from './generated/types.js'
export type { GenerationStream } from './generation.js'
export { inspect } from './inspect-node.js'
export type {
  EvaluateOptions,
  EvaluateRunOptions,
  GenerateOptions,
  LoadOptions,
  Model as AnyModel,
} from './model.js'
export { Model } from './model-node.js'
export { type PlanOptions, plan } from './plan.js'
export { quantize, type Run, type RunOptions, type RunResult } from './quantize.js'
export { reportPage } from './report/page.js'
export { resolve } from './resolve-node.js'
