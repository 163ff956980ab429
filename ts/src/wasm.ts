/**
 * halfstep in WebAssembly, for browsers, workers and edge runtimes: the surface of `halfstep`
 * without training.
 *
 * The module is fetched from the folder of this file at the first {@link Model.load};
 * {@link loadWasm} takes it from elsewhere. Work runs on the calling thread in short steps, so a
 * page stays alive; for long evaluations use a worker.
 *
 * @module halfstep/wasm
 */
export { ERROR_CODES, type ErrorCode, HalfstepError } from './errors.js'
export * from './generated/recipes.js'
export type * from './generated/types.js'
export type { GenerationStream } from './generation.js'
export { inspect } from './inspect-wasm.js'
export type {
  EvaluateOptions,
  EvaluateRunOptions,
  GenerateOptions,
  LoadOptions,
  Model as AnyModel,
} from './model.js'
export { Model } from './model-wasm.js'
export { loadWasm, type WasmSource } from './native-wasm.js'
export { quantize, type Run, type RunOptions, type RunResult } from './quantize.js'
export { reportPage } from './report/page.js'
export { resolve } from './resolve-wasm.js'
