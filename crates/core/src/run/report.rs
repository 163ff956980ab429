//! Reports of what was done.

use crate::event::EvaluationRecord;
use crate::record::{ExpertsRecord, RunRecord};
use halfstep_formats::architecture::ExpertTotals;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use ts_rs::TS;

/// The report of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the recipe.
    pub recipe: String,
    /// Name of the target: `gguf:q4_0`.
    pub target: String,
    /// Stored bits per weight of the linear layers, scales and low-rank factors included.
    pub bits_per_weight: f64,
    /// Optimizer steps; 0 without training.
    pub steps: u64,
    /// Tokens trained on, repeated ones each time; 0 without training.
    pub tokens: u64,
    /// Time of the training, or of the rounding if nothing is trained; a run that was resumed counts
    /// from there.
    pub seconds: f64,
    /// Tokens trained on per second in that time; 0 without training.
    pub tokens_per_second: f64,
    /// Loss of the last step; null without training.
    pub final_loss: Option<f64>,
    /// Peak resident memory in bytes; 0 where the system does not report it.
    pub memory_bytes: u64,
    /// Measurements on the validation text, if there is one: `fp` (full precision), `rtn` (round to
    /// nearest on the same grid; in smaller groups, for about the same size, where the result has
    /// low-rank factors) and `result`.
    pub evaluations: BTreeMap<String, EvaluationRecord>,
    /// Flags that the client needs to run the file as it was trained, such as the cache type.
    pub client_flags: Vec<String>,
    /// What the experts of every layer were calibrated on, stage after stage; absent where no layer
    /// has experts or nothing was calibrated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(optional, as = "Option<_>")]
    pub experts: Vec<ExpertsRecord>,
    /// Record of the run, if `record` was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub record: Option<RunRecord>,
}

/// The experts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ExpertsInspection {
    /// Number of layers that have experts.
    pub layers: usize,
    /// Experts of a layer, the largest number where layers differ. One that all tokens use is not
    /// counted.
    pub count: usize,
    /// How many of them a token uses.
    pub used: usize,
    /// Weights of all experts.
    pub parameters: u64,
    /// Weights that a token uses: those of the model without those of its other experts.
    pub active_parameters: u64,
    /// Stored bytes of all experts; 0 without weights.
    pub bytes: u64,
}

impl ExpertsInspection {
    pub(crate) fn new(totals: ExpertTotals, bytes: u64) -> Self {
        let ExpertTotals { layers, count, used, parameters, active_parameters } = totals;
        Self { layers, count, used, parameters, active_parameters, bytes }
    }
}

/// A finished generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// The new text, without the prompt.
    pub text: String,
    /// Ids of the new tokens.
    pub tokens: Vec<u32>,
    /// Number of tokens of the prompt.
    pub prompt_tokens: usize,
    /// New tokens per second, the reading of the prompt included in the time.
    pub tokens_per_second: f64,
}

/// The contents of a model, for `halfstep inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Name of the model.
    pub name: String,
    /// Name of the architecture, as GGUF has it: `llama`.
    pub architecture: String,
    /// Number of weights; those of a tied head count once.
    pub parameters: usize,
    /// Size of the file or files that it was loaded from; 0 if it was made in memory.
    pub file_bytes: u64,
    /// All stored weight bits over all parameters.
    pub bits_per_weight: f64,
    /// Its experts; null if no layer has some.
    pub experts: Option<ExpertsInspection>,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the rows that go from layer to layer.
    pub hidden_size: usize,
    /// Width inside the feed-forward of a layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of query heads of a layer.
    pub heads: usize,
    /// Number of key/value heads of a layer.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Longest context in tokens.
    pub max_positions: usize,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// llama.cpp's name of the pre-tokenizer; null without a tokenizer.
    pub tokenizer: Option<String>,
    /// Ids of the tokens that end a generation, ascending.
    pub end_tokens: Vec<u32>,
    /// Whether there is a chat template.
    pub has_chat_template: bool,
    /// Target of a quantized model, null for a float one.
    pub target: Option<String>,
    /// Number of tensors by storage type; `low rank <r>` is the number of weights with factors of
    /// that rank.
    pub tensor_types: BTreeMap<String, usize>,
    /// How the model was made (recipe, seed, hash of the data), by name; empty if it was not made
    /// by halfstep.
    pub provenance: BTreeMap<String, String>,
    /// What was set right or left out while reading.
    pub warnings: Vec<String>,
}

/// The contents of a file or folder, whether its model can be run or not, for `halfstep inspect`.
/// What a file does not give is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct FileInspection {
    /// Name of the model.
    pub name: String,
    /// What the file is: `gguf`, `halfstep`, `safetensors`, `folder` (Hugging Face) or `config`.
    pub format: String,
    /// Name of the architecture, as the file has it.
    pub architecture: Option<String>,
    /// Number of weights; those of a tied head count once. Where the architecture is unknown, the
    /// elements of all tensors.
    pub parameters: u64,
    /// Size of the file or files.
    pub file_bytes: u64,
    /// All stored weight bits over all parameters; 0 without weights.
    pub bits_per_weight: f64,
    /// Its experts; null if no layer has some.
    pub experts: Option<ExpertsInspection>,
    /// Rows of the embedding.
    pub vocab_size: Option<usize>,
    /// Width of the rows that go from layer to layer.
    pub hidden_size: Option<usize>,
    /// Width inside the feed-forward of a layer, the largest where layers differ.
    pub intermediate_size: Option<usize>,
    /// Number of layers.
    pub layers: Option<usize>,
    /// Number of query heads of a layer, the largest where layers differ.
    pub heads: Option<usize>,
    /// Number of key/value heads of a layer, the largest where layers differ.
    pub kv_heads: Option<usize>,
    /// Elements of a head.
    pub head_dim: Option<usize>,
    /// Longest context in tokens.
    pub max_positions: Option<usize>,
    /// Whether the head is the embedding.
    pub tied_head: Option<bool>,
    /// Kind of the tokenizer, as the file calls it (`gpt2`, `llama`, `BPE`, `Unigram`); null
    /// without one.
    pub tokenizer: Option<String>,
    /// llama.cpp's name of the pre-tokenizer, where the file has it.
    pub pre_tokenizer: Option<String>,
    /// Whether there is a chat template.
    pub has_chat_template: bool,
    /// Target of a quantized model, null for any other.
    pub target: Option<String>,
    /// Number of tensors by storage type; `low rank <r>` is the number of weights with factors of
    /// that rank.
    pub tensor_types: BTreeMap<String, usize>,
    /// Bytes of the tensors by storage type.
    pub tensor_bytes: BTreeMap<String, u64>,
    /// How the model was made (recipe, seed, hash of the data), by name; empty if it was not made
    /// by halfstep.
    pub provenance: BTreeMap<String, String>,
    /// What is set right or left out in reading.
    pub warnings: Vec<String>,
    /// What loading the model ends in; null if it can be run.
    pub refusal: Option<Refusal>,
}

/// Why a model cannot be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Code of the error, `ERR_...`.
    pub code: String,
    /// The error in one sentence.
    pub message: String,
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct SaveReport {
    /// Path of the file.
    pub path: String,
    /// Size of the file.
    pub bytes: u64,
    /// Whether codes, scales and outputs of the re-opened file were compared with the model in
    /// memory; they are equal.
    pub parity: bool,
}
