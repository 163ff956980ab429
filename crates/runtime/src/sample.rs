//! The next token from logits: greedy, or temperature, top-k and top-p with a seed.
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SampleConfig {
    /// 0 (default) is greedy.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 (default) keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probabilities sum to at least this; 1 (default) keeps all.
    pub top_p: f32,
    pub seed: u64,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}
