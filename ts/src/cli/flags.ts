import { type Command, InvalidArgumentError, Option } from 'commander'
import { DEFAULTS } from '../generated/defaults.js'
import type {
  AwqRecipeConfig,
  BlockOptions,
  EfficientqatConfig,
  EvaluateConfig,
  GenerationConfig,
  GptqRecipeConfig,
  RtnConfig,
  RunConfig,
  SaprConfig,
  SilqConfig,
  TrainConfig,
} from '../generated/types.js'

/**
 * One flag per config field: the type refuses a field without a flag and a flag without a field.
 * Defaults, ranges and the names of choices live in Rust; a flag that
 * is not given is not sent.
 */
export type Flags<T> = { readonly [K in keyof T]-?: Option }

export const number = (flags: string, help: string) =>
  new Option(flags, help).argParser(parseNumber)
export const text = (flags: string, help: string) => new Option(flags, help)

function parseNumber(value: string): number {
  const parsed = Number(value)
  if (value.trim() === '' || !Number.isFinite(parsed))
    throw new InvalidArgumentError('a number is needed.')
  return parsed
}

/** A flag that can be turned on, with or without the word, and off. */
const choice = (flags: string, help: string) =>
  new Option(flags, help).preset('on').argParser(parseOnOff)

function parseOnOff(value: string): boolean {
  if (value !== 'on' && value !== 'off') throw new InvalidArgumentError('on or off is needed.')
  return value === 'on'
}

export const SITE_FLAGS: Flags<Omit<SilqConfig, 'train'>> = {
  target: text(
    '--target <name>',
    'where the model will run: gguf:q4_0, gguf:q8_0, gguf:tq2_0, or halfstep (default gguf:q4_0 for silq and rtn, else halfstep)',
  ),
  weights: number(
    '--weights <bits>',
    'bits of the block linears (default what a gguf target holds; 3 for gptq and awq, 2 for block training, 4 for the rest)',
  ),
  groupSize: number(
    '--group-size <n>',
    'columns that share a scale, 0 for the whole row (default what a gguf target holds; 64 with zero points, else 0)',
  ),
  activations: number(
    '--activations <bits>',
    "bits of the linears' inputs: 2 to 8, or 16 for none",
  ),
  cache: number('--cache <bits>', 'bits of the key/value cache: 2 to 8, 16 or 32'),
  start: text(
    '--start <rule>',
    'first steps: best, absmax, signedAbsmax, errorSearch, convex, lsq',
  ),
  staticActivations: text('--static-activations', 'one learned step per activation and cache site'),
  learnSteps: text('--no-learn-steps', 'keep the weight steps where they start'),
  edge: text('--edge <rule>', 'weights on the edge of the grid: inside or outside'),
  gradientScale: text('--gradient-scale <n>', "N of LSQ's gradient scale: layer or step"),
}

export const TRAIN_FLAGS: Flags<TrainConfig> = {
  tokens: number('--tokens <n>', 'tokens to train on'),
  window: number('--window <n>', 'tokens of a sequence'),
  batch: number('--batch <n>', 'sequences per step; 1 in block training'),
  microBatch: number('--micro-batch <n>', 'sequences per forward; less memory'),
  learningRate: number('--learning-rate <x>', 'peak rate of the weights'),
  weightStepMultiplier: number('--weight-step-multiplier <x>', "the weight steps' share of it"),
  activationStepMultiplier: number('--activation-step-multiplier <x>', 'that of static steps'),
  normMultiplier: number('--norm-multiplier <x>', 'that of the norms'),
  warmup: number('--warmup <share>', 'share of the steps to warm up in'),
  minRatio: number('--min-ratio <share>', 'of the peak rate at the end; 1 for omniquant'),
  beta1: number('--beta1 <x>', "AdamW's"),
  beta2: number('--beta2 <x>', "AdamW's"),
  eps: number('--eps <x>', "AdamW's"),
  weightDecay: number(
    '--weight-decay <x>',
    'on matrices; 0.1 on clips and factors of apiq and sapr',
  ),
  maxNorm: number('--max-norm <x>', 'clip the gradient to this norm'),
  klWeight: number('--kl-weight <x>', 'of the KL to the unquantized model'),
  ceWeight: number('--ce-weight <x>', 'of the next-token loss'),
  temperature: number('--temperature <x>', 'of the KL'),
  arithmetic: text(
    '--arithmetic <kind>',
    'f32, bf16, f16 or int8-forward; the fastest here, if not given',
  ),
  recompute: text('--recompute <when>', 'forward again instead of kept: auto, always, never'),
  lossBytes: number('--loss-bytes <n>', "memory of the loss's logits, bytes"),
  seed: number('--seed <n>', 'same seed, same bytes'),
}

/** Training block by block: what the flags above do not say. */
export const BLOCK_FLAGS: Flags<Omit<BlockOptions, keyof TrainConfig>> = {
  samples: number('--samples <n>', 'sequences that every block learns from (default 32)'),
  epochs: number('--epochs <n>', 'passes over them for every block (default 5)'),
  rangeLearningRate: number(
    '--range-learning-rate <x>',
    'of clips, or of steps (relative) and zero points',
  ),
  lowRankLearningRate: number('--low-rank-learning-rate <x>', 'of the low-rank factors'),
  weightLearningRate: number(
    '--weight-learning-rate <x>',
    'of weights and norms, where they learn, relative to their size',
  ),
  anchor: number(
    '--anchor <x>',
    'efficientqat: pull of the weights towards where they began, in parts of their rate',
  ),
  secondTarget: choice(
    '--second-target [on]',
    "learn from the unquantized block's answers to quantized inputs too: on, or off (default on in apiq, sapr)",
  ),
}

/** Options that only some recipes have. */
export const METHOD_FLAGS: Flags<
  Omit<
    RtnConfig & GptqRecipeConfig & AwqRecipeConfig & SaprConfig & EfficientqatConfig,
    keyof SilqConfig
  >
> = {
  zeroPoints: text('--zero-points', 'rtn: a zero point per group'),
  damping: number('--damping <x>', "gptq: added to the Hessian's diagonal"),
  actOrder: text('--no-act-order', 'gptq: columns in their own order'),
  clip: text('--no-clip', 'awq: channel scales alone'),
  rank: number('--rank <n>', 'apiq, sapr: rank of the factors, 0 for none'),
  alpha: number('--alpha <x>', 'apiq, sapr: their product is multiplied by alpha / rank'),
  lambda: number('--lambda <x>', 'sapr: weight of the penalty'),
  saliencyScale: text('--saliency-scale <kind>', 'sapr: scaleFree, perMatrix or raw'),
  saliencyPlace: text('--saliency-place <kind>', 'sapr: beforeLowRank or afterLowRank'),
  saliencySamples: number('--saliency-samples <n>', 'sapr: sequences whose gradients are squared'),
  penaltyEpochs: number('--penalty-epochs <n>', 'sapr: with the penalty alone, first'),
  outputEpochs: number('--output-epochs <n>', 'sapr: with the outputs alone, last'),
  endTokens: number('--end-tokens <n>', 'efficientqat: of its second phase'),
  endLearningRate: number('--end-learning-rate <x>', 'efficientqat: of the steps in it, relative'),
  endKlWeight: number('--end-kl-weight <x>', 'efficientqat: of the KL in it'),
  endCeWeight: number('--end-ce-weight <x>', 'efficientqat: of the next-token loss in it'),
}

export const RUN_FLAGS: Flags<Omit<RunConfig, 'text' | 'validationText' | 'output' | 'record'>> = {
  data: text('--data <file>', 'text or .jsonl to train on'),
  selfGenerated: number(
    '--self-generated <tokens>',
    'that the model generates to train on, for --data or beside it',
  ),
  skipCharacters: number('--skip-characters <n>', 'of the text, left out at its beginning'),
  validation: text('--validation <file>', 'text or .jsonl to measure on, before and after'),
  validationTokens: number('--validation-tokens <n>', 'of it, if not 4096'),
  runFolder: text('--run-folder <folder>', 'for checkpoints; default: the output with .run'),
  checkpointEvery: number(
    '--checkpoint-every <steps>',
    'default: only when interrupted; finished blocks are always kept',
  ),
  resume: text('--resume', 'go on from the newest checkpoint, or the last finished block'),
  threads: number('--threads <n>', '0: one per core; never changes a result'),
}

export const EVALUATE_FLAGS: Flags<Omit<EvaluateConfig, 'text'>> = {
  data: text('--data <file>', 'text or .jsonl to measure on').makeOptionMandatory(),
  tokens: number('--tokens <n>', 'from its beginning; 0: all'),
  window: number('--window <n>', 'tokens of a window, each run alone'),
  arithmetic: text('--arithmetic <kind>', 'auto, float or integer'),
  threads: number('--threads <n>', '0: one per core'),
}

export const GENERATE_FLAGS: Flags<Omit<GenerationConfig, 'messages'>> = {
  prompt: text('--prompt <text>', 'text to continue').makeOptionMandatory(),
  maxTokens: number('--max-tokens <n>', 'new tokens at most'),
  temperature: number('--temperature <x>', '0 is greedy'),
  topK: number('--top-k <n>', 'keep the k most likely tokens'),
  topP: number('--top-p <x>', 'keep the likeliest tokens up to this probability'),
  seed: number('--seed <n>', 'same seed, same text'),
  threads: number('--threads <n>', '0: one per core'),
}

/** Adds a group of flags, with Rust's defaults in their help, under a heading if there is one. */
export function addFlags<T>(
  command: Command,
  flags: Flags<T>,
  group: keyof typeof DEFAULTS,
  heading?: string,
): Command {
  for (const [name, shared] of Object.entries<Option>(flags)) {
    const value = DEFAULTS[group][name]
    // Several commands have the flag, each under its own heading.
    const option: Option = Object.assign(Object.create(Object.getPrototypeOf(shared)), shared)
    const isSaid = typeof value === 'boolean' || option.description.includes('(default ')
    if (value !== undefined && !isSaid) option.description += ` (default ${value})`
    if (heading) option.helpGroup(heading)
    command.addOption(option)
  }
  return command
}

/** The config fields whose flags were given. */
export function given<T>(command: Command, flags: Flags<T>): Partial<T> {
  const values = command.opts()
  const keys = Object.keys(flags).filter((key) => command.getOptionValueSource(key) === 'cli')
  return Object.fromEntries(keys.map((key) => [key, values[key]])) as Partial<T>
}
