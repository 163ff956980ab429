//! Reports of what was done.

use crate::event::EvaluationRecord;
use crate::record::RunRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use ts_rs::TS;

/// The report of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub recipe: String,
    pub target: String,
    /// Stored bits of the block linears, scales and low-rank factors included, per weight.
    pub bits_per_weight: f64,
    /// Optimizer steps; 0 without training.
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
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
    /// Record of the run, if `record` was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub record: Option<RunRecord>,
}

/// A finished generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    pub text: String,
    pub tokens: Vec<u32>,
    pub prompt_tokens: usize,
    pub tokens_per_second: f64,
}

/// The contents of a model, for `halfstep inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    pub name: String,
    pub parameters: usize,
    pub file_bytes: u64,
    /// All stored weight bits over all parameters.
    pub bits_per_weight: f64,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub max_positions: usize,
    pub tied_head: bool,
    pub tokenizer: Option<String>,
    pub has_chat_template: bool,
    /// Target of a quantized model, null for a float one.
    pub target: Option<String>,
    /// Number of tensors by storage type; `low rank <r>` is the number of weights with factors of
    /// that rank.
    pub tensor_types: BTreeMap<String, usize>,
    pub provenance: BTreeMap<String, String>,
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct SaveReport {
    pub path: String,
    pub bytes: u64,
    /// Whether codes, scales and outputs of the re-opened file were compared with the model in
    /// memory; they are equal.
    pub parity: bool,
}
