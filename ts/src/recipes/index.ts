import type { ApiqOptions } from './apiq.js'
import { apiq } from './apiq.js'
import type { AwqOptions } from './awq.js'
import { awq } from './awq.js'
import type { EfficientqatOptions } from './efficientqat.js'
import { efficientqat } from './efficientqat.js'
import type { GptqOptions } from './gptq.js'
import { gptq } from './gptq.js'
import type { LlmQatOptions } from './llm-qat.js'
import { llmQat } from './llm-qat.js'
import type { OmniquantOptions } from './omniquant.js'
import { omniquant } from './omniquant.js'
import type { RtnOptions } from './rtn.js'
import { rtn } from './rtn.js'
import type { SaprOptions } from './sapr.js'
import { sapr } from './sapr.js'
import type { SilqOptions } from './silq.js'
import { silq } from './silq.js'

export type { ApiqOptions } from './apiq.js'
export type { AwqOptions } from './awq.js'
export type { EfficientqatOptions } from './efficientqat.js'
export type { GptqOptions } from './gptq.js'
export type { LlmQatOptions } from './llm-qat.js'
export type { OmniquantOptions } from './omniquant.js'
export type { RtnOptions } from './rtn.js'
export type { SaprOptions } from './sapr.js'
export type { SilqOptions, TrainOptions } from './silq.js'

/** A recipe with its options, as plain data. Rust fills in the defaults and checks it. */
export type Recipe =
  | ({ kind: 'apiq' } & ApiqOptions)
  | ({ kind: 'awq' } & AwqOptions)
  | ({ kind: 'efficientqat' } & EfficientqatOptions)
  | ({ kind: 'gptq' } & GptqOptions)
  | ({ kind: 'llm-qat' } & LlmQatOptions)
  | ({ kind: 'omniquant' } & OmniquantOptions)
  | ({ kind: 'rtn' } & RtnOptions)
  | ({ kind: 'sapr' } & SaprOptions)
  | ({ kind: 'silq' } & SilqOptions)

/** The built-in recipes. */
export const recipes = { apiq, awq, efficientqat, gptq, llmQat, omniquant, rtn, sapr, silq }
