// Written by crates/core/tests/generated.rs from the Rust types. Do not edit.

/**
 * Which values of an activation share a scale.
 */
export type ActivationGranularity = "token" | "head" | { 
/**
 * `n` consecutive ones of a token or, in the cache, of a head.
 */
"block": number };

/**
 * How the input of a quantized linear, or keys (after RoPE) and values, are kept. A scale that
 * follows the values clips nothing.
 */
export type ActivationSpec = { 
/**
 * As f32: not quantized.
 */
"kind": "f32" } | { 
/**
 * Rounded to f16 (what llama.cpp does with keys and values unless asked).
 */
"kind": "f16" } | { 
/**
 * Codes whose scales follow the values: max|x| over the largest code.
 */
"kind": "dynamic", 
/**
 * Which codes there are.
 */
element: Element, 
/**
 * Which values share a scale.
 */
granularity: ActivationGranularity, 
/**
 * How a scale is stored.
 */
scale: ScaleCodec, } | { 
/**
 * Codes with one scale for the site, found by calibration or learned, stored with the model: code =
 * clip(nearest-even(x / scale)), value = code * scale.
 */
"kind": "static", 
/**
 * Which codes there are.
 */
element: Element, };

/**
 * AdamW (arXiv 1711.05101).
 */
export type AdamWConfig = { 
/**
 * Decay of the mean of the gradients, 0 up to 1. Default 0.9.
 */
beta1: number, 
/**
 * Decay of the mean of the squared gradients, 0 up to 1. Default 0.999.
 */
beta2: number, 
/**
 * Number that is added to the denominator, above 0. Default 1e-8.
 */
eps: number, };

/**
 * L2-SP (arXiv 1802.01483). It has no options.
 */
export type AnchorConfig = Record<symbol, never>;

/**
 * ApiQ: clipping, and low-rank factors that are added to the quantized weights, learn layer by
 * layer.
 */
export type ApiqConfig = { 
/**
 * What is trained at a time: `block` (all linears of a layer, on the outputs of the layer;
 * ApiQ-bw in the paper) or `linear` (one linear after the other, each on its own outputs;
 * ApiQ-lw), which then has the epochs of a layer. Default `block`.
 */
scope: LayerScope, 
/**
 * Options of the training, layer by layer.
 */
train: BlockOptions, 
/**
 * Rank of the low-rank factors of each linear layer; 0 for none. Default 8 where the target
 * stores them, otherwise 0: at 64, as in the paper, the factors of a small model take more
 * bytes than its weights.
 */
rank?: number, 
/**
 * Number above 0; the product of the low-rank factors is multiplied by alpha / rank. Default
 * 16.
 */
alpha: number, } & Common;

/**
 * Arithmetic of the products with weights.
 */
export type ArithmeticConfig = "auto" | "float" | "integer";

/**
 * AWQ (arXiv 2306.00978).
 */
export type AwqConfig = { 
/**
 * Search the groups' clips too.
 */
clip: boolean, };

/**
 * AWQ: the weights of input channels with large activations are scaled up before rounding,
 * then the ranges are clipped.
 */
export type AwqRecipeConfig = { 
/**
 * Also search for the best clipping of each group of weights. Default true.
 */
clip: boolean, 
/**
 * Options of the calibration text.
 */
train: SolverOptions, } & Common;

/**
 * Two streams of hidden states run through the layers: those of the unquantized model (the
 * teacher), and those of the quantized layers that are finished. Each layer learns to compute from
 * the second stream what the unquantized layer computes from the first. Only one layer is in
 * memory at a time, whatever the depth of the model. In a stage of scope linear each linear learns
 * so by itself, from what it reads on either stream.
 */
export type BlockConfig = { 
/**
 * Number of sequences that the layers are trained on. If the model generates a text in
 * addition to the one that is given, up to half of them are taken from that.
 */
samples: number, 
/**
 * Number of tokens of each sequence.
 */
sequenceLength: number, 
/**
 * Number of sequences of each optimizer step.
 */
batch: number, 
/**
 * Whether a layer (or linear) learns from a second target too: the outputs of the unquantized
 * one for the quantized stream.
 */
secondTarget: boolean, 
/**
 * The penalty on rounding errors, for the phases that add it; absent: there is none.
 */
saliency?: SaliencyConfig, 
/**
 * The solver that finds codes without gradients; a stage that has one has no phases.
 */
solver?: SolverConfig, 
/**
 * Phases of the training of every layer or linear, one after the other.
 */
phases: Array<BlockPhase>, 
/**
 * Growth of the learning rates with depth: layer i of n, counted from 0, learns at
 * `1 + growth * i / n` times the rates of the phase; 0: all layers learn at the same.
 */
rateGrowth?: number, 
/**
 * Weight decay of ranges and low-rank factors.
 */
weightDecay: number, 
/**
 * Pull of trained weights back to their initial values, as a share of their learning rate
 * (L2-SP, arXiv 1802.01483).
 */
anchor: number, 
/**
 * Terms of the loss in addition to those that the phases name; their weights may change over a
 * phase.
 */
terms?: Array<WeightedTerm>, 
/**
 * Rule by which gradients change what learns; absent: AdamW. It begins anew in every phase.
 */
optimizer?: OptimizerConfig, 
/**
 * What products are computed in; absent: what is fastest on this machine.
 */
arithmetic?: TrainArithmetic, 
/**
 * Seed of the order of the data and of the initial low-rank factors.
 */
seed: number | bigint, };

/**
 * Blocks of input channels that a Hadamard matrix mixes.
 */
export type BlockHadamardConfig = { 
/**
 * Channels of a block: a power of two that divides the columns of the weight.
 */
size: number, 
/**
 * Seed of the random signs. Linears that read the same input have the same signs.
 */
seed?: number, };

/**
 * Options of training layer by layer. Every field has a default, which the recipe gives.
 */
export type BlockOptions = { 
/**
 * Number of sequences that every layer learns from, at least 1; up to half of them are
 * generated by the model itself if the run has `selfGenerated` in addition to a text. Default
 * 32; the papers use 128 and more.
 */
samples?: number, 
/**
 * Tokens of each sequence, at least 2. Default 512.
 */
sequenceLength?: number, 
/**
 * Sequences in each optimizer step, at most `samples`. Default 1.
 */
batch?: number, 
/**
 * Passes over the sequences for every layer, at least 1. Default 5; the papers use 20 and
 * more at 2 bits.
 */
epochs?: number, 
/**
 * Learning rate of the ranges, 0 or more: of the clipping factors, or of the scales (as a
 * share of their root mean square) and zero points (in codes). Default: given by the recipe.
 */
rangeLearningRate?: number, 
/**
 * Learning rate of the low-rank factors, 0 or more. Default: given by the recipe.
 */
lowRankLearningRate?: number, 
/**
 * Learning rate of weights and norms, where they learn, as a share of the root mean square of
 * each tensor. Default: given by the recipe.
 */
weightLearningRate?: number, 
/**
 * Share of the learning rates that is left at the end of the cosine schedule, 0 to 1; 1 keeps
 * them constant. Default: given by the recipe.
 */
minRatio?: number, 
/**
 * Weight decay of clipping factors and low-rank factors, 0 or more. Default: given by the
 * recipe.
 */
weightDecay?: number, 
/**
 * Pull of trained weights back to their initial values, as a share of their learning rate, 0
 * or more. Default: given by the recipe.
 */
anchor?: number, 
/**
 * Learn from a second target too: the outputs of the unquantized layer for the inputs that it
 * gets from the quantized layers before it. Default: given by the recipe.
 */
secondTarget?: boolean, 
/**
 * What the products of a training step are computed in: `f32`, `bf16`, `f16` or `int8-forward`
 * (forward by the integer products of the packed model; for targets that quantize
 * activations). Default: what a probe finds fastest on this machine.
 */
arithmetic?: TrainArithmetic, 
/**
 * Seed of the order of the data and of the initial low-rank factors; the same seed gives the
 * same bytes. Default 0.
 */
seed: number | bigint, };

/**
 * Mean squared difference of a layer's output from the teacher's. It has no options.
 */
export type BlockOutputConfig = Record<symbol, never>;

/**
 * Epochs with one loss and one set of learning rates.
 */
export type BlockPhase = { 
/**
 * Number of passes over the sequences.
 */
epochs: number, 
/**
 * Whether the loss compares the outputs of the layer or linear with those of the unquantized
 * one.
 */
output: boolean, 
/**
 * Whether the loss contains the saliency penalty.
 */
saliency: boolean, 
/**
 * Learning rates by what learns.
 */
rates: BlockRates, 
/**
 * Share of the learning rates that is left at the end of the cosine schedule; 1 keeps them
 * constant.
 */
minRatio: number, };

/**
 * Learning rates by what learns; 0 freezes it, and what does not learn has 0. Those of scales, weights and norms are shares of
 * the initial root mean square of each tensor.
 */
export type BlockRates = { 
/**
 * Learning rate of clips, or of scales and zero points (in codes).
 */
ranges: number, 
/**
 * Learning rate of the low-rank factors.
 */
lowRank: number, 
/**
 * Learning rate of weights and norms.
 */
weights: number, };

/**
 * The training of one layer.
 */
export type BlockRecord = { 
/**
 * Number of the layer, from 0.
 */
block: number, 
/**
 * Loss of every step, before its update.
 */
losses: Array<number>, 
/**
 * Mean loss over the first pass through the samples, or over the first half of the steps if
 * there were fewer than two passes.
 */
firstLoss: number, 
/**
 * Mean loss over the last pass, or over the last half of the steps.
 */
lastLoss: number, 
/**
 * Rows of its experts that a solver found their codes from; absent without experts or a solver.
 */
experts?: ExpertsRecord, };

/**
 * Distance of the moments of each channel (norm tweaking, arXiv 2309.02784).
 */
export type ChannelMomentsConfig = { 
/**
 * Tokens at the start of each sequence that do not count. Default 1.
 */
skip: number, };

/**
 * One scale for each input channel; there are no options.
 */
export type ChannelScaleConfig = Record<symbol, never>;

/**
 * One turn of a conversation.
 */
export type ChatMessage = { 
/**
 * Role of the speaker: `system`, `user`, `assistant` or another that the chat template has.
 */
role: string, 
/**
 * Text of the turn.
 */
content: string, };

/**
 * Options that every recipe has. What the user leaves out is the recipe's default; what the
 * recipe leaves open is decided by the target.
 */
export type Common = { 
/**
 * Where the model will run, which decides the grids it may have: `gguf:q4_0`, `gguf:q4_1`,
 * `gguf:q8_0` or `gguf:tq2_0` (files for llama.cpp), or `halfstep` (our own file, any grid).
 * Default: given by the recipe.
 */
target?: TargetId, 
/**
 * Bits of each weight in the linear layers of the transformer blocks, 2 to 8. Default: what a
 * gguf target holds, otherwise given by the recipe.
 */
weights?: number, 
/**
 * Columns of a weight row that share a scale and, if the grid has one, a zero point; 0 is the
 * whole row. Default: what a gguf target holds, otherwise given by the recipe.
 */
groupSize?: number, 
/**
 * Bits of the inputs of the linear layers, 2 to 8, or 16 to leave them in floating point.
 * Default 8.
 */
activations?: number, 
/**
 * Bits of the key/value cache: 2 to 8, 16 or 32; gguf targets have 8, 16 and 32. Default: 16
 * with a gguf target, otherwise given by the recipe.
 */
cache?: number, };

/**
 * COMQ (arXiv 2403.07134).
 */
export type ComqConfig = { 
/**
 * Visits of every column, 1 to 100.
 */
passes: number, 
/**
 * Columns by falling norm of their inputs times the weight, instead of as they are stored.
 */
greedy: boolean, 
/**
 * Start from the nearest codes instead of the weights.
 */
fromNearest: boolean, 
/**
 * Compare with the outputs of the teacher's layers before, instead of with those of the same
 * inputs.
 */
twoStreams: boolean, 
/**
 * Added to the diagonals of both products, as a share of the mean diagonal.
 */
damping: number, 
/**
 * Find the best scales for the codes after every pass.
 */
updateScales?: boolean, };

/**
 * COMQ: coordinate descent on the error of the outputs, one weight after the other.
 */
export type ComqRecipeConfig = { 
/**
 * Number of visits of every weight, 1 to 100. Default 3.
 */
passes: number, 
/**
 * Visit the weights with the largest products of weight and inputs first, instead of from
 * left to right. Default true.
 */
greedy: boolean, 
/**
 * Compare with the outputs of the unquantized model, instead of with those of the
 * unquantized layer for the inputs that the quantized layers before it give. Default
 * false.
 */
twoStreams: boolean, 
/**
 * Damping that is added to the diagonal of the products of the inputs, as a share of its
 * mean; 0 to 10. Default 0.01.
 */
damping: number, 
/**
 * Find the best scale of each group for its codes after every pass, instead of keeping
 * those of the unquantized weights. Default false, as in the program of the authors.
 */
updateScales: boolean, 
/**
 * Options of the calibration text.
 */
train: SolverOptions, } & Common;

/**
 * Cross-entropy of the next token. It has no options.
 */
export type CrossEntropyConfig = Record<symbol, never>;

/**
 * Whether `u` equal to a bound of the grid counts as inside (ParetoQ's code; default) or outside
 * (LSQ's paper).
 */
export type EdgeRule = "inside" | "outside";

/**
 * EfficientQAT: weights, scales and zero points learn layer by layer, then the scales alone
 * learn end to end.
 */
export type EfficientqatConfig = { 
/**
 * Options of phase 1, layer by layer.
 */
train: BlockOptions, 
/**
 * Number of tokens to train on in phase 2, end to end; 0 leaves the phase out. Default
 * 32,768.
 */
endTokens: number, 
/**
 * Learning rate of the scales in phase 2, as a share of the initial root mean square of
 * the scales of each matrix. Default 5e-3; 1e-3 suits the next-token loss.
 */
endLearningRate: number, 
/**
 * Weight in the loss of phase 2 of the KL divergence to the unquantized model (the
 * teacher), 0 or more. Default 1.
 */
endKlWeight: number, 
/**
 * Weight in the loss of phase 2 of the cross-entropy of the next token, 0 or more. Default
 * 0.
 */
endCeWeight: number, } & Common;

/**
 * Which codes there are.
 */
export type Element = { 
/**
 * Whole numbers of 2 to 8 bits.
 */
"kind": "int" } & Int | { 
/**
 * Up to 16 levels of int8.
 */
"kind": "table" } & Table | { 
/**
 * Up to 16 levels of int8 of every row.
 */
"kind": "rowTable" } & RowTable;

/**
 * Options of an evaluation.
 */
export type EvaluateConfig = { 
/**
 * Path of the text to measure on: UTF-8, or documents: a .jsonl or .ndjson file with an object
 * in each line, or a .json file with an array of them. An object has a text in `text`, or a
 * conversation in `messages` (objects with role and content), which the chat template of the
 * model renders. Default: none.
 */
data?: string, 
/**
 * Text to measure on, instead of a path in `data`. Default: none.
 */
text?: string, 
/**
 * Number of tokens to measure on, from the beginning of the text; 0 uses all of it. Default 0.
 */
tokens: number, 
/**
 * Number of tokens of each sequence that the text is cut into; each sequence is evaluated by
 * itself. Default 512.
 */
sequenceLength: number, 
/**
 * How the text is cut, and what is scored: `sequences` (every token of a sequence but its
 * first) or `llama.cpp` (as the tool `llama-perplexity` does, for figures to compare with its
 * own: the begin token takes the place of the first token of each sequence, the second half
 * of each is scored, and tokens after the last whole sequence are left out). Default
 * `sequences`.
 */
windows: WindowRule, 
/**
 * Whether the begin token is put before each sequence: `on`, `off` or `auto` (on if the
 * tokenizer adds one to a text). It takes one position of each sequence and is never
 * predicted. Default `auto`.
 */
bos: Switch, 
/**
 * Whether special tokens that a text spells out are read as tokens: `on`, `off` (they are plain
 * text) or `auto` (on for conversations only). Default `auto`.
 */
special: Switch, 
/**
 * Measure the answers of conversations only: what no assistant says is read, but not
 * predicted. Default false.
 */
answersOnly: boolean, 
/**
 * Arithmetic of the products: `integer` (on the codes of the quantized weights), `float` (on
 * decoded weights, with nothing else quantized) or `auto` (integer for a quantized model).
 * Default `auto`.
 */
arithmetic: ArithmeticConfig, 
/**
 * Number of threads, at most 1024; 0 uses one per core. It never changes a result. Default 0.
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
meanNll: number, 
/**
 * Number of tokens that were predicted.
 */
predictions: number, 
/**
 * Mean KL(against || model) in nats; null without `against`.
 */
kl: number | null, 
/**
 * Share of positions where both models give the same token the highest probability; null
 * without `against`.
 */
top1Agreement: number | null, 
/**
 * Predictions per second of the forward pass of the model itself; 0 where there is no clock.
 */
tokensPerSecond: number, 
/**
 * How the text was read; absent where the measurement was made by a version that did not say
 * it.
 */
reading?: ReadingRecord, };

/**
 * What a run reports while it works.
 */
export type Event = { 
/**
 * A part of the run begins: `generate`, `calibrate`, `train`, `evaluate`, `pack`; or, as `data`,
 * how the text is read.
 */
"kind": "phase", 
/**
 * Name of the part.
 */
name: string, 
/**
 * What it works on, for people.
 */
detail: string, } | { 
/**
 * The unquantized model has generated `tokens` of the `total` tokens to train on; `tokensPerSecond`
 * is the speed since the run started or was resumed.
 */
"kind": "generate", 
/**
 * Tokens generated so far, by all parts of a resumed run.
 */
tokens: number, 
/**
 * Tokens that will be generated.
 */
total: number, 
/**
 * Generated tokens per second.
 */
tokensPerSecond: number, } | { 
/**
 * One optimizer step is done. The loss is that of its batch, before the update.
 */
"kind": "step", 
/**
 * Number of steps that are done, this one included.
 */
step: number, 
/**
 * Number of steps of the stage, those of all layers together.
 */
steps: number, 
/**
 * Loss of the batch, before the update.
 */
loss: number, 
/**
 * Learning rate of the step; in a stage of layers, the share of their rates that the
 * schedule leaves.
 */
learningRate: number, 
/**
 * Norm of the gradient of all parameters, before clipping.
 */
gradientNorm: number, 
/**
 * Tokens trained on so far.
 */
tokens: number, 
/**
 * Tokens trained on per second.
 */
tokensPerSecond: number, 
/**
 * Seconds to the end of training, from measured steps.
 */
etaSeconds: number, 
/**
 * Peak resident memory of the process in bytes; 0 where the system does not report it.
 */
memoryBytes: number, } | { 
/**
 * A layer is finished; `loss` is the mean squared difference of its outputs from those of the
 * unquantized layer.
 */
"kind": "block", 
/**
 * Number of the layer, from 0.
 */
block: number, 
/**
 * Number of layers.
 */
blocks: number, 
/**
 * Mean squared difference of its outputs.
 */
loss: number, } | { 
/**
 * A measurement: `subject` is `fp`, `rtn` or `result`, on the validation text.
 */
"kind": "eval", 
/**
 * What was measured: `fp` (full precision), `rtn` or `result`.
 */
subject: string, 
/**
 * The measurement.
 */
evaluation: EvaluationRecord, } | { 
/**
 * State was saved; the run can be resumed from `path`.
 */
"kind": "checkpoint", 
/**
 * Number of steps that are done.
 */
step: number, 
/**
 * Folder of the checkpoint.
 */
path: string, } | { 
/**
 * Something that the run could work around.
 */
"kind": "warning", 
/**
 * What it was, in a sentence.
 */
message: string, };

/**
 * The experts of a model.
 */
export type ExpertsInspection = { 
/**
 * Number of layers that have experts.
 */
layers: number, 
/**
 * Experts of a layer, the largest number where layers differ. One that all tokens use is not
 * counted.
 */
count: number, 
/**
 * How many of them a token uses.
 */
used: number, 
/**
 * Weights of all experts.
 */
parameters: number, 
/**
 * Weights that a token uses: those of the model without those of its other experts.
 */
activeParameters: number, 
/**
 * Stored bytes of all experts; 0 without weights.
 */
bytes: number, };

/**
 * The calibration of a layer's experts. Each sees the rows that the router sends it; to one that
 * gets fewer than a floor, other rows are shown in addition.
 */
export type ExpertsRecord = { 
/**
 * Number of the layer, from 0.
 */
block: number, 
/**
 * Number of its experts.
 */
experts: number, 
/**
 * Rows that the router sends the expert with the fewest.
 */
leastRows: number, 
/**
 * Rows that the router sends the expert with the most.
 */
mostRows: number, 
/**
 * The floor: rows that every expert sees, if the calibration has so many.
 */
floor: number, 
/**
 * Number of experts below the floor.
 */
toppedUp: number, };

/**
 * The contents of a file or folder, whether its model can be run or not, for `halfstep inspect`.
 * What a file does not give is null.
 */
export type FileInspection = { 
/**
 * Name of the model.
 */
name: string, 
/**
 * What the file is: `gguf`, `halfstep`, `safetensors`, `folder` (Hugging Face) or `config`.
 */
format: string, 
/**
 * Name of the architecture, as the file has it.
 */
architecture: string | null, 
/**
 * Number of weights; those of a tied head count once. Where the architecture is unknown, the
 * elements of all tensors.
 */
parameters: number, 
/**
 * Size of the file or files.
 */
fileBytes: number, 
/**
 * All stored weight bits over all parameters; 0 without weights.
 */
bitsPerWeight: number, 
/**
 * Its experts; null if no layer has some.
 */
experts: ExpertsInspection | null, 
/**
 * Rows of the embedding.
 */
vocabSize: number | null, 
/**
 * Width of the rows that go from layer to layer.
 */
hiddenSize: number | null, 
/**
 * Width inside the feed-forward of a layer, the largest where layers differ.
 */
intermediateSize: number | null, 
/**
 * Number of layers.
 */
layers: number | null, 
/**
 * Number of query heads of a layer, the largest where layers differ.
 */
heads: number | null, 
/**
 * Number of key/value heads of a layer, the largest where layers differ.
 */
kvHeads: number | null, 
/**
 * Elements of a head.
 */
headDim: number | null, 
/**
 * Longest context in tokens.
 */
maxPositions: number | null, 
/**
 * Whether the head is the embedding.
 */
tiedHead: boolean | null, 
/**
 * Kind of the tokenizer, as the file calls it (`gpt2`, `llama`, `BPE`, `Unigram`); null
 * without one.
 */
tokenizer: string | null, 
/**
 * llama.cpp's name of the pre-tokenizer, where the file has it.
 */
preTokenizer: string | null, 
/**
 * Whether there is a chat template.
 */
hasChatTemplate: boolean, 
/**
 * Target of a quantized model, null for any other.
 */
target: string | null, 
/**
 * Number of tensors by storage type; `low rank <r>` is the number of weights with factors of
 * that rank.
 */
tensorTypes: { [key in string]: number }, 
/**
 * Bytes of the tensors by storage type.
 */
tensorBytes: { [key in string]: number }, 
/**
 * How the model was made (recipe, seed, hash of the data), by name; empty if it was not made
 * by halfstep.
 */
provenance: { [key in string]: string }, 
/**
 * What is set right or left out in reading.
 */
warnings: Array<string>, 
/**
 * What loading the model ends in; null if it can be run.
 */
refusal: Refusal | null, };

/**
 * A finished generation.
 */
export type Generation = { 
/**
 * The new text, without the prompt.
 */
text: string, 
/**
 * Ids of the new tokens.
 */
tokens: Array<number>, 
/**
 * Number of tokens of the prompt.
 */
promptTokens: number, 
/**
 * New tokens per second, the reading of the prompt included in the time.
 */
tokensPerSecond: number, };

/**
 * Options of a generation.
 */
export type GenerationConfig = { 
/**
 * Plain text to continue. Default: none.
 */
prompt?: string, 
/**
 * Conversation to continue, rendered by the chat template of the model, instead of `prompt`.
 * Default: none.
 */
messages?: Array<ChatMessage>, 
/**
 * Largest number of new tokens. Default 128.
 */
maxTokens: number, 
/**
 * Temperature of the sampling, 0 or more; 0 always takes the most likely token. Default 0.
 */
temperature: number, 
/**
 * Sample from the k most likely tokens only; 0 samples from all. Default 0.
 */
topK: number, 
/**
 * Sample from the smallest set of tokens whose probabilities reach this sum; 1 samples from
 * all. Default 1.
 */
topP: number, 
/**
 * Seed of the sampling; the same seed gives the same text. Default 0.
 */
seed: number | bigint, 
/**
 * Number of threads, at most 1024; 0 uses one per core. It never changes a result. Default 0.
 */
threads: number, };

/**
 * GPTQ (arXiv 2210.17323).
 */
export type GptqConfig = { 
/**
 * Added to the Hessian's diagonal, as a share of its mean.
 */
damping: number, 
/**
 * Columns by falling diagonal of the Hessian.
 */
actOrder: boolean, };

/**
 * GPTQ: columns are rounded one after the other, and the columns that are not rounded yet
 * compensate each error.
 */
export type GptqRecipeConfig = { 
/**
 * Damping that is added to the diagonal of the Hessian, as a share of its mean, so that it
 * can be inverted; 0 to 10. It is raised, with a warning, where it is too small. Default
 * 0.01.
 */
damping: number, 
/**
 * Round the columns with the largest diagonal entries of the Hessian first, instead of
 * from left to right. Default true.
 */
actOrder: boolean, 
/**
 * Options of the calibration text.
 */
train: SolverOptions, } & Common;

/**
 * N in LSQ's gradient scale 1 / sqrt(N p).
 */
export type GradientScale = "matrix" | "group";

/**
 * Which elements of a matrix `[O, I]` share one scale.
 */
export type Granularity = "tensor" | "channel" | { 
/**
 * `n` consecutive columns of one row: `[O, ceil(I / n)]` scales. The last group of a row may be
 * short.
 */
"group": number };

/**
 * How the inner scale is stored.
 */
export type InnerScale = "uint4" | "uint6" | "e4m3";

/**
 * The contents of a model, for `halfstep inspect`.
 */
export type Inspection = { 
/**
 * Name of the model.
 */
name: string, 
/**
 * Name of the architecture, as GGUF has it: `llama`.
 */
architecture: string, 
/**
 * Number of weights; those of a tied head count once.
 */
parameters: number, 
/**
 * Size of the file or files that it was loaded from; 0 if it was made in memory.
 */
fileBytes: number, 
/**
 * All stored weight bits over all parameters.
 */
bitsPerWeight: number, 
/**
 * Its experts; null if no layer has some.
 */
experts: ExpertsInspection | null, 
/**
 * Rows of the embedding.
 */
vocabSize: number, 
/**
 * Width of the rows that go from layer to layer.
 */
hiddenSize: number, 
/**
 * Width inside the feed-forward of a layer.
 */
intermediateSize: number, 
/**
 * Number of layers.
 */
layers: number, 
/**
 * Number of query heads of a layer.
 */
heads: number, 
/**
 * Number of key/value heads of a layer.
 */
kvHeads: number, 
/**
 * Elements of a head.
 */
headDim: number, 
/**
 * Longest context in tokens.
 */
maxPositions: number, 
/**
 * Whether the head is the embedding.
 */
tiedHead: boolean, 
/**
 * llama.cpp's name of the pre-tokenizer; null without a tokenizer.
 */
tokenizer: string | null, 
/**
 * Ids of the tokens that end a generation, ascending.
 */
endTokens: Array<number>, 
/**
 * Whether there is a chat template.
 */
hasChatTemplate: boolean, 
/**
 * Target of a quantized model, null for a float one.
 */
target: string | null, 
/**
 * Number of tensors by storage type; `low rank <r>` is the number of weights with factors of
 * that rank.
 */
tensorTypes: { [key in string]: number }, 
/**
 * How the model was made (recipe, seed, hash of the data), by name; empty if it was not made
 * by halfstep.
 */
provenance: { [key in string]: string }, 
/**
 * What was set right or left out while reading.
 */
warnings: Array<string>, };

/**
 * A uniform integer grid, 2 to 8 bits.
 */
export type Int = { 
/**
 * Number of bits of a code, 2 to 8.
 */
bits: number, 
/**
 * Which of the integers with so many bits are codes.
 */
range: IntRange, };

/**
 * Which integers of so many bits are codes.
 */
export type IntRange = "symmetric" | "narrow" | "unsigned";

/**
 * Divergence from the teacher's distribution of the next token (arXiv 1503.02531).
 */
export type KlConfig = { 
/**
 * Temperature of both distributions, above 0. Default 1.
 */
temperature: number, };

/**
 * The layers from one to another, both included; -1 is the last one.
 */
export type LayerRange = { 
/**
 * The first layer.
 */
from: number, 
/**
 * The last layer.
 */
to: number, };

/**
 * What a built-in recipe that goes through the layers trains at a time.
 */
export type LayerScope = "block" | "linear";

/**
 * Layers of a model: one, or several in a row.
 */
export type Layers = number | LayerRange;

/**
 * Lion (arXiv 2302.06675).
 */
export type LionConfig = { 
/**
 * Weight of the mean against the new gradient in the direction of a step, 0 up to 1. Default
 * 0.9.
 */
beta1: number, 
/**
 * Decay of the mean of the gradients, 0 up to 1. Default 0.99.
 */
beta2: number, };

/**
 * LLM-QAT: all weights learn on text that the unquantized model generates itself, so that no
 * data are needed.
 */
export type LlmQatConfig = { 
/**
 * Options of the training. Unless the run has data, the model generates `tokens` first.
 * Unlike in other recipes there is no warm-up and the learning rate falls to 0; its peak,
 * 2e-4, is for small budgets: the authors use 2e-5 for 200 million tokens.
 */
train: TrainConfig, } & Common;

/**
 * Low-rank factors `A [rank, I]`, `B [O, rank]` of a quantized linear, whose product `(alpha / rank) B
 * A` is added outside of the quantizer or inside.
 */
export type LowRankConfig = { 
/**
 * Rank of the factors, 1 or more.
 */
rank: number, 
/**
 * The product of the factors is multiplied by alpha / rank; above 0.
 */
alpha: number, 
/**
 * Where the product is added.
 */
position?: LowRankPosition, };

/**
 * Where the product of low-rank factors is added.
 */
export type LowRankPosition = "outside" | "inside";

/**
 * Statistics of a quantized linear.
 */
export type MatrixRecord = { 
/**
 * Number of the layer, from 0.
 */
block: number, 
/**
 * `self_attn.q_proj`, ...
 */
linear: string, 
/**
 * Share of the weights that lie outside the grid's limits and are clipped to them; null if
 * only the codes were left.
 */
clipFraction: number | null, 
/**
 * Mean of |s_end / s_start - 1| over its scales in the last stage that trained them; null
 * without training.
 */
scaleDrift: number | null, 
/**
 * Mean of its squared gradients over that of all linears; null if they were not computed.
 */
saliency: number | null, };

/**
 * A scale with a scale of its own.
 */
export type Nested = { 
/**
 * How the inner scale is stored.
 */
inner: InnerScale, 
/**
 * How the outer scale is stored.
 */
outer: OuterScale, 
/**
 * Scales of a row that share an outer one, 1 or more; None: those of the whole tensor.
 */
scales?: number, };

/**
 * Norm tweaking: weights are rounded to nearest, then the norms learn, layer by layer, from
 * the means and variances of the channels of the unquantized layer.
 */
export type NormTweakingConfig = { 
/**
 * Growth of the learning rate with depth, 0 or more: layer i of n learns at 1 + growth *
 * i / n times the rate of the first. Default 1.
 */
rateGrowth: number, 
/**
 * Options of the training, layer by layer.
 */
train: BlockOptions, } & Common;

/**
 * How the first scales of a weight are found. p is the value of the
 * largest code, n that of the smallest.
 */
export type Observer = "best" | "absmax" | "signedAbsmax" | "errorSearch" | "convex" | "lsq";

/**
 * OmniQuant: the clipping of each group of weights learns, layer by layer; the weights are
 * frozen.
 */
export type OmniquantConfig = { 
/**
 * Options of the training, layer by layer.
 */
train: BlockOptions, } & Common;

/**
 * A rule of update and its options.
 */
export type OptimizerConfig = { 
/**
 * Steps in units of the root mean square of the gradients so far.
 */
"kind": "adamW" } & AdamWConfig | { 
/**
 * Steps of one size, in the direction of a mean of the gradients; half the state of AdamW.
 */
"kind": "lion" } & LionConfig;

/**
 * How the outer scale is stored.
 */
export type OuterScale = "f32" | "f16";

/**
 * The estimate of what a run will need.
 */
export type Plan = { 
/**
 * Name of the recipe.
 */
recipe: string, 
/**
 * Name of the target: `gguf:q4_0`.
 */
target: string, 
/**
 * Stored bits per weight of the linear layers, scales and low-rank factors included.
 */
bitsPerWeight: number, 
/**
 * Size of the file that will be written.
 */
outputBytes: number, 
/**
 * The experts of the model, their bytes in the file; null if no layer has some.
 */
experts: ExpertsInspection | null, 
/**
 * Largest size of the run folder.
 */
diskBytes: number, 
/**
 * Number of optimizer steps.
 */
steps: number, 
/**
 * Tokens that will be trained on, repeated ones each time.
 */
tokens: number, 
/**
 * Time until the result is in memory and measured.
 */
seconds: number, 
/**
 * Peak resident memory of the process.
 */
peakMemoryBytes: number, 
/**
 * Memory that this process can use without swapping; 0 where the system does not report it.
 */
freeMemoryBytes: number, 
/**
 * Whether the peak was measured. Otherwise it is estimated, because the system does not report
 * it, or reports it only with what the process has used before.
 */
memoryMeasured: boolean, 
/**
 * Whether there is enough memory; null where the system does not report how much is free.
 */
fits: boolean | null, 
/**
 * Changes that would need less memory, if it does not fit.
 */
advice: string | null, 
/**
 * Estimates of the stages, one after the other.
 */
stages: Array<PlanStage>, 
/**
 * Flags that the client will need to run the file.
 */
clientFlags: Array<string>, 
/**
 * Time that the planning took.
 */
planSeconds: number, };

/**
 * A part of a run.
 */
export type PlanStage = { 
/**
 * `generate`, `saliency` (for a report), `round`, `blocks`, `model` or `evaluate`.
 */
name: string, 
/**
 * Number of optimizer steps; 0 without training.
 */
steps: number, 
/**
 * Time of one step; 0 without steps.
 */
secondsPerStep: number, 
/**
 * Time of the stage.
 */
seconds: number, 
/**
 * Peak resident memory of the process while the stage runs.
 */
peakMemoryBytes: number, 
/**
 * Largest size of the run folder.
 */
diskBytes: number, };

/**
 * What decides the bytes of a quantized tensor.
 */
export type QuantSpec = { 
/**
 * Which codes there are.
 */
element: Element, 
/**
 * Which elements share a scale.
 */
granularity: Granularity, 
/**
 * How a scale is stored.
 */
scale: ScaleCodec, 
/**
 * Whether each scale has a zero point. Unsigned integers need one.
 */
zeroPoint?: ZeroPoint, };

/**
 * How scales and zero points come about in each step, and what of them learns.
 */
export type RangeConfig = "frozen" | "absmax" | "scale" | "clip" | "scaleZero";

/**
 * How a text was read, and what there is to say about it.
 */
export type ReadingRecord = { 
/**
 * Token that was put before each sequence, as the vocabulary spells it; null if there was none.
 */
beginToken: string | null, 
/**
 * Whether special tokens that the text spells out were read as tokens.
 */
special: boolean, 
/**
 * Whether the text consists of conversations, which the chat template of the model rendered.
 */
chat: boolean, 
/**
 * Whether only the answers of conversations were predicted.
 */
answersOnly: boolean, 
/**
 * How the text was cut, and what of it was scored.
 */
windows: WindowRule, 
/**
 * What was done, in a phrase each.
 */
notes: Array<string>, 
/**
 * What may not be as intended, in a sentence each.
 */
warnings: Array<string>, };

/**
 * A whole method, as the engine reads it. Recipes (`recipes/*.rs`) are functions from a few
 * options to one of these.
 */
export type Recipe = { 
/**
 * Name of the recipe that it was made by: `silq`, `rtn`.
 */
id: string, 
/**
 * Where the model will run; it refuses quantizers that it cannot hold.
 */
target: TargetId, 
/**
 * Which quantizer is used at which site.
 */
rules: Array<Rule>, 
/**
 * The training text if the run has none.
 */
data?: RecipeData, 
/**
 * Stages of training or solving, one after the other; empty: quantize without training.
 */
stages: Array<Stage>, };

/**
 * What a user writes: a recipe's name and its options.
 */
export type RecipeConfig = { 
/**
 * Decides which other fields there are.
 */
"kind": "silq" } & SilqConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "rtn" } & RtnConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "llm-qat" } & LlmQatConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "gptq" } & GptqRecipeConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "awq" } & AwqRecipeConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "comq" } & ComqRecipeConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "norm-tweaking" } & NormTweakingConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "omniquant" } & OmniquantConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "apiq" } & ApiqConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "sapr" } & SaprConfig | { 
/**
 * Decides which other fields there are.
 */
"kind": "efficientqat" } & EfficientqatConfig;

/**
 * The training text of a recipe.
 */
export type RecipeData = { 
/**
 * Number of tokens that the unquantized model generates to train on if the run has no data.
 * Absent: the run must have data.
 */
selfGenerated?: number, };

/**
 * When the forward pass of a layer is computed again in the backward pass instead of being kept.
 */
export type Recompute = "auto" | "always" | "never";

/**
 * Why a model cannot be run.
 */
export type Refusal = { 
/**
 * Code of the error, `ERR_...`.
 */
code: string, 
/**
 * The error in one sentence.
 */
message: string, };

/**
 * The report of a run.
 */
export type Report = { 
/**
 * Name of the recipe.
 */
recipe: string, 
/**
 * Name of the target: `gguf:q4_0`.
 */
target: string, 
/**
 * Stored bits per weight of the linear layers, scales and low-rank factors included.
 */
bitsPerWeight: number, 
/**
 * Optimizer steps; 0 without training.
 */
steps: number, 
/**
 * Tokens trained on, repeated ones each time; 0 without training.
 */
tokens: number, 
/**
 * Time of the training, or of the rounding if nothing is trained; a run that was resumed counts
 * from there.
 */
seconds: number, 
/**
 * Tokens trained on per second in that time; 0 without training.
 */
tokensPerSecond: number, 
/**
 * Loss of the last step; null without training.
 */
finalLoss: number | null, 
/**
 * Peak resident memory in bytes; 0 where the system does not report it.
 */
memoryBytes: number, 
/**
 * Measurements on the validation text, if there is one: `fp` (full precision), `rtn` (round to
 * nearest on the same grid; in smaller groups, for about the same size, where the result has
 * low-rank factors) and `result`.
 */
evaluations: { [key in string]: EvaluationRecord }, 
/**
 * Flags that the client needs to run the file as it was trained, such as the cache type.
 */
clientFlags: Array<string>, 
/**
 * What the experts of every layer were calibrated on, stage after stage; absent where no layer
 * has experts or nothing was calibrated.
 */
experts?: Array<ExpertsRecord>, 
/**
 * Record of the run, if `record` was set.
 */
record?: RunRecord, };

/**
 * Which code a weight gets.
 */
export type RoundingConfig = "nearest" | "adaRound";

/**
 * A table of int8 levels for every row.
 */
export type RowTable = { 
/**
 * Number of bits of a code, 2 to 4.
 */
bits: number, };

/**
 * Round to nearest: every weight is rounded to the nearest point of the grid, and nothing is
 * trained.
 */
export type RtnConfig = { 
/**
 * Give each group of weights a zero point, so that its range need not be centred on 0;
 * target `halfstep`, where the defaults are then 2 bits and groups of 64, or `gguf:q4_1`,
 * which always has them. Default false.
 */
zeroPoints: boolean, 
/**
 * How the initial scale of each group of weights is found: `absmax` (largest magnitude /
 * largest code), `signedAbsmax` (the same with the sign of that weight, as ggml does),
 * `errorSearch` (least squared error), `best` (for each matrix the one of the last two
 * with the smaller squared error), `convex` (minimum of a convex surrogate of the error)
 * or `lsq` (2 mean|w| / sqrt(largest code)). Default `best`.
 */
observer: Observer, } & Common;

/**
 * The quantizer of all sites of a kind, or of some of them.
 */
export type Rule = { 
/**
 * Weights of layers; without a quantizer they stay in floating point.
 */
"site": "weight", 
/**
 * Layers by number; -1 is the last one. None: all.
 */
layers?: Array<Layers>, 
/**
 * Linears by name: `q_proj`, `down_proj`. None: all.
 */
linears?: Array<string>, 
/**
 * The quantizer of these weights: their grid, and the parts that find codes and scales on
 * it. None: they stay in floating point.
 */
quantizer?: WeightSite, } | { 
/**
 * Token embedding (and the head, when tied).
 */
"site": "embedding", 
/**
 * The quantizer of the embedding.
 */
quantizer: QuantSpec, } | { 
/**
 * Untied head.
 */
"site": "head", 
/**
 * The quantizer of the head's weights.
 */
quantizer: QuantSpec, } | { 
/**
 * Before quantized linears of layers.
 */
"site": "activation", 
/**
 * Layers by number; -1 is the last one. None: all.
 */
layers?: Array<Layers>, 
/**
 * Inputs by name: `attn_in` (of `q_proj`, `k_proj` and `v_proj`), `o_in`, `ffn_in` (of
 * `gate_proj` and `up_proj`), `down_in`. None: all.
 */
inputs?: Array<string>, 
/**
 * The quantizer of these inputs.
 */
quantizer: ActivationSpec, } | { 
/**
 * Before the head, when the head is quantized.
 */
"site": "headActivation", 
/**
 * The quantizer of the head's input.
 */
quantizer: ActivationSpec, } | { 
/**
 * Keys after RoPE, and values.
 */
"site": "cache", 
/**
 * Layers by number; -1 is the last one. None: all.
 */
layers?: Array<Layers>, 
/**
 * `k` (keys) or `v` (values). None: both.
 */
tensors?: Array<string>, 
/**
 * The quantizer of these keys or values.
 */
quantizer: ActivationSpec, };

/**
 * Options of a run that are not part of the recipe. Every field has a default, but a recipe that
 * trains needs `data`, `text` or `selfGenerated`.
 */
export type RunConfig = { 
/**
 * Path of the text to train on: UTF-8, or documents: a .jsonl or .ndjson file with an object in
 * each line, or a .json file with an array of them. An object has a text in `text`, or a
 * conversation in `messages` (objects with role and content), which the chat template of the
 * model renders. Default: none; a recipe that trains needs one, or `selfGenerated`.
 */
data?: string, 
/**
 * Text to train on, instead of a path in `data`. Default: none.
 */
text?: string, 
/**
 * Number of tokens that the unquantized model (the teacher) generates to train on, instead of
 * `data` or in addition to it (LLM-QAT, arXiv 2305.17888). They are kept in `runFolder` and
 * used again from there. Default: given by the recipe; all but llm-qat generate none.
 */
selfGenerated?: number, 
/**
 * Number of characters to skip at the beginning of the text, such as those that validation
 * uses. Default 0.
 */
skipCharacters: number, 
/**
 * Path of a text, or of documents as in `data`, that is never trained on; the model is measured
 * on it before and after. Default: nothing is measured.
 */
validation?: string, 
/**
 * Text to measure on, instead of a path in `validation`. Default: none.
 */
validationText?: string, 
/**
 * Number of tokens of the validation text to measure on. Default 4096.
 */
validationTokens?: number, 
/**
 * Whether the begin token is put before each sequence: `on`, `off` or `auto` (on if the
 * tokenizer adds one to a text). It takes one position of each sequence and is never
 * predicted. Default `auto`.
 */
bos: Switch, 
/**
 * Whether special tokens that a text spells out are read as tokens: `on`, `off` (they are plain
 * text) or `auto` (on for conversations only). Default `auto`.
 */
special: Switch, 
/**
 * Learn from the answers of conversations only: what no assistant says is read, but not
 * predicted. Stages that train layer by layer compare every position. Default false.
 */
answersOnly: boolean, 
/**
 * Path that the result will be saved to, so that what would fail at the end is refused before
 * the run starts: an ending that does not fit the target, a folder that cannot be written to, a
 * file that is there already, the model itself. The run itself writes nothing there. Default:
 * none.
 */
output?: string, 
/**
 * Let the output replace a file that is there, even one of the model that is quantized.
 * Default false.
 */
overwrite: boolean, 
/**
 * Folder for checkpoints and finished layers, from which a stopped run can be resumed; one run
 * at a time can use it. Default: none; on the command line the output with `.run` added.
 */
runFolder?: string, 
/**
 * Number of optimizer steps between two checkpoints; 0 writes none between the first step and
 * the last. Finished layers and the state after the last step are always saved. Default: a
 * checkpoint every ten minutes, less often where writing one takes more than six seconds.
 */
checkpointEvery?: number, 
/**
 * Resume from the newest checkpoint or the last finished layer in `runFolder`, if there is
 * one. Default false.
 */
resume: boolean, 
/**
 * Number of threads, at most 1024; 0 uses one per core. It never changes a result. Default 0.
 */
threads: number, 
/**
 * Add a record of the run to the report: losses, statistics of every matrix, and the effect of
 * quantizing each layer alone. Default false.
 */
record: boolean, };

/**
 * The data of a report.
 */
export type RunRecord = { 
/**
 * Settings of the run.
 */
settings: RunSettings, 
/**
 * Full precision, round to nearest on the same grid (in smaller groups, for about the same
 * size, where the result has low-rank factors), and the result.
 */
table: Array<TableRow>, 
/**
 * Stages of the training, one after the other; none without training.
 */
stages: Array<StageRecord>, 
/**
 * Statistics of every quantized linear, layer after layer.
 */
matrices: Array<MatrixRecord>, 
/**
 * For each layer: KL to the unquantized model in nats if only this layer is quantized. Empty
 * without a validation text.
 */
blockKl: Array<number>, 
/**
 * Number of tokens that `blockKl` was measured on.
 */
blockKlTokens: number, };

/**
 * Settings of the run.
 */
export type RunSettings = { 
/**
 * Version of halfstep.
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
seed: number | bigint | null, 
/**
 * Where the training text came from, `blake3:` and its hash; null without training.
 */
data: string | null, };

/**
 * The penalty sum S (Wq - W)^2, S being squared gradients of the teacher (SAPR, arXiv
 * 2504.13932).
 */
export type SaliencyConfig = { 
/**
 * Weight of the penalty, 0 or more.
 */
lambda: number, 
/**
 * How the squared gradients are scaled before lambda multiplies them.
 */
scale: SaliencyScale, 
/**
 * Which difference to the original weights is penalised.
 */
difference: SaliencyDifference, 
/**
 * Number of sequences whose gradients are squared, one at a time.
 */
samples: number, 
/**
 * Number of tokens of each of these sequences.
 */
sequenceLength: number, };

/**
 * Which difference is penalised.
 */
export type SaliencyDifference = "beforeLowRank" | "afterLowRank";

/**
 * What lambda multiplies.
 */
export type SaliencyScale = "scaleFree" | "perMatrix" | "raw";

/**
 * SAPR: ApiQ with the rounding error of each weight penalised by the squared gradient of the
 * unquantized model.
 */
export type SaprConfig = { 
/**
 * Weight in the loss of the penalty on rounding errors, 0 or more. Default 1: the
 * scale-free penalty is a weighted mean of squared rounding errors.
 */
lambda: number, 
/**
 * How the squared gradients are scaled before lambda multiplies them: `scaleFree` (by
 * their mean in the layer, so that the same lambda suits any number of texts), `perMatrix`
 * (by their mean in each matrix) or `raw` (not at all, as in the code of the authors).
 * Default `scaleFree`.
 */
saliencyScale: SaliencyScale, 
/**
 * Which difference to the original weights is penalised: `beforeLowRank` (that of the
 * quantized weights alone) or `afterLowRank` (that of the quantized weights and the
 * factors together). Default `beforeLowRank`.
 */
saliencyDifference: SaliencyDifference, 
/**
 * Number of sequences whose squared gradients are summed, at least 1. Default 32.
 */
saliencySamples: number, 
/**
 * Number of epochs with the penalty alone, before those with penalty and outputs
 * (`train.epochs`). Default 0.
 */
penaltyEpochs: number, 
/**
 * Number of epochs with the outputs alone, after those with penalty and outputs. Default
 * 0.
 */
outputEpochs: number, 
/**
 * Options of the training, layer by layer.
 */
train: BlockOptions, 
/**
 * Rank of the low-rank factors of each linear layer; 0 for none. Default 8 where the target
 * stores them, otherwise 0: at 64, as in the paper, the factors of a small model take more
 * bytes than its weights.
 */
rank?: number, 
/**
 * Number above 0; the product of the low-rank factors is multiplied by alpha / rank. Default
 * 16.
 */
alpha: number, } & Common;

/**
 * A written file.
 */
export type SaveReport = { 
/**
 * Path of the file.
 */
path: string, 
/**
 * Size of the file.
 */
bytes: number, 
/**
 * Whether codes, scales and outputs of the re-opened file were compared with the model in
 * memory; they are equal.
 */
parity: boolean, };

/**
 * How a scale is stored. Arithmetic always uses the scale *as stored*.
 */
export type ScaleCodec = "f32" | "f16" | "f16short" | "e8m0" | "e4m3" | { 
/**
 * A quantized scale with a scale of its own.
 */
"nested": Nested };

/**
 * SiLQ: weights, norms and scales learn together, end to end, from the outputs of the
 * unquantized model (the teacher).
 */
export type SilqConfig = { 
/**
 * Give each linear input and each cache one learned scale that is stored in the file,
 * instead of scales that are computed while the model runs; target `halfstep` only.
 * Default false.
 */
staticActivations: boolean, 
/**
 * How the initial scale of each group of weights is found: `absmax` (largest magnitude /
 * largest code), `signedAbsmax` (the same with the sign of that weight, as ggml does),
 * `errorSearch` (least squared error), `best` (for each matrix the one of the last two
 * with the smaller squared error), `convex` (minimum of a convex surrogate of the error)
 * or `lsq` (2 mean|w| / sqrt(largest code)). Default `best`. At 4 bits per channel
 * `signedAbsmax` can train better still.
 */
observer: Observer, 
/**
 * Let the scales of the weights learn; false keeps those that `observer` finds. Default
 * true.
 */
learnScales: boolean, 
/**
 * Whether a weight exactly on the edge of the grid counts as `inside` or `outside` of it
 * when gradients are computed. Default `inside`.
 */
edge: EdgeRule, 
/**
 * What the gradient of a scale is divided by, sqrt(N p) with p the largest code and N the
 * number of weights of the whole matrix (`matrix`) or of those that share the scale
 * (`group`). Default `matrix`.
 */
gradientScale: GradientScale, 
/**
 * Options of the training.
 */
train: TrainConfig, } & Common;

/**
 * A solver and its options.
 */
export type SolverConfig = { 
/**
 * Columns are rounded one after the other; those still free make up for each error.
 */
"kind": "gptq" } & GptqConfig | { 
/**
 * Channels that carry much are made larger before rounding, then ranges are clipped.
 */
"kind": "awq" } & AwqConfig | { 
/**
 * Each row by coordinate descent on the error of its outputs.
 */
"kind": "comq" } & ComqConfig;

/**
 * Options of the text that a solver sees.
 */
export type SolverOptions = { 
/**
 * Number of sequences of the text, at least 1; more is better and slower. Default 32; the
 * papers use 128.
 */
samples?: number, 
/**
 * Tokens of each sequence, at least 2. Default 512.
 */
sequenceLength?: number, 
/**
 * What the products of a training step are computed in: `f32`, `bf16`, `f16` or `int8-forward`
 * (forward by the integer products of the packed model; for targets that quantize
 * activations). Default: what a probe finds fastest on this machine.
 */
arithmetic?: TrainArithmetic, };

/**
 * One stage: the scope of its loss, what it begins from and what it trains.
 */
export type Stage = { 
/**
 * End to end.
 */
"scope": "model", 
/**
 * What the stage begins from.
 */
from?: StageStart, 
/**
 * What learns; everything else is frozen.
 */
trains: Trains, 
/**
 * How long, how fast and by which loss.
 */
config: Partial<TrainConfig>, } | { 
/**
 * One linear after the other (ApiQ-lw, arXiv 2402.05147; AdaRound, arXiv 2004.10568): each learns
 * to compute from what it reads in the quantized layers what the unquantized one computes from what
 * it reads in the unquantized layers.
 */
"scope": "linear", 
/**
 * What the stage begins from.
 */
from?: StageStart, 
/**
 * What learns; everything else is frozen.
 */
trains: Trains, 
/**
 * Phases and steps are those of every linear.
 */
config: BlockConfig, } | { 
/**
 * One transformer layer after the other, each from its own inputs to its own outputs.
 */
"scope": "block", 
/**
 * What the stage begins from.
 */
from?: StageStart, 
/**
 * What learns; everything else is frozen.
 */
trains: Trains, 
/**
 * How long, how fast and by which loss, or by which solver.
 */
config: BlockConfig, } | { 
/**
 * Several transformer layers in a row, trained together from the inputs of the first to the outputs
 * of the last (CBQ, arXiv 2312.07950); then the next ones.
 */
"scope": "window", 
/**
 * What the stage begins from.
 */
from?: StageStart, 
/**
 * What learns; everything else is frozen.
 */
trains: Trains, 
/**
 * Number of layers of a window, from 1 to those of the model.
 */
layers: number, 
/**
 * Layers from the start of a window to that of the next one, from 1 to `layers`. The layers
 * in between are finished with their window; those that overlap go on learning in the next
 * one.
 */
stride: number, 
/**
 * How long, how fast and by which loss.
 */
config: BlockConfig, };

/**
 * One stage of training.
 */
export type StageRecord = { 
/**
 * Number of steps before those of `losses`, which an earlier part of a resumed run did.
 */
firstStep: number, 
/**
 * Loss of every step, before its update, if the whole model is trained.
 */
losses: Array<number>, 
/**
 * Records of the layers, if they are trained one at a time.
 */
blocks: Array<BlockRecord>, 
/**
 * Statistics of the linears that the stage quantized or trained.
 */
matrices: Array<MatrixRecord>, 
/**
 * Rows of the experts, layer after layer, that static scales of activations were found on, if
 * the whole model is trained; absent where no layer has experts or no scale is static.
 */
experts?: Array<ExpertsRecord>, };

/**
 * What a stage begins from.
 */
export type StageStart = "previous" | "original";

/**
 * Something that is on, off, or decided by what is there.
 */
export type Switch = "auto" | "on" | "off";

/**
 * Up to 16 levels of int8, ascending.
 */
export type Table = { 
/**
 * A table that is known by name.
 */
name?: string, 
/**
 * Levels instead of a name: 2 to 16 whole numbers from -127 to 127, ascending.
 */
levels?: Array<number>, 
/**
 * Where a value goes that is exactly between two of these levels. Default `toZero`.
 */
ties?: Ties, };

/**
 * A model in the table.
 */
export type TableRow = { 
/**
 * `fp`, `rtn` or `result`.
 */
subject: string, 
/**
 * Size of its file.
 */
bytes: number, 
/**
 * Stored bits per weight of the linear layers, scales and low-rank factors included.
 */
bitsPerWeight: number, 
/**
 * Null without a validation text.
 */
evaluation: EvaluationRecord | null, };

/**
 * Where a model will run, which decides the grids and the file it may have.
 */
export type TargetId = "gguf:q4_0" | "gguf:q4_1" | "gguf:q8_0" | "gguf:tq2_0" | "halfstep";

/**
 * A part of the loss and its options.
 */
export type TermConfig = { 
/**
 * Divergence of the student's distribution of the next token from the teacher's.
 */
"kind": "kl" } & KlConfig | { 
/**
 * Cross-entropy of the next token of the text.
 */
"kind": "crossEntropy" } & CrossEntropyConfig | { 
/**
 * Mean squared difference of the output of a layer, or of a linear, from the teacher's.
 */
"kind": "blockOutput" } & BlockOutputConfig | { 
/**
 * Squared rounding errors, weighted by squared gradients of the teacher (SAPR).
 */
"kind": "saliency" } & SaliencyConfig | { 
/**
 * Pull of weights that learn towards where they began (L2-SP).
 */
"kind": "anchor" } & AnchorConfig | { 
/**
 * Distance of mean and variance of each channel of the output of a layer, or of a linear (norm
 * tweaking).
 */
"kind": "channelMoments" } & ChannelMomentsConfig;

/**
 * Where a value goes that is exactly between two levels.
 */
export type Ties = "toZero" | "evenLevel" | "evenHalfShift" | "evenMagnitude" | "away";

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
 * Number of tokens to train on, rounded up to whole steps; a shorter text is repeated. More is
 * better and slower. Default 50,000.
 */
tokens: number, 
/**
 * Tokens of each training sequence, at least 2. Longer sequences cost more memory. Default
 * 512.
 */
sequenceLength: number, 
/**
 * Sequences in each optimizer step. Default 4.
 */
batch: number, 
/**
 * Sequences that are computed at once; `batch` must be a multiple of it (gradient
 * accumulation). Fewer need less memory and give the same result up to rounding. Default:
 * `batch`.
 */
microBatch?: number, 
/**
 * Peak learning rate of the weights, above 0. A small budget of tokens needs a high rate to
 * change anything; too high a rate undoes small weights. Default: 2e-4, or less where weights
 * are small: at most their root mean square / (160 sqrt(layers)).
 */
learningRate?: number, 
/**
 * Learning rate of the weights' scales, as a multiple of `learningRate`. Default 1.
 */
weightScaleMultiplier: number, 
/**
 * Learning rate of the stored scales of activations and cache, as a multiple of
 * `learningRate`; it matters only with static scales. Default 10.
 */
activationScaleMultiplier: number, 
/**
 * Learning rate of the norm weights, as a multiple of `learningRate`. Default 1.
 */
normMultiplier: number, 
/**
 * Share of the steps in which the learning rate rises from 0 to its peak, 0 to 1. Default 0.1.
 */
warmup: number, 
/**
 * Share of the peak learning rate that is left at the end of the cosine schedule, 0 to 1.
 * Default 0.05.
 */
minRatio: number, 
/**
 * AdamW's decay rate of the mean of the gradients, at least 0 and below 1. Default 0.9.
 */
beta1: number, 
/**
 * AdamW's decay rate of the mean of the squared gradients, at least 0 and below 1. Default
 * 0.95.
 */
beta2: number, 
/**
 * Number that AdamW adds to the denominator of its update, above 0. Default 1e-8.
 */
eps: number, 
/**
 * Rule by which gradients change the parameters, with its own options, such as
 * `{ kind: 'adamW', beta1: 0.9 }`. Default: AdamW with `beta1`, `beta2` and `eps`, which other
 * rules do not read.
 */
optimizer?: OptimizerConfig, 
/**
 * Weight decay of the weight matrices, 0 or more; never of scales or norms. Default 0.
 */
weightDecay: number, 
/**
 * Largest norm of the gradient of all parameters; a longer gradient is scaled down to it.
 * Default 1.
 */
maxNorm: number, 
/**
 * Weight in the loss of the KL divergence to the unquantized model (the teacher), 0 or more.
 * Default 1.
 */
klWeight: number, 
/**
 * Weight in the loss of the cross-entropy of the next token, 0 or more. Default 0.
 */
ceWeight: number, 
/**
 * Temperature of the teacher's and the student's distribution in the KL divergence, above 0.
 * Default 1.
 */
temperature: number, 
/**
 * Terms of the loss with their weights, which may change over the stage, in place of those that
 * `klWeight`, `ceWeight` and `temperature` give. Default: those.
 */
terms?: Array<WeightedTerm>, 
/**
 * What the products of a training step are computed in: `f32`, `bf16`, `f16` or `int8-forward`
 * (forward by the integer products of the packed model; for targets that quantize
 * activations). Default: what a probe finds fastest on this machine.
 */
arithmetic?: TrainArithmetic, 
/**
 * When the forward pass of a layer is computed again for the backward pass instead of kept in
 * memory: `always` (least memory, about a quarter slower), `never` (fastest) or `auto` (kept
 * while it fits half of the free memory). Default `auto`.
 */
recompute: Recompute, 
/**
 * Memory for the logits while the loss is computed, in bytes; tokens pass through the head in
 * chunks that fit. Default 64 MiB.
 */
lossBytes: number, 
/**
 * Seed of the order of the data; the same seed gives the same bytes. Default 0.
 */
seed: number | bigint, };

/**
 * What learns in a stage; everything else is frozen.
 */
export type Trains = { 
/**
 * Weights, where their range and rounding let them.
 */
weights?: boolean, 
/**
 * Weights of the norms, and biases.
 */
norms?: boolean, 
/**
 * The trainable parameters of the weights' ranges: scales, clips, zero points.
 */
scales?: boolean, 
/**
 * The trainable parameters of the weights' rounding.
 */
rounding?: boolean, 
/**
 * Low-rank factors.
 */
lowRank?: boolean, 
/**
 * Scales of static activation and cache quantizers.
 */
activationScales?: boolean, 
/**
 * The trainable parameters of the weights' transforms.
 */
transforms?: boolean, };

/**
 * A transform of a weight and its input, and its options.
 */
export type TransformConfig = { 
/**
 * A Hadamard matrix with random signs mixes every block of input channels, so that no channel
 * stands out; the runtime mixes the input alike (QuaRot, arXiv 2404.00456). Nothing of it learns.
 */
"kind": "blockHadamard" } & BlockHadamardConfig | { 
/**
 * A positive number for each input channel divides the weight and multiplies the input. It learns
 * where the stage trains transforms (the scales of OmniQuant's LET, arXiv 2308.13137).
 */
"kind": "channelScale" } & ChannelScaleConfig;

/**
 * A number that may change over a stage.
 */
export type Weight = number | WeightSchedule;

/**
 * A weight that moves from one number at the first step to another at the end.
 */
export type WeightSchedule = { 
/**
 * The number at the first step.
 */
from: number, 
/**
 * The number at the end.
 */
to: number, 
/**
 * How the weight moves from one to the other.
 */
shape?: WeightShape, };

/**
 * How a weight moves from one number to another.
 */
export type WeightShape = "linear" | "cosine";

/**
 * The quantizer of a weight: its grid, and the parts that find codes and scales on it.
 */
export type WeightSite = { 
/**
 * How codes, scales and zero points are stored.
 */
spec: QuantSpec, 
/**
 * How the first scales are found.
 */
observer?: Observer, 
/**
 * How the scales are computed in each training step, and which part of them learns.
 */
range?: RangeConfig, 
/**
 * Which code a weight gets in a stage that trains. Without stages it is always the nearest
 * one, and a solver chooses codes by itself.
 */
rounding?: RoundingConfig, 
/**
 * Whether a weight exactly on the edge of the grid counts as inside.
 */
edge?: EdgeRule, 
/**
 * What the gradient of a learned scale is divided by.
 */
gradientScale?: GradientScale, 
/**
 * What weight and input go through before they are quantized, so that their product stays; the
 * file stores it.
 */
transform?: TransformConfig, 
/**
 * Low-rank factors whose product is added to the weight, outside of the quantizer or inside.
 */
lowRank?: LowRankConfig, };

/**
 * A term of a stage's loss with its weight.
 */
export type WeightedTerm = { 
/**
 * A part of the loss and its options.
 */
term: TermConfig, 
/**
 * What the term is multiplied by.
 */
weight: Weight, };

/**
 * How an evaluation cuts a text, and which tokens it scores.
 */
export type WindowRule = "sequences" | "llama.cpp";

/**
 * What is taken off a code before it is multiplied by the scale.
 */
export type ZeroPoint = "none" | "code";
