// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.

export type ApiqConfig = { 
/**
 * Where the model will run. Default `halfstep`, which holds its grids.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default 2.
 */
weights?: number, 
/**
 * Columns of a row that share a scale and a zero point. Default 64.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
 */
cache?: number, 
/**
 * Rank of the factors beside each linear; 0 for none. Default 8: at 64, as in the paper, they
 * outweigh a small model's weights.
 */
rank: number, 
/**
 * The factors' product is multiplied by alpha / rank. Default 16.
 */
alpha: number, 
/**
 * Everything about the training run.
 */
train: BlockOptions, };

export type ArithmeticConfig = "auto" | "float" | "integer";

export type AwqRecipeConfig = { 
/**
 * Where the model will run. Default `halfstep`, which holds its grids.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default 3.
 */
weights?: number, 
/**
 * Columns of a row that share a scale and a zero point. Default 64.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
 */
cache?: number, 
/**
 * Search the groups' clips too. Default true.
 */
clip: boolean, 
/**
 * The text that the method sees.
 */
train: SolverOptions, };

/**
 * What a user may say about block training. Every field has a default, which the recipe gives.
 */
export type BlockOptions = { 
/**
 * Sequences that every block learns from; up to half of them are the model's own, if it
 * generates text beside a given one. Default 32; the papers take 128 and more.
 */
samples?: number, 
/**
 * Tokens of a sequence. Default 512.
 */
window?: number, 
/**
 * Sequences per step. Default 1.
 */
batch?: number, 
/**
 * Passes over the sequences for every block. Default 5; the papers take 20 and more at 2 bits.
 */
epochs?: number, 
/**
 * Rate of clips; or of steps, in parts of their root mean square, and zero points, in codes.
 * Default: the recipe's.
 */
rangeLearningRate?: number, 
/**
 * Rate of the low-rank factors. Default: the recipe's.
 */
lowRankLearningRate?: number, 
/**
 * Rate of weights and norms, where they learn, in parts of each tensor's root mean square.
 * Default: the recipe's.
 */
weightLearningRate?: number, 
/**
 * The rates fall along a cosine to this share of them. Default: the recipe's.
 */
minRatio?: number, 
/**
 * On clips and factors. Default: the recipe's.
 */
weightDecay?: number, 
/**
 * Pull of weights that learn towards where they began, in parts of their rate. Default: the
 * recipe's.
 */
anchor?: number, 
/**
 * Learn from a second target too: what the unquantized block makes of the quantized inputs.
 * Default: the recipe's.
 */
secondTarget?: boolean, 
/**
 * Default: what a probe finds fastest on this machine.
 */
arithmetic?: TrainArithmetic, 
/**
 * Decides the order of the data and the first factors. Same seed, same bytes. Default 0.
 */
seed: number, };

/**
 * How a block learned.
 */
export type BlockRecord = { block: number, 
/**
 * Loss of every step, before its update.
 */
losses: Array<number>, 
/**
 * Means over the first and the last pass through the samples (of the first and the last half,
 * if there were fewer than two passes).
 */
firstLoss: number, lastLoss: number, };

/**
 * One turn of a conversation.
 */
export type ChatMessage = { role: string, content: string, };

/**
 * LSQ's edge rule, as a config value.
 */
export type EdgeRuleConfig = "inside" | "outside";

export type EfficientqatConfig = { 
/**
 * Where the model will run. Default `halfstep`, which holds its grids.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default 2.
 */
weights?: number, 
/**
 * Columns of a row that share a scale and a zero point. Default 64.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
 */
cache?: number, 
/**
 * Phase 1.
 */
train: BlockOptions, 
/**
 * Tokens of phase 2; 0 leaves it out. Default 32,768.
 */
endTokens: number, 
/**
 * Rate of the steps in phase 2, in parts of their root mean square. Default 5e-3; 1e-3 suits
 * the next-token loss.
 */
endLearningRate: number, 
/**
 * Weight of the KL to the unquantized model in phase 2. Default 1.
 */
endKlWeight: number, 
/**
 * Weight of the next-token loss in phase 2. Default 0.
 */
endCeWeight: number, };

/**
 * What to measure.
 */
export type EvaluateConfig = { 
/**
 * Path of a UTF-8 text or .jsonl file.
 */
data?: string, 
/**
 * The text itself, instead of `data`.
 */
text?: string, 
/**
 * Token ids to use, from the beginning of the text; 0 is all. Default 0.
 */
tokens: number, 
/**
 * Tokens of a window; each is run alone from position 0. Default 512.
 */
window: number, 
/**
 * `auto` (default): integer arithmetic for a quantized model; `float`: weights decoded,
 * nothing else quantized; `integer`.
 */
arithmetic: ArithmeticConfig, 
/**
 * Worker threads; 0 is one per core.
 */
threads: number, };

/**
 * [`Evaluation`] as it crosses to TypeScript.
 */
export type EvaluationRecord = { 
/**
 * exp(meanNll).
 */
perplexity: number, 
/**
 * Mean negative log-likelihood in nats.
 */
meanNll: number, predictions: number, 
/**
 * Mean KL(against || model) in nats; null without `against`.
 */
kl: number | null, 
/**
 * Share of positions where both models put the same token first; null without `against`.
 */
top1Agreement: number | null, tokensPerSecond: number, };

export type Event = { "kind": "phase", name: string, detail: string, } | { "kind": "generate", tokens: number, total: number, tokensPerSecond: number, } | { "kind": "step", step: number, steps: number, loss: number, learningRate: number, 
/**
 * Global norm before clipping.
 */
gradientNorm: number, tokens: number, tokensPerSecond: number, 
/**
 * Seconds to the end of training, from measured steps.
 */
etaSeconds: number, 
/**
 * Peak resident memory of the process in bytes; 0 where the system does not tell.
 */
memoryBytes: number, } | { "kind": "block", block: number, blocks: number, loss: number, } | { "kind": "eval", subject: string, evaluation: EvaluationRecord, } | { "kind": "checkpoint", step: number, path: string, } | { "kind": "warning", message: string, };

/**
 * A generation, whole.
 */
export type Generation = { text: string, tokens: Array<number>, promptTokens: number, tokensPerSecond: number, };

/**
 * What to generate.
 */
export type GenerationConfig = { 
/**
 * Plain text to continue.
 */
prompt?: string, 
/**
 * A conversation, rendered by the model's chat template; instead of `prompt`.
 */
messages?: Array<ChatMessage>, 
/**
 * New tokens at most. Default 128.
 */
maxTokens: number, 
/**
 * 0 (default) is greedy.
 */
temperature: number, 
/**
 * Keep the k most likely tokens; 0 (default) keeps all.
 */
topK: number, 
/**
 * Keep the smallest set of tokens whose probabilities reach this; 1 (default) keeps all.
 */
topP: number, 
/**
 * Same seed, same text. Default 0.
 */
seed: number, 
/**
 * Worker threads; 0 is one per core.
 */
threads: number, };

export type GptqRecipeConfig = { 
/**
 * Where the model will run. Default `halfstep`, which holds its grids.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default 3.
 */
weights?: number, 
/**
 * Columns of a row that share a scale and a zero point. Default 64.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
 */
cache?: number, 
/**
 * Added to the Hessian's diagonal, in parts of its mean; raised, with a warning, where that is
 * too little. Default 0.01.
 */
damping: number, 
/**
 * Take the columns by falling diagonal of the Hessian. Default true.
 */
actOrder: boolean, 
/**
 * The text that the method sees.
 */
train: SolverOptions, };

/**
 * N in LSQ's gradient scale 1 / sqrt(N p).
 */
export type GradientScale = "layer" | "step";

/**
 * What stands in a model: for `halfstep inspect`.
 */
export type Inspection = { name: string, parameters: number, fileBytes: number, 
/**
 * All stored weight bits over all parameters.
 */
bitsPerWeight: number, vocabSize: number, hiddenSize: number, intermediateSize: number, layers: number, heads: number, kvHeads: number, headDim: number, maxPositions: number, tiedHead: boolean, tokenizer: string | null, hasChatTemplate: boolean, 
/**
 * Target of a quantized model, null for a float one.
 */
target: string | null, 
/**
 * Storage type -> number of tensors; `low rank <r>` -> number of weights with such factors
 * beside them.
 */
tensorTypes: { [key in string]: number }, provenance: { [key in string]: string }, };

export type LlmQatConfig = { 
/**
 * Where the model will run. Default `halfstep`, which holds its grids.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default 4, or what the target holds.
 */
weights?: number, 
/**
 * Columns of a row that share a scale; 0 is the whole row. Default 0, or what the target
 * holds.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default 8, or what the target uses.
 */
cache?: number, 
/**
 * Everything about the training run. Where the run gives no data, `tokens` are generated too.
 * Without warm-up, and the cosine ends at 0; the rate, 2e-4, is for small budgets: the authors
 * take 2e-5 for 200 million tokens.
 */
train: TrainConfig, };

/**
 * What became of a quantized linear.
 */
export type MatrixRecord = { block: number, 
/**
 * `self_attn.q_proj`, ...
 */
linear: string, 
/**
 * Share of the weights that lie outside the grid's limits and are clipped to them; null where
 * codes alone were left.
 */
clipFraction: number | null, 
/**
 * Mean of |s_end / s_start - 1| over its scales; null without training. Of the last stage that
 * trained them.
 */
stepDrift: number | null, 
/**
 * Mean of its squared gradients over that of all linears; null where they were not taken.
 */
saliency: number | null, };

export type OmniquantConfig = { 
/**
 * Where the model will run. Default `halfstep`, which holds its grids.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default 2.
 */
weights?: number, 
/**
 * Columns of a row that share a scale and a zero point. Default 64.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
 */
cache?: number, 
/**
 * Everything about the training run.
 */
train: BlockOptions, };

/**
 * What a run will take.
 */
export type Plan = { recipe: string, target: string, 
/**
 * Stored bits of the block linears, scales and low-rank factors included, per weight.
 */
bitsPerWeight: number, 
/**
 * Of the file that will be written.
 */
outputBytes: number, 
/**
 * In the run folder, at most.
 */
diskBytes: number, 
/**
 * Optimizer steps.
 */
steps: number, tokens: number, 
/**
 * Until the result is in memory and measured.
 */
seconds: number, 
/**
 * Peak resident memory of the process.
 */
peakMemoryBytes: number, 
/**
 * What this process could have without swapping; 0 where the system does not tell.
 */
freeMemoryBytes: number, 
/**
 * Whether the peak was measured. Else it is estimated: the system does not tell it, or only
 * with what the process has needed before.
 */
memoryMeasured: boolean, 
/**
 * Whether the memory is enough; null where the system does not tell.
 */
fits: boolean | null, 
/**
 * What would need less memory, if it does not fit.
 */
advice: string | null, 
/**
 * One after the other.
 */
stages: Array<PlanStage>, 
/**
 * Flags the client will need to run the file.
 */
clientFlags: Array<string>, 
/**
 * What making the plan took.
 */
planSeconds: number, };

/**
 * A part of a run.
 */
export type PlanStage = { 
/**
 * `generate`, `saliency` (for a report), `round`, `blocks`, `model` or `evaluate`.
 */
name: string, steps: number, secondsPerStep: number, seconds: number, peakMemoryBytes: number, 
/**
 * In the run folder, at most.
 */
diskBytes: number, };

/**
 * What a user writes: a recipe's name and its options.
 */
export type RecipeConfig = { "kind": "silq" } & SilqConfig | { "kind": "rtn" } & RtnConfig | { "kind": "llm-qat" } & LlmQatConfig | { "kind": "gptq" } & GptqRecipeConfig | { "kind": "awq" } & AwqRecipeConfig | { "kind": "omniquant" } & OmniquantConfig | { "kind": "apiq" } & ApiqConfig | { "kind": "sapr" } & SaprConfig | { "kind": "efficientqat" } & EfficientqatConfig;

/**
 * When the forward of a block is run again in the backward instead of kept.
 */
export type Recompute = "auto" | "always" | "never";

/**
 * What a run did.
 */
export type Report = { recipe: string, target: string, 
/**
 * Stored bits of the block linears, scales and low-rank factors included, per weight.
 */
bitsPerWeight: number, 
/**
 * Optimizer steps; 0 without training.
 */
steps: number, tokens: number, seconds: number, tokensPerSecond: number, 
/**
 * Loss of the last step; null without training.
 */
finalLoss: number | null, 
/**
 * Peak resident memory in bytes; 0 where the system does not tell.
 */
memoryBytes: number, 
/**
 * On the validation text, if there is one: full precision, round to nearest on the same grid
 * (in smaller groups to be about as large, where low-rank factors lie beside the result), and
 * the result.
 */
evaluations: { [key in string]: EvaluationRecord }, 
/**
 * Flags the client needs to run the file as it was trained, e.g. the cache type.
 */
clientFlags: Array<string>, 
/**
 * If it was asked for.
 */
record?: RunRecord, };

export type RtnConfig = { 
/**
 * Where the model will run. Default `gguf:q4_0`.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default: what the target holds.
 */
weights?: number, 
/**
 * Columns of a row that share a scale; 0 is the whole row. Default: what the target holds.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default: what the target uses.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default: what the target uses.
 */
cache?: number, 
/**
 * A zero point per group (target `halfstep`). Default false.
 */
zeroPoints: boolean, 
/**
 * How scales are found. Default `best`.
 */
start: StartRule, };

/**
 * How a run is carried out, apart from the recipe. Every field has a default, but a recipe that
 * trains needs `data`, `text` or `selfGenerated`.
 */
export type RunConfig = { 
/**
 * Path of a UTF-8 text file to train on; one that ends in .jsonl holds an object a line, each
 * with a document in its field `text`.
 */
data?: string, 
/**
 * The text itself, instead of `data`.
 */
text?: string, 
/**
 * Tokens that the unquantized model generates to train on, instead of `data` or beside it
 * (LLM-QAT, arXiv 2305.17888). They are kept in `runFolder`, and read from there again.
 * Default: what the recipe says; most want a text.
 */
selfGenerated?: number, 
/**
 * Characters of the text to leave out at its beginning (kept for reporting). Default 0.
 */
skipCharacters: number, 
/**
 * Path of a UTF-8 text or .jsonl file to measure on, before and after. Never trained on.
 */
validation?: string, 
/**
 * The validation text itself, instead of `validation`.
 */
validationText?: string, 
/**
 * Tokens of the validation text to measure on. Default 4096.
 */
validationTokens?: number, 
/**
 * Where the result will be saved: an ending that the target is not written with is refused
 * before anything is done. Nothing is written there by the run.
 */
output?: string, 
/**
 * Folder for checkpoints and finished blocks. Default: none are written.
 */
runFolder?: string, 
/**
 * Optimizer steps between checkpoints. Default: only when the run is stopped. A finished block
 * is written always.
 */
checkpointEvery?: number, 
/**
 * Go on from the finished blocks or the newest checkpoint in `runFolder`, if there are any.
 */
resume: boolean, 
/**
 * Worker threads; 0 is one per core. The number never changes a result. Default 0.
 */
threads: number, 
/**
 * Give the report a record of the run: losses, matrices, what each block changes. Default
 * false.
 */
record: boolean, };

/**
 * The data of a report.
 */
export type RunRecord = { settings: RunSettings, 
/**
 * Full precision, round to nearest on the same grid (in smaller groups to be about as large,
 * where low-rank factors lie beside the result), and the result.
 */
table: Array<TableRow>, 
/**
 * One after the other; none without training.
 */
stages: Array<StageRecord>, 
/**
 * Every quantized linear, block after block.
 */
matrices: Array<MatrixRecord>, 
/**
 * By block: KL to the unquantized model in nats when this block alone is as in the result.
 * Empty without a validation text.
 */
blockKl: Array<number>, 
/**
 * Tokens that `blockKl` was measured on.
 */
blockKlTokens: number, };

/**
 * What made the result.
 */
export type RunSettings = { 
/**
 * Of halfstep.
 */
version: string, 
/**
 * Name of the model.
 */
model: string, 
/**
 * The recipe with every default filled in.
 */
recipe: Record<string, unknown>, 
/**
 * Null without training.
 */
seed: number | null, 
/**
 * Where the training text came from, `blake3:` and its hash; null without training.
 */
data: string | null, };

/**
 * Which difference is penalised.
 */
export type SaliencyPlace = "beforeLowRank" | "afterLowRank";

/**
 * What lambda multiplies.
 */
export type SaliencyScale = "scaleFree" | "perMatrix" | "raw";

export type SaprConfig = { 
/**
 * Where the model will run. Default `halfstep`, which holds its grids.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default 2.
 */
weights?: number, 
/**
 * Columns of a row that share a scale and a zero point. Default 64.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
 */
cache?: number, 
/**
 * Rank of the factors beside each linear; 0 for none. Default 8: at 64, as in the paper, they
 * outweigh a small model's weights.
 */
rank: number, 
/**
 * The factors' product is multiplied by alpha / rank. Default 16.
 */
alpha: number, 
/**
 * Weight of the penalty. Default 1 (the scale-free penalty is a weighted mean of squared
 * rounding errors).
 */
lambda: number, 
/**
 * What lambda multiplies. Default `scaleFree`.
 */
saliencyScale: SaliencyScale, 
/**
 * Whether the penalised difference holds the factors. Default `beforeLowRank`.
 */
saliencyPlace: SaliencyPlace, 
/**
 * Sequences whose gradients are squared. Default 32.
 */
saliencySamples: number, 
/**
 * Epochs with the penalty alone, before those with both (`train.epochs`). Default 0.
 */
penaltyEpochs: number, 
/**
 * Epochs with the outputs alone, after them. Default 0.
 */
outputEpochs: number, 
/**
 * Everything about the training run.
 */
train: BlockOptions, };

/**
 * A written file.
 */
export type SaveReport = { path: string, bytes: number, 
/**
 * Codes, scales and outputs of the re-opened file were compared with the model in memory and
 * are equal.
 */
parity: boolean, };

export type SilqConfig = { 
/**
 * Where the model will run: training simulates exactly its grids. Default `gguf:q4_0`.
 */
target: TargetId, 
/**
 * Bits of the block linears. Default: what the target holds.
 */
weights?: number, 
/**
 * Columns of a row that share a step; 0 is the whole row. Default: what the target holds.
 */
groupSize?: number, 
/**
 * Bits of the linears' inputs: 8, or 16 to leave them alone. Default: what the target uses.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 4 or 8, 16, 32. Default: what the target uses.
 */
cache?: number, 
/**
 * One learned step per activation and cache site instead of dynamic scales (target `halfstep`
 * only). Default false.
 */
staticActivations: boolean, 
/**
 * How the first weight steps are found. Default `best`. At 4 bit per channel `signedAbsmax`
 * can train better still.
 */
start: StartRule, 
/**
 * Learn the weight steps; false freezes them at `start`. Default true.
 */
learnSteps?: boolean, 
/**
 * Whether a weight exactly on the edge of the grid counts as inside. Default `inside`.
 */
edge?: EdgeRuleConfig, 
/**
 * N of LSQ's gradient scale. Default `layer`.
 */
gradientScale: GradientScale, 
/**
 * Everything about the training run.
 */
train: TrainConfig, };

/**
 * What a user may say about the text that a solver sees.
 */
export type SolverOptions = { 
/**
 * Sequences of the text. Default 32; the papers take 128.
 */
samples?: number, 
/**
 * Tokens of a sequence. Default 512.
 */
window?: number, 
/**
 * Default: what a probe finds fastest on this machine.
 */
arithmetic?: TrainArithmetic, };

/**
 * One stage of training.
 */
export type StageRecord = { 
/**
 * Steps done before those of `losses`, by an earlier part of a resumed run.
 */
firstStep: number, 
/**
 * Loss of every step, before its update, where the whole model learns.
 */
losses: Array<number>, 
/**
 * Where one block learns at a time.
 */
blocks: Array<BlockRecord>, matrices: Array<MatrixRecord>, };

/**
 * How the first step of a weight is found.
 */
export type StartRule = "best" | "absmax" | "signedAbsmax" | "errorSearch" | "convex" | "lsq";

/**
 * A model in the table.
 */
export type TableRow = { 
/**
 * `fp`, `rtn` or `result`.
 */
subject: string, 
/**
 * Of its file.
 */
bytes: number, 
/**
 * Of the block linears, scales and factors included.
 */
bitsPerWeight: number, 
/**
 * Null without a validation text.
 */
evaluation: EvaluationRecord | null, };

export type TargetId = "gguf:q4_0" | "gguf:q8_0" | "gguf:tq2_0" | "halfstep";

/**
 * What the products of a training step are computed in. Parameters, gradients and the optimizer
 * are f32 in each.
 */
export type TrainArithmetic = "f32" | "bf16" | "f16" | "int8-forward";

/**
 * The training part of a recipe. Every field has a default.
 */
export type TrainConfig = { 
/**
 * Tokens to train on, rounded up to whole steps; the text is passed over again when it is
 * shorter. More is better and slower. Default 50,000.
 */
tokens: number, 
/**
 * Tokens of one sequence. Longer gives the teacher more to say and costs memory. Default 512.
 */
window: number, 
/**
 * Sequences per optimizer step. Default 4.
 */
batch: number, 
/**
 * Sequences per forward; `batch` is a multiple of it (gradient accumulation). Less memory,
 * same result up to rounding. Default: `batch`.
 */
microBatch?: number, 
/**
 * Peak rate of the weights. Too small moves nothing within a small budget. Default 2e-4.
 */
learningRate: number, 
/**
 * Rate of weight steps over that of the weights. Default 1.
 */
weightStepMultiplier: number, 
/**
 * Rate of activation and cache steps over that of the weights (static sites only). Default 10.
 */
activationStepMultiplier: number, 
/**
 * Rate of the norms over that of the weights. Default 1.
 */
normMultiplier: number, 
/**
 * Steps of linear warm-up, as a share of all. Default 0.1.
 */
warmup: number, 
/**
 * The cosine ends at this share of the peak rate. Default 0.05.
 */
minRatio: number, beta1: number, beta2: number, eps: number, 
/**
 * On matrices only, never on steps or norms. Default 0.
 */
weightDecay: number, 
/**
 * Global gradient norm. Default 1.
 */
maxNorm: number, 
/**
 * Weight of KL(teacher || student). Default 1.
 */
klWeight: number, 
/**
 * Weight of the next-token cross-entropy. Default 0.
 */
ceWeight: number, 
/**
 * Temperature of the KL. Default 1.
 */
temperature: number, 
/**
 * Default: what a probe finds fastest on this machine; the `train` phase names it.
 */
arithmetic?: TrainArithmetic, recompute: Recompute, 
/**
 * Memory of the loss's logits in bytes; tokens go through the head in chunks of it. Default 64
 * MiB.
 */
lossBytes: number, 
/**
 * Decides the order of the data. Same seed, same bytes. Default 0.
 */
seed: number, };
