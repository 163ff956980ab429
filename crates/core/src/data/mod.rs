//! Text in, batches of token sequences out. The batch of a step is a function of (tokens, seed,
//! step) alone, so nothing of it needs saving.

mod jsonl;
pub mod self_generated;

use crate::{Error, Result};
use halfstep_formats::Model;
use halfstep_formats::load::{read_file, regular_file_bytes};
use halfstep_kernels::rng::Rng;
use std::path::Path;

/// The RNG stream that orders training sequences; the epoch is added to it.
const ORDER_STREAM: u64 = 1 << 32;

/// Both the text and its token ids are in memory as a whole.
const MAX_TEXT_BYTES: u64 = 4 << 30;

const SELF_GENERATED: &str = "self-generated";

/// A text to train or measure on: characters, token ids that a model generated, or both.
pub struct Text {
    /// Path, `text` or `self-generated`, or the first with the last.
    pub(crate) name: String,
    characters: Option<String>,
    /// Ids that a model generated; they are kept because its tokenizer may split their text into
    /// others.
    generated: Vec<u32>,
}

impl Text {
    /// Reads `path` (plain text, or documents where it ends in .jsonl) or takes `text`, leaving out
    /// the first `skip` characters. None if both are absent.
    pub fn read(path: Option<&str>, text: Option<&str>, skip: usize) -> Result<Option<Self>> {
        let (name, text) = match (path, text) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(Error::config(
                    "text",
                    "must be absent if there is a path: one of both is read",
                ));
            }
            (Some(path), None) => (path.to_owned(), file(path)?),
            (None, Some(text)) => ("text".to_owned(), text.to_owned()),
        };
        let start = text.char_indices().nth(skip).map_or(text.len(), |(at, _)| at);
        let text = if skip == 0 { text } else { text[start..].to_owned() };
        if text.trim().is_empty() {
            return Err(Error::Data { data: name, reason: "must contain text".into() });
        }
        Ok(Some(Self { name, characters: Some(text), generated: vec![] }))
    }

    /// A text that a model generated.
    pub fn generated(tokens: Vec<u32>) -> Self {
        Self { name: SELF_GENERATED.into(), characters: None, generated: tokens }
    }

    /// This text, followed by one that a model generated.
    pub fn and(self, generated: Self) -> Self {
        Self {
            name: format!("{} and {}", self.name, generated.name),
            characters: self.characters,
            generated: generated.generated,
        }
    }

    /// Returns the token ids, at least `least` of them, without special tokens other than those
    /// that a model generated.
    pub fn tokens(&self, model: &Model, least: usize) -> Result<Vec<u32>> {
        let mut tokens = self.own(model)?;
        tokens.extend(&self.generated);
        if tokens.len() < least {
            let reason = format!(
                "must have at least {least} tokens, got {}; use a longer text or a shorter \
                 sequenceLength",
                tokens.len()
            );
            return Err(Error::Data { data: self.name.clone(), reason });
        }
        Ok(tokens)
    }

    /// Returns the token ids of `samples` sequences of `sequence_length`: the first of the
    /// characters and, for up to half of the samples, the first that a model generated.
    ///
    /// Errors: `Data`, there are fewer.
    pub fn sequences(
        &self,
        model: &Model,
        samples: usize,
        sequence_length: usize,
    ) -> Result<Vec<u32>> {
        if self.characters.is_none() {
            return self.first(self.generated.clone(), samples, sequence_length);
        }
        let mut tokens =
            self.given_sequences(model, samples, sequence_length, self.generated.len())?;
        tokens.extend(&self.generated[..samples * sequence_length - tokens.len()]);
        Ok(tokens)
    }

    /// Returns the part of [`Text::sequences`] that comes from the characters if a model generates
    /// `generated` tokens too.
    ///
    /// Errors: `Data`, there are fewer.
    pub(crate) fn given_sequences(
        &self,
        model: &Model,
        samples: usize,
        sequence_length: usize,
        generated: usize,
    ) -> Result<Vec<u32>> {
        self.first(
            self.own(model)?,
            samples - (generated / sequence_length).min(samples / 2),
            sequence_length,
        )
    }

    fn first(
        &self,
        mut tokens: Vec<u32>,
        samples: usize,
        sequence_length: usize,
    ) -> Result<Vec<u32>> {
        let there = tokens.len() / sequence_length;
        if there < samples {
            let reason = format!(
                "must have at least {samples} sequences of {sequence_length} tokens, got {there} \
                 ({} tokens); use a longer text or fewer samples",
                tokens.len()
            );
            return Err(Error::Data { data: self.name.clone(), reason });
        }
        tokens.truncate(samples * sequence_length);
        Ok(tokens)
    }

    /// Ids of the characters.
    fn own(&self, model: &Model) -> Result<Vec<u32>> {
        let Some(characters) = &self.characters else { return Ok(vec![]) };
        let tokenizer = model.tokenizer.as_ref().ok_or_else(|| Error::Data {
            data: model.name.clone(),
            reason: "the model has no tokenizer".into(),
        })?;
        Ok(tokenizer.encode(characters, false)?)
    }

    /// BLAKE3 of the text and of the ids, in hex: names the data in checkpoints.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(self.characters.as_deref().unwrap_or_default().as_bytes())
            .update(bytemuck::cast_slice(&self.generated));
        hasher.finalize().to_hex().to_string()
    }

    /// Source of the data, for provenance: `blake3:<hash>`, behind `self-generated:` or
    /// `and-self-generated:` if a model generated all or some of it.
    pub(crate) fn origin(&self) -> String {
        let kind = match (&self.characters, self.generated.is_empty()) {
            (None, _) => format!("{SELF_GENERATED}:"),
            (Some(_), false) => format!("and-{SELF_GENERATED}:"),
            (Some(_), true) => String::new(),
        };
        format!("{kind}blake3:{}", self.hash())
    }
}

/// The text of a file.
fn file(path: &str) -> Result<String> {
    let wrong = |reason: String| Error::Data { data: path.into(), reason };
    let size = regular_file_bytes(Path::new(path))?;
    if size > MAX_TEXT_BYTES {
        return Err(wrong(format!("must have at most {MAX_TEXT_BYTES} bytes, got {size}")));
    }
    let bytes = read_file(Path::new(path))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1;
        wrong(format!("line {line}: not UTF-8 text; the first wrong byte is at {at}"))
    })?;
    if jsonl::is_jsonl(path) { jsonl::documents(path, &text) } else { Ok(text) }
}

/// The order of `n` sequences in a pass.
pub(crate) fn permutation(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    Rng { seed, stream: ORDER_STREAM + epoch, counter: 0 }.permutation(n)
}

/// Sequences of a text in an order drawn anew for every pass.
pub struct Sequences {
    tokens: Vec<u32>,
    sequence_length: usize,
    seed: u64,
    /// (epoch, its order), of the last epoch that was read.
    order: Option<(u64, Vec<usize>)>,
}

impl Sequences {
    /// `tokens` holds at least one sequence; what is left over at the end is not used.
    pub fn new(tokens: Vec<u32>, sequence_length: usize, seed: u64) -> Self {
        Self { tokens, sequence_length, seed, order: None }
    }

    /// Sequences in one pass over the text.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.sequence_length
    }

    /// The `n` sequences that follow the first `start` ones, `[n, T]`.
    pub fn batch(&mut self, start: u64, n: usize) -> Vec<u32> {
        let mut batch = Vec::with_capacity(n * self.sequence_length);
        for index in start..start + n as u64 {
            let (epoch, index) =
                (index / self.count() as u64, (index % self.count() as u64) as usize);
            let first = self.order(epoch)[index] * self.sequence_length;
            batch.extend_from_slice(&self.tokens[first..first + self.sequence_length]);
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
        let mut windows = Sequences::new((0..100).collect(), 10, 7);
        let mut firsts: Vec<u32> = windows.batch(0, 10).chunks(10).map(|w| w[0]).collect();
        let whole = windows.batch(0, 25);
        assert_eq!(Sequences::new((0..100).collect(), 10, 7).batch(13, 12), whole[130..]);
        assert_ne!(firsts, (0..10).map(|i| i * 10).collect::<Vec<_>>());
        firsts.sort();
        assert_eq!(firsts, (0..10).map(|i| i * 10).collect::<Vec<_>>());
    }

    #[test]
    fn skipping_counts_characters_not_bytes() {
        let text = Text::read(None, Some("äöü def"), 4).unwrap().unwrap();
        assert_eq!(text.hash(), blake3::hash(b"def").to_hex().to_string());
        assert_eq!(text.origin(), format!("blake3:{}", text.hash()));
    }

    #[test]
    fn a_file_is_read_by_its_ending() {
        let folder = std::env::temp_dir().join(format!("halfstep-data-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let written = |name: &str, bytes: &[u8]| {
            let path = folder.join(name).display().to_string();
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let hash = |path: &str, skip| Text::read(Some(path), None, skip).unwrap().unwrap().hash();
        let (lines, plain) = (
            written("a.jsonl", "{\"text\": \"äö\"}\n{\"text\": \"b\"}\n".as_bytes()),
            written("a.txt", "äö\n\nb".as_bytes()),
        );
        assert_eq!(hash(&lines, 0), hash(&plain, 0));
        assert_eq!(hash(&lines, 3), blake3::hash(b"\nb").to_hex().to_string());
        for (bytes, words) in [
            (&b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}"[..], "line 2: not UTF-8"),
            (b"", "must contain text"),
            (b"{\"text\": \" \"}", "must contain text"),
        ] {
            let error =
                Text::read(Some(&written("b.jsonl", bytes)), None, 0).err().expect("it is refused");
            assert!(error.code() == "ERR_DATA" && error.to_string().contains(words), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
