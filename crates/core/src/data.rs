//! Text in, batches of token windows out. The batch of a step is a function of (tokens, seed, step) alone, so nothing of it needs saving.

use crate::{Error, Result};
use halfstep_formats::Model;
use halfstep_formats::load::regular_file_bytes;
use halfstep_kernels::rng::Rng;
use std::path::Path;

/// The RNG stream that orders training windows; the epoch is added to it.
const ORDER_STREAM: u64 = 1 << 32;

/// The text is in memory as a whole, and its token ids beside it.
const MAX_TEXT_BYTES: u64 = 4 << 30;

/// A text, from a file or given as it is.
pub struct Text {
    /// Path, or `text`.
    pub name: String,
    pub text: String,
}

impl Text {
    /// Reads `path` or takes `text`, leaving out the first `skip` characters. None if neither is given.
    pub fn read(path: Option<&str>, text: Option<&str>, skip: usize) -> Result<Option<Self>> {
        let (name, text) = match (path, text) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(Error::config("text", "give a path or the text itself, not both")),
            (Some(path), None) => {
                let io = |source| Error::Format(halfstep_formats::Error::Io { path: path.into(), source });
                let size = regular_file_bytes(Path::new(path))?;
                if size > MAX_TEXT_BYTES {
                    return Err(Error::Data { data: path.into(), reason: format!("{size} bytes; a text has at most {MAX_TEXT_BYTES}") });
                }
                let bytes = std::fs::read(path).map_err(io)?;
                let text = String::from_utf8(bytes).map_err(|e| Error::Data {
                    data: path.into(),
                    reason: format!("not UTF-8 text: the first wrong byte is at {}", e.utf8_error().valid_up_to()),
                })?;
                (path.to_owned(), text)
            }
            (None, Some(text)) => ("text".to_owned(), text.to_owned()),
        };
        let start = text.char_indices().nth(skip).map_or(text.len(), |(at, _)| at);
        let text = if skip == 0 { text } else { text[start..].to_owned() };
        if text.trim().is_empty() {
            return Err(Error::Data { data: name, reason: "no text in it".into() });
        }
        Ok(Some(Self { name, text }))
    }

    /// Token ids without special tokens; at least `least` of them.
    pub fn tokens(&self, model: &Model, least: usize) -> Result<Vec<u32>> {
        let tokenizer = model.tokenizer.as_ref().ok_or_else(|| Error::Data { data: model.name.clone(), reason: "the model has no tokenizer".into() })?;
        let tokens = tokenizer.encode(&self.text, false)?;
        if tokens.len() < least {
            let reason = format!("{} tokens are fewer than one window of {least}; give a longer text or a shorter window", tokens.len());
            return Err(Error::Data { data: self.name.clone(), reason });
        }
        Ok(tokens)
    }

    /// BLAKE3 of the text, in hex: names the data in checkpoints and provenance.
    pub fn hash(&self) -> String {
        blake3::hash(self.text.as_bytes()).to_hex().to_string()
    }
}

/// The order of `n` windows in a pass.
pub fn permutation(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    Rng { seed, stream: ORDER_STREAM + epoch, counter: 0 }.permutation(n)
}

/// Windows of a text in an order drawn anew for every pass.
pub struct Windows {
    tokens: Vec<u32>,
    window: usize,
    seed: u64,
    /// (epoch, its order), for the last epoch asked for.
    order: Option<(u64, Vec<usize>)>,
}

impl Windows {
    /// `tokens` holds at least one window; what is left over at the end is not used.
    pub fn new(tokens: Vec<u32>, window: usize, seed: u64) -> Self {
        Self { tokens, window, seed, order: None }
    }

    /// Windows in one pass over the text.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.window
    }

    /// The `n` windows that follow the first `start` ones, `[n, window]`.
    pub fn batch(&mut self, start: u64, n: usize) -> Vec<u32> {
        let mut batch = Vec::with_capacity(n * self.window);
        for index in start..start + n as u64 {
            let (epoch, place) = (index / self.count() as u64, (index % self.count() as u64) as usize);
            let first = self.order(epoch)[place] * self.window;
            batch.extend_from_slice(&self.tokens[first..first + self.window]);
        }
        batch
    }

    fn order(&mut self, epoch: u64) -> &[usize] {
        if self.order.as_ref().is_none_or(|(e, _)| *e != epoch) {
            self.order = Some((epoch, permutation(self.count(), self.seed, epoch)));
        }
        &self.order.as_ref().expect("just drawn").1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_once_a_pass_and_the_same_again_from_any_start() {
        let mut windows = Windows::new((0..100).collect(), 10, 7);
        let mut firsts: Vec<u32> = windows.batch(0, 10).chunks(10).map(|w| w[0]).collect();
        let whole = windows.batch(0, 25);
        assert_eq!(Windows::new((0..100).collect(), 10, 7).batch(13, 12), whole[130..]);
        assert_ne!(firsts, (0..10).map(|i| i * 10).collect::<Vec<_>>());
        firsts.sort();
        assert_eq!(firsts, (0..10).map(|i| i * 10).collect::<Vec<_>>());
    }

    #[test]
    fn skipping_counts_characters_not_bytes() {
        let text = Text::read(None, Some("äöü def"), 4).unwrap().unwrap();
        assert_eq!(text.text, "def");
    }
}
