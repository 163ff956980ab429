// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.

import { recipeOptions } from '../arguments.js'
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
export type OptionsOf<Config> = {
  [Name in keyof Config]?: Config[Name] extends object
    ? Partial<Config[Name]>
    : Config[Name]
}

/** Options of training end to end; every one has a default. */
export type TrainOptions = Partial<TrainConfig>
/** Options of `recipes.silq`; every one has a default. */
export type SilqOptions = OptionsOf<SilqConfig>
/** Options of `recipes.rtn`; every one has a default. */
export type RtnOptions = OptionsOf<RtnConfig>
/** Options of `recipes.llmQat`; every one has a default. */
export type LlmQatOptions = OptionsOf<LlmQatConfig>
/** Options of `recipes.gptq`; every one has a default. */
export type GptqOptions = OptionsOf<GptqRecipeConfig>
/** Options of `recipes.awq`; every one has a default. */
export type AwqOptions = OptionsOf<AwqRecipeConfig>
/** Options of `recipes.comq`; every one has a default. */
export type ComqOptions = OptionsOf<ComqRecipeConfig>
/** Options of `recipes.normTweaking`; every one has a default. */
export type NormTweakingOptions = OptionsOf<NormTweakingConfig>
/** Options of `recipes.omniquant`; every one has a default. */
export type OmniquantOptions = OptionsOf<OmniquantConfig>
/** Options of `recipes.apiq`; every one has a default. */
export type ApiqOptions = OptionsOf<ApiqConfig>
/** Options of `recipes.sapr`; every one has a default. */
export type SaprOptions = OptionsOf<SaprConfig>
/** Options of `recipes.efficientqat`; every one has a default. */
export type EfficientqatOptions = OptionsOf<EfficientqatConfig>

/** What distinguishes the built-in recipes. */
export interface OfKind<Kind> {
  /** Name of the recipe. */
  kind: Kind
}

/** A built-in recipe by its name, with its options. Rust fills in the defaults and checks it. */
export type BuiltInRecipe =
  | (OfKind<'silq'> & SilqOptions)
  | (OfKind<'rtn'> & RtnOptions)
  | (OfKind<'llm-qat'> & LlmQatOptions)
  | (OfKind<'gptq'> & GptqOptions)
  | (OfKind<'awq'> & AwqOptions)
  | (OfKind<'comq'> & ComqOptions)
  | (OfKind<'norm-tweaking'> & NormTweakingOptions)
  | (OfKind<'omniquant'> & OmniquantOptions)
  | (OfKind<'apiq'> & ApiqOptions)
  | (OfKind<'sapr'> & SaprOptions)
  | (OfKind<'efficientqat'> & EfficientqatOptions)

/** What a run can be given: a built-in recipe, or a whole one. */
export type RecipeInput = BuiltInRecipe | Recipe

/** The built-in recipes. */
export const recipes = {
  /**
   * SiLQ: weights, norms and scales learn together, end to end, from the outputs of the unquantized
   * model (the teacher).
   */
  silq: (options: SilqOptions = {}): OfKind<'silq'> & SilqOptions => ({
    kind: 'silq',
    ...recipeOptions(options),
  }),
  /**
   * Round to nearest: every weight is rounded to the nearest point of the grid, and nothing is
   * trained.
   */
  rtn: (options: RtnOptions = {}): OfKind<'rtn'> & RtnOptions => ({
    kind: 'rtn',
    ...recipeOptions(options),
  }),
  /**
   * LLM-QAT: all weights learn on text that the unquantized model generates itself, so that no data
   * are needed.
   */
  llmQat: (options: LlmQatOptions = {}): OfKind<'llm-qat'> & LlmQatOptions => ({
    kind: 'llm-qat',
    ...recipeOptions(options),
  }),
  /**
   * GPTQ: columns are rounded one after the other, and the columns that are not rounded yet
   * compensate each error.
   */
  gptq: (options: GptqOptions = {}): OfKind<'gptq'> & GptqOptions => ({
    kind: 'gptq',
    ...recipeOptions(options),
  }),
  /**
   * AWQ: the weights of input channels with large activations are scaled up before rounding, then
   * the ranges are clipped.
   */
  awq: (options: AwqOptions = {}): OfKind<'awq'> & AwqOptions => ({
    kind: 'awq',
    ...recipeOptions(options),
  }),
  /** COMQ: coordinate descent on the error of the outputs, one weight after the other. */
  comq: (options: ComqOptions = {}): OfKind<'comq'> & ComqOptions => ({
    kind: 'comq',
    ...recipeOptions(options),
  }),
  /**
   * Norm tweaking: weights are rounded to nearest, then the norms learn, layer by layer, from the
   * means and variances of the channels of the unquantized layer.
   */
  normTweaking: (options: NormTweakingOptions = {}): OfKind<'norm-tweaking'> & NormTweakingOptions => ({
    kind: 'norm-tweaking',
    ...recipeOptions(options),
  }),
  /**
   * OmniQuant: the clipping of each group of weights learns, layer by layer; the weights are
   * frozen.
   */
  omniquant: (options: OmniquantOptions = {}): OfKind<'omniquant'> & OmniquantOptions => ({
    kind: 'omniquant',
    ...recipeOptions(options),
  }),
  /**
   * ApiQ: clipping, and low-rank factors that are added to the quantized weights, learn layer by
   * layer.
   */
  apiq: (options: ApiqOptions = {}): OfKind<'apiq'> & ApiqOptions => ({
    kind: 'apiq',
    ...recipeOptions(options),
  }),
  /**
   * SAPR: ApiQ with the rounding error of each weight penalised by the squared gradient of the
   * unquantized model.
   */
  sapr: (options: SaprOptions = {}): OfKind<'sapr'> & SaprOptions => ({
    kind: 'sapr',
    ...recipeOptions(options),
  }),
  /**
   * EfficientQAT: weights, scales and zero points learn layer by layer, then the scales alone learn
   * end to end.
   */
  efficientqat: (options: EfficientqatOptions = {}): OfKind<'efficientqat'> & EfficientqatOptions => ({
    kind: 'efficientqat',
    ...recipeOptions(options),
  }),
}
