//! Tokens one by one.
use crate::sample::SampleConfig;
use crate::{Network, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct GenerateConfig {
    pub max_tokens: usize,
    #[serde(flatten)]
    pub sample: SampleConfig,
    /// Stop at any of these (the caller puts eos here).
    pub stop: Vec<u32>,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { max_tokens: 128, sample: SampleConfig::default(), stop: vec![] }
    }
}

/// Prefills `prompt`, then calls `on_token` for each new token (stop tokens are not reported); it returns false to end. Returns the new tokens.
pub fn generate(_network: &Network, _prompt: &[u32], _config: &GenerateConfig, _on_token: &mut dyn FnMut(u32) -> bool) -> Result<Vec<u32>> {
    todo!()
}
