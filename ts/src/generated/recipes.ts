// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.

import type {
  SilqConfig,
  RtnConfig,
  LlmQatConfig,
  GptqRecipeConfig,
  AwqRecipeConfig,
  ComqRecipeConfig,
  NormTweakingConfig,
  OmniquantConfig,
  ApiqConfig,
  SaprConfig,
  EfficientqatConfig,
  Recipe,
  TrainConfig,
} from './types.js'

/** A config in which every field may be left out. */
type Options<Config> = {
  [Name in keyof Config]?: Config[Name] extends object
    ? Partial<Config[Name]>
    : Config[Name]
}

/** Options of training end to end; every one has a default. */
export type TrainOptions = Partial<TrainConfig>
/** Options of `recipes.silq`; every one has a default. */
export type SilqOptions = Options<SilqConfig>
/** Options of `recipes.rtn`; every one has a default. */
export type RtnOptions = Options<RtnConfig>
/** Options of `recipes.llmQat`; every one has a default. */
export type LlmQatOptions = Options<LlmQatConfig>
/** Options of `recipes.gptq`; every one has a default. */
export type GptqOptions = Options<GptqRecipeConfig>
/** Options of `recipes.awq`; every one has a default. */
export type AwqOptions = Options<AwqRecipeConfig>
/** Options of `recipes.comq`; every one has a default. */
export type ComqOptions = Options<ComqRecipeConfig>
/** Options of `recipes.normTweaking`; every one has a default. */
export type NormTweakingOptions = Options<NormTweakingConfig>
/** Options of `recipes.omniquant`; every one has a default. */
export type OmniquantOptions = Options<OmniquantConfig>
/** Options of `recipes.apiq`; every one has a default. */
export type ApiqOptions = Options<ApiqConfig>
/** Options of `recipes.sapr`; every one has a default. */
export type SaprOptions = Options<SaprConfig>
/** Options of `recipes.efficientqat`; every one has a default. */
export type EfficientqatOptions = Options<EfficientqatConfig>

/** A built-in recipe by its name, with its options. Rust fills in the defaults and checks it. */
export type BuiltInRecipe =
  | ({ kind: 'silq' } & SilqOptions)
  | ({ kind: 'rtn' } & RtnOptions)
  | ({ kind: 'llm-qat' } & LlmQatOptions)
  | ({ kind: 'gptq' } & GptqOptions)
  | ({ kind: 'awq' } & AwqOptions)
  | ({ kind: 'comq' } & ComqOptions)
  | ({ kind: 'norm-tweaking' } & NormTweakingOptions)
  | ({ kind: 'omniquant' } & OmniquantOptions)
  | ({ kind: 'apiq' } & ApiqOptions)
  | ({ kind: 'sapr' } & SaprOptions)
  | ({ kind: 'efficientqat' } & EfficientqatOptions)

/** What a run can be given: a built-in recipe, or a whole one. */
export type RecipeInput = BuiltInRecipe | Recipe

/** The built-in recipes. */
export const recipes = {
  /**
   * SiLQ: weights, norms and scales learn together, end to end, from the outputs of the unquantized
   * model (the teacher).
   */
  silq: (options: SilqOptions = {}): { kind: 'silq' } & SilqOptions => ({
    kind: 'silq',
    ...options,
  }),
  /**
   * Round to nearest: every weight is rounded to the nearest point of the grid, and nothing is
   * trained.
   */
  rtn: (options: RtnOptions = {}): { kind: 'rtn' } & RtnOptions => ({
    kind: 'rtn',
    ...options,
  }),
  /**
   * LLM-QAT: all weights learn on text that the unquantized model generates itself, so that no data
   * are needed.
   */
  llmQat: (options: LlmQatOptions = {}): { kind: 'llm-qat' } & LlmQatOptions => ({
    kind: 'llm-qat',
    ...options,
  }),
  /**
   * GPTQ: columns are rounded one after the other, and the columns that are not rounded yet
   * compensate each error.
   */
  gptq: (options: GptqOptions = {}): { kind: 'gptq' } & GptqOptions => ({
    kind: 'gptq',
    ...options,
  }),
  /**
   * AWQ: the weights of input channels with large activations are scaled up before rounding, then
   * the ranges are clipped.
   */
  awq: (options: AwqOptions = {}): { kind: 'awq' } & AwqOptions => ({
    kind: 'awq',
    ...options,
  }),
  /** COMQ: coordinate descent on the error of the outputs, one weight after the other. */
  comq: (options: ComqOptions = {}): { kind: 'comq' } & ComqOptions => ({
    kind: 'comq',
    ...options,
  }),
  /**
   * Norm tweaking: weights are rounded to nearest, then the norms learn, layer by layer, from the
   * means and variances of the channels of the unquantized layer.
   */
  normTweaking: (options: NormTweakingOptions = {}): { kind: 'norm-tweaking' } & NormTweakingOptions => ({
    kind: 'norm-tweaking',
    ...options,
  }),
  /**
   * OmniQuant: the clipping of each group of weights learns, layer by layer; the weights are
   * frozen.
   */
  omniquant: (options: OmniquantOptions = {}): { kind: 'omniquant' } & OmniquantOptions => ({
    kind: 'omniquant',
    ...options,
  }),
  /**
   * ApiQ: clipping, and low-rank factors that are added to the quantized weights, learn layer by
   * layer.
   */
  apiq: (options: ApiqOptions = {}): { kind: 'apiq' } & ApiqOptions => ({
    kind: 'apiq',
    ...options,
  }),
  /**
   * SAPR: ApiQ with the rounding error of each weight penalised by the squared gradient of the
   * unquantized model.
   */
  sapr: (options: SaprOptions = {}): { kind: 'sapr' } & SaprOptions => ({
    kind: 'sapr',
    ...options,
  }),
  /**
   * EfficientQAT: weights, scales and zero points learn layer by layer, then the scales alone learn
   * end to end.
   */
  efficientqat: (options: EfficientqatOptions = {}): { kind: 'efficientqat' } & EfficientqatOptions => ({
    kind: 'efficientqat',
    ...options,
  }),
}
