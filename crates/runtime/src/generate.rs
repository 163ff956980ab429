//! Generation of tokens one by one.

use crate::network::Logits;
use crate::sample::{SampleConfig, Sampler};
use crate::{Cache, Error, Network, Result};
use serde::{Deserialize, Serialize};

/// Options of a generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct GenerateConfig {
    /// Largest number of new tokens; there are fewer if a stop token comes or the positions of the
    /// model are used up.
    pub max_tokens: usize,
    /// How tokens are chosen.
    #[serde(flatten)]
    pub sample: SampleConfig,
    /// Tokens that end the generation, such as the end token of the model.
    pub stop: Vec<u32>,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { max_tokens: 128, sample: SampleConfig::default(), stop: vec![] }
    }
}

/// Prefills `prompt`, then calls `on_token` for each new token (stop tokens are not reported); it
/// returns false to end. Returns the new tokens. Errors: an empty prompt, one with ids outside the
/// vocabulary or with more tokens than the model has positions, sampling settings out of their
/// range.
pub fn generate(
    network: &Network,
    prompt: &[u32],
    config: &GenerateConfig,
    on_token: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    let mut generation = Generator::new(network, prompt, config)?;
    while let Some(token) = generation.step(network)? {
        if !on_token(token) {
            break;
        }
    }
    Ok(generation.tokens)
}

/// A [`generate`] in progress: the state between two tokens, for callers that do other work in
/// between. Every call must pass the same network.
pub struct Generator {
    sampler: Sampler,
    stop: Vec<u32>,
    max_tokens: usize,
    cache: Cache,
    /// Tokens that the network has not read: the prompt, then the newest. None when the generation
    /// is over.
    unread: Option<Vec<u32>>,
    /// The new tokens.
    pub tokens: Vec<u32>,
}

impl Generator {
    /// Checks prompt and options; nothing is computed yet. Errors: those of [`generate`].
    pub fn new(network: &Network, prompt: &[u32], config: &GenerateConfig) -> Result<Self> {
        let sampler = Sampler::new(&config.sample)?;
        let positions = network.architecture().max_positions;
        network.check_ids("prompt", prompt)?;
        if prompt.is_empty() || prompt.len() > positions {
            return Err(Error::argument(
                "prompt",
                format!("must have 1 to {positions} tokens, got {}", prompt.len()),
            ));
        }
        // The last token is not read.
        let length = prompt.len().saturating_add(config.max_tokens.saturating_sub(1));
        let unread = (config.max_tokens > 0).then(|| prompt.to_vec());
        Ok(Self {
            sampler,
            stop: config.stop.clone(),
            max_tokens: config.max_tokens,
            cache: Cache::for_length(network, length.min(positions)),
            unread,
            tokens: vec![],
        })
    }

    /// The next token; None when the generation is over. The first call reads the prompt.
    pub fn step(&mut self, network: &Network) -> Result<Option<u32>> {
        let Some(unread) = self.unread.take() else { return Ok(None) };
        let logits = network.forward(&unread, &mut self.cache, Logits::Last)?;
        self.choose(network, &logits)
    }

    /// [`Self::step`] of each: prompts one after the other, tokens together. The same tokens as
    /// each would get alone. False when all are over.
    pub fn step_each(network: &Network, all: &mut [Generator]) -> Result<bool> {
        let mut tokens = vec![];
        let mut together: Vec<&mut Generator> = vec![];
        for generator in all.iter_mut() {
            match generator.unread.as_deref() {
                None => {}
                Some(&[token]) => {
                    tokens.push(token);
                    together.push(generator);
                }
                Some(_) => {
                    generator.step(network)?;
                }
            }
        }
        let mut caches: Vec<&mut Cache> =
            together.iter_mut().map(|generator| &mut generator.cache).collect();
        let logits = network.forward_each(&tokens, &mut caches)?;
        for (generator, logits) in
            together.into_iter().zip(logits.chunks_exact(network.architecture().vocab_size))
        {
            generator.unread = None;
            generator.choose(network, logits)?;
        }
        Ok(all.iter().any(|generator| generator.unread.is_some()))
    }

    /// The token after `logits`.
    fn choose(&mut self, network: &Network, logits: &[f32]) -> Result<Option<u32>> {
        let token = self.sampler.next(logits)?;
        if self.stop.contains(&token) {
            return Ok(None);
        }
        self.tokens.push(token);
        if self.tokens.len() < self.max_tokens
            && self.cache.len() < network.architecture().max_positions
        {
            self.unread = Some(vec![token]);
        }
        Ok(Some(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_settings_are_read_with_the_others_and_unknown_names_are_refused() {
        let config: GenerateConfig = serde_json::from_str(
            r#"{"maxTokens": 5, "temperature": 0.5, "topK": 3, "seed": 9007199254740993}"#,
        )
        .unwrap();
        let sample =
            SampleConfig { temperature: 0.5, top_k: 3, top_p: 1.0, seed: 9007199254740993 };
        assert_eq!(config, GenerateConfig { max_tokens: 5, sample, stop: vec![] });
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<GenerateConfig>(&text).unwrap(), config);
        let error = serde_json::from_str::<GenerateConfig>(r#"{"topp": 0.9}"#).unwrap_err();
        assert!(error.to_string().contains("topp"), "{error}");
    }
}
