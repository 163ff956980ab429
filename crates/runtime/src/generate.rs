//! Tokens one by one.
use crate::network::Logits;
use crate::sample::{SampleConfig, Sampler};
use crate::{Cache, Error, Network, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct GenerateConfig {
    /// At most this many new tokens; fewer when a stop token comes or the model's positions are used up.
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
/// Errors: an empty prompt, one with ids outside the vocabulary or with more tokens than the model has positions, sampling settings out of their range.
pub fn generate(network: &Network, prompt: &[u32], config: &GenerateConfig, on_token: &mut dyn FnMut(u32) -> bool) -> Result<Vec<u32>> {
    let mut sampler = Sampler::new(&config.sample)?;
    let positions = network.architecture().max_positions;
    network.check_ids("prompt", prompt)?;
    if prompt.is_empty() || prompt.len() > positions {
        return Err(Error::argument("prompt", format!("{} tokens; 1 to {positions} are possible", prompt.len())));
    }
    let mut tokens = vec![];
    if config.max_tokens == 0 {
        return Ok(tokens);
    }
    let mut cache = Cache::new(network);
    let mut logits = network.forward(prompt, &mut cache, Logits::Last)?;
    loop {
        let token = sampler.next(&logits)?;
        if config.stop.contains(&token) {
            break;
        }
        tokens.push(token);
        if !on_token(token) || tokens.len() == config.max_tokens || cache.len() == positions {
            break;
        }
        logits = network.forward(&[token], &mut cache, Logits::Last)?;
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_settings_stand_beside_the_others_and_unknown_names_are_refused() {
        let config: GenerateConfig = serde_json::from_str(r#"{"maxTokens": 5, "temperature": 0.5, "topK": 3, "seed": 9007199254740993}"#).unwrap();
        let sample = SampleConfig { temperature: 0.5, top_k: 3, top_p: 1.0, seed: 9007199254740993 };
        assert_eq!(config, GenerateConfig { max_tokens: 5, sample, stop: vec![] });
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<GenerateConfig>(&text).unwrap(), config);
        let error = serde_json::from_str::<GenerateConfig>(r#"{"topp": 0.9}"#).unwrap_err();
        assert!(error.to_string().contains("topp"), "{error}");
    }
}
