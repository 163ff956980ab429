//! Text in, batches of token sequences out. The batch of a step is a function of (tokens, seed,
//! step) alone, so nothing of it needs saving.

pub(crate) mod chat;
pub(crate) mod documents;
mod half_windows;
mod reading;
pub mod self_generated;
mod windows;

pub use reading::{Reading, ReadingRecord};
pub(crate) use windows::permutation;
pub use windows::{Batch, Sequences, Windows};

use crate::config::options::{Switch, WindowRule};
use crate::{Error, Result};
use chat::Chat;
use documents::Documents;
use halfstep_formats::load::{read_file, regular_file_bytes};
use halfstep_formats::{Model, encoding, foreign};
use std::collections::BTreeMap;
use std::path::Path;

/// Both the text and its token ids are in memory as a whole.
const MAX_TEXT_BYTES: u64 = 4 << 30;

const SELF_GENERATED: &str = "self-generated";

/// A text to train or measure on: characters, conversations, token ids that a model generated, or
/// those after one of the others.
pub struct Text {
    /// Path, `text` or `self-generated`, or the first with the last.
    pub(crate) name: String,
    source: Option<Documents>,
    /// Whether it was read from a file.
    is_file: bool,
    /// Ids that a model generated; they are kept because its tokenizer may split their text into
    /// others.
    generated: Vec<u32>,
    reading: Reading,
}

/// Ids of a text.
struct Ids {
    ids: Vec<u32>,
    /// Whether each is one to predict; None: all are.
    targets: Option<Vec<bool>>,
    record: ReadingRecord,
}

impl Text {
    /// Reads `path` (plain text, or documents where it ends in .jsonl, .ndjson or .json) or takes
    /// `text`, leaving out the first `skip` characters. None if both are absent.
    pub fn read(path: Option<&str>, text: Option<&str>, skip: usize) -> Result<Option<Self>> {
        let (name, source) = match (path, text) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(Error::config(
                    "text",
                    "must be absent if there is a path: one of both is read",
                ));
            }
            (Some(path), None) => (path.to_owned(), file(path)?),
            (None, Some(text)) => {
                let reason = "documents in JSON; put them in a file whose name ends in .jsonl, \
                              .ndjson or .json, or pass what they say";
                (
                    "text".to_owned(),
                    Documents::plain("text", without_mark(text.to_owned()), reason)?,
                )
            }
        };
        let source = match source {
            Documents::Text(text) => {
                let start = text.char_indices().nth(skip).map_or(text.len(), |(at, _)| at);
                let text = if skip == 0 { text } else { text[start..].to_owned() };
                if text.trim().is_empty() {
                    return Err(Error::Data { data: name, reason: "must contain text".into() });
                }
                Documents::Text(text)
            }
            Documents::Conversations(_) if skip > 0 => {
                let reason = "must be 0 for conversations: they have no characters of their own";
                return Err(Error::config("skipCharacters", reason));
            }
            conversations => conversations,
        };
        let (is_file, generated, reading) = (path.is_some(), vec![], Reading::default());
        Ok(Some(Self { name, source: Some(source), is_file, generated, reading }))
    }

    /// A text that a model generated.
    pub fn generated(tokens: Vec<u32>) -> Self {
        let (name, reading) = (SELF_GENERATED.into(), Reading::default());
        Self { name, source: None, is_file: false, generated: tokens, reading }
    }

    /// This text, followed by one that a model generated.
    pub fn and(self, generated: Self) -> Self {
        Self {
            name: format!("{} and {}", self.name, generated.name),
            generated: generated.generated,
            ..self
        }
    }

    /// This text, read in a way of its own.
    ///
    /// Errors: `Config`, only answers are asked for and it has no conversations.
    pub fn read_as(self, reading: Reading) -> Result<Self> {
        if reading.answers_only && !self.is_chat() {
            let reason = format!(
                "must be absent: {} has no conversations; they are documents with a field messages",
                self.name
            );
            return Err(Error::config("answersOnly", reason));
        }
        Ok(Self { reading, ..self })
    }

    /// Whether it consists of conversations.
    pub(crate) fn is_chat(&self) -> bool {
        matches!(self.source, Some(Documents::Conversations(_)))
    }

    /// Returns the token ids, at least `least` of them, without begin tokens before sequences.
    pub fn tokens(&self, model: &Model, least: usize) -> Result<Vec<u32>> {
        let Ids { ids: mut tokens, .. } = self.own(model)?;
        tokens.extend(&self.generated);
        if tokens.len() < least {
            return Err(self.too_short(least, tokens.len()));
        }
        Ok(tokens)
    }

    /// Returns the sequences of `sequence_length` that the text is cut into, at least one whole one.
    ///
    /// Errors: `Data`, it is shorter, or nothing in it is to be predicted; `Config`, there is no
    /// begin token, or no place for one.
    pub fn windows(&self, model: &Model, sequence_length: usize) -> Result<Windows> {
        let (windows, _) = self.measured(model, sequence_length)?;
        if windows.tokens.len() < sequence_length {
            return Err(self.too_short(sequence_length, windows.tokens.len()));
        }
        Ok(windows)
    }

    /// Returns the sequences, of which the only one may be shorter, and how the text was read.
    ///
    /// Errors: those of [`Text::windows`].
    pub(crate) fn measured(
        &self,
        model: &Model,
        sequence_length: usize,
    ) -> Result<(Windows, ReadingRecord)> {
        let Ids { mut ids, mut targets, record } = self.own(model)?;
        ids.extend(&self.generated);
        if let Some(targets) = &mut targets {
            targets.resize(ids.len(), true);
        }
        let begin = self.reading.begin(model)?;
        Ok((Windows::cut(ids, targets, begin, sequence_length)?, record))
    }

    /// Returns the sequences that llama.cpp's perplexity tool cuts the text into and what it scores
    /// of them, and how the text was read. Like the tool, it leaves out a line end at the end of a
    /// file.
    ///
    /// Errors: `Config`, it has conversations, or `sequence_length` leaves nothing to score; those of
    /// [`Text::windows`].
    pub(crate) fn measured_by_llama_cpp(
        mut self,
        model: &Model,
        sequence_length: usize,
    ) -> Result<(Windows, ReadingRecord)> {
        match &mut self.source {
            Some(Documents::Text(text)) if self.is_file && text.ends_with('\n') => _ = text.pop(),
            Some(Documents::Conversations(_)) => {
                let reason = "must be sequences for conversations: llama.cpp's tool has none";
                return Err(Error::config("windows", reason));
            }
            _ => {}
        }
        let Ids { ids, mut record, .. } = self.own(model)?;
        let count = ids.len();
        let windows = half_windows::cut(ids, self.reading.begin(model)?, sequence_length)?;
        if windows.tokens.is_empty() {
            return Err(self.too_short(sequence_length, count));
        }
        record.windows = WindowRule::LlamaCpp;
        record.notes.push(half_windows::note(sequence_length));
        Ok((windows, record))
    }

    /// How the text is read.
    ///
    /// Errors: those of [`Text::windows`].
    pub(crate) fn record(&self, model: &Model) -> Result<ReadingRecord> {
        Ok(self.own(model)?.record)
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
        let begin = self.reading.begin(model)?;
        let generated = Windows::cut(self.generated.clone(), None, begin, sequence_length)?.tokens;
        if self.source.is_none() {
            return self.first(generated, samples, sequence_length);
        }
        let mut tokens =
            self.given_sequences(model, samples, sequence_length, self.generated.len())?;
        // Begin tokens only make more of them.
        tokens.extend(&generated[..samples * sequence_length - tokens.len()]);
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
        let (ids, begin) = (self.own(model)?.ids, self.reading.begin(model)?);
        self.first(
            Windows::cut(ids, None, begin, sequence_length)?.tokens,
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

    fn too_short(&self, least: usize, got: usize) -> Error {
        let reason = format!(
            "must have at least {least} tokens, got {got}; use a longer text or a shorter \
             sequenceLength"
        );
        Error::Data { data: self.name.clone(), reason }
    }

    /// Ids of what no model generated.
    fn own(&self, model: &Model) -> Result<Ids> {
        let mut record = reading::record(&self.reading, model, self.is_chat())?;
        let Some(source) = &self.source else {
            return Ok(Ids { ids: vec![], targets: None, record });
        };
        let tokenizer = model.tokenizer.as_ref().ok_or_else(|| Error::no_tokenizer(&model.name))?;
        let conversations = match source {
            Documents::Text(text) => {
                let (ids, spelt) = reading::plain_ids(tokenizer, text, self.reading.special)?;
                record.warnings.extend(spelt);
                return Ok(Ids { ids, targets: None, record });
            }
            Documents::Conversations(conversations) => conversations,
        };
        if self.reading.special == Switch::Auto {
            let contents = conversations.iter().flat_map(|c| &c.messages);
            let contents = contents.map(|message| message.content.as_str());
            record.warnings.extend(reading::spelt_in_messages(tokenizer, contents)?);
        }
        let chat = Chat {
            data: &self.name,
            model,
            tokenizer,
            begin: self.reading.begin(model)?,
            special: self.reading.is_special(true),
            answers_only: self.reading.answers_only,
        };
        let (ids, targets) = chat.ids(conversations)?;
        if let Some(targets) = &targets {
            let count = targets.iter().filter(|&&target| target).count();
            if count == 0 {
                let reason = "no conversation has an answer (a message of the role assistant)";
                return Err(Error::Data { data: self.name.clone(), reason: reason.into() });
            }
            let all = targets.len();
            record.notes.push(format!("answers only: {count} of {all} tokens are predicted"));
        }
        Ok(Ids { ids, targets, record })
    }

    /// BLAKE3 of the text and of the ids, in hex: names the data in checkpoints.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        match &self.source {
            Some(Documents::Text(text)) => _ = hasher.update(text.as_bytes()),
            Some(Documents::Conversations(conversations)) => {
                for conversation in conversations {
                    let messages = serde_json::to_string(&conversation.messages);
                    hasher.update(messages.unwrap_or_default().as_bytes()).update(b"\n");
                }
            }
            None => {}
        }
        hasher.update(bytemuck::cast_slice(&self.generated));
        hasher.finalize().to_hex().to_string()
    }

    /// Everything that decides the sequences of a tokenizer: the hash and, if it is not the plain
    /// text alone, how it is read.
    pub(crate) fn identity(&self, model: &Model) -> String {
        let mut identity = self.hash();
        if let Ok(Some(begin)) = self.reading.begin(model) {
            identity += &format!(" bos {begin}");
        }
        if self.reading.is_special(self.is_chat()) {
            identity += " special";
        }
        if self.is_chat() {
            let template = model.chat_template.as_deref().unwrap_or_default();
            identity += &format!(" template {}", blake3::hash(template.as_bytes()).to_hex());
        }
        if self.reading.answers_only {
            identity += " answers";
        }
        identity
    }

    /// How the text is read, as strings for the metadata of a file.
    pub(crate) fn provenance(&self, model: &Model) -> Result<BTreeMap<String, String>> {
        Ok(reading::record(&self.reading, model, self.is_chat())?.provenance())
    }

    /// Source of the data, for provenance: `blake3:<hash>`, behind `self-generated:` or
    /// `and-self-generated:` if a model generated all or some of it.
    pub(crate) fn origin(&self) -> String {
        let kind = match (&self.source, self.generated.is_empty()) {
            (None, _) => format!("{SELF_GENERATED}:"),
            (Some(_), false) => format!("and-{SELF_GENERATED}:"),
            (Some(_), true) => String::new(),
        };
        format!("{kind}blake3:{}", self.hash())
    }
}

/// What a file contains.
fn file(path: &str) -> Result<Documents> {
    let wrong = |reason: String| Error::Data { data: path.into(), reason };
    let size = regular_file_bytes(Path::new(path))?;
    if size > MAX_TEXT_BYTES {
        return Err(wrong(format!("must have at most {MAX_TEXT_BYTES} bytes, got {size}")));
    }
    let bytes = read_file(Path::new(path))?;
    let text = encoding::text(bytes).map_err(|e| match e.offset {
        0 => wrong(e.reason),
        at => wrong(format!("line {}: {}; the first wrong byte is at {at}", e.line, e.reason)),
    })?;
    let is_page = Path::new(path).extension().is_some_and(|e| e.eq_ignore_ascii_case("html"));
    if !is_page {
        foreign::refuse(path, text.as_bytes())?;
    }
    Documents::of_file(path, text)
}

/// A text without the byte order mark that some editors put before it.
fn without_mark(mut text: String) -> String {
    const MARK: char = '\u{feff}';
    if text.starts_with(MARK) {
        text.drain(..MARK.len_utf8());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
