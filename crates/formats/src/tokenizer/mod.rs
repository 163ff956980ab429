//! Text to token ids and back. One description ([`Vocabulary`]), read from tokenizer.json,
//! tokenizer.model, vocab.json with merges.txt, or GGUF metadata.
//!
//! Special tokens are found first; the text between them goes to the kind of model that the
//! vocabulary names ([`TokenizerModel`]), each of which has its own file: byte-level BPE (words of
//! [`pre`], merged by rank), SentencePiece's BPE (by merges or scores) and Unigram. The `tokenizers`
//! crate only trains: its pipeline stops silently where a pattern gives up, keeps a cache per thread
//! for ever, and costs several times more than the words themselves.

mod alphabet;
mod byte_level;
mod ends;
mod json;
mod merge;
pub mod pre;
mod protobuf;
mod same;
mod search;
mod sentence_piece;
mod spaces;
mod stream;
#[cfg(not(target_arch = "wasm32"))]
pub mod train;
mod unigram;
mod vocabulary;

pub(crate) use json::class_of_model;
pub use same::Difference;
pub use spaces::{Prefix, Spaces};
pub use stream::TokenStream;
pub use vocabulary::{
    MAX_TOKEN_BYTES, MAX_TOKENS, Strip, TokenKind, TokenizerModel, Vocabulary, unused_token,
};

use crate::error::{Error, Result};
use aho_corasick::MatchKind;
use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous::NFA;
use alphabet::ByteAlphabet;
use byte_level::{ByteLevel, Words};
use merge::Merger;
use sentence_piece::SentencePiece;
use spaces::SPACE;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use unigram::Unigram;

/// A vocabulary ready to encode and decode. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    /// The description that the tokenizer was built from.
    pub vocabulary: Arc<Vocabulary>,
    /// What was set right or left out while reading it, for people.
    pub warnings: Vec<String>,
    engine: Arc<Engine>,
}

/// What is built once from a vocabulary.
struct Engine {
    model: Model,
    /// Finds special and user-defined tokens in a text.
    all_markers: Markers,
    /// Finds user-defined tokens only, for text in which special tokens mean nothing.
    user_markers: Markers,
    /// The bytes of all tokens, one after the other; token i is `bytes[ends[i - 1]..ends[i]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// How plain text becomes ids.
enum Model {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(Box<SentencePiece>, Spaces),
    Unigram(Box<Unigram>, Spaces),
}

/// Tokens that are found in a text as they are: leftmost first, then longest.
struct Markers {
    finder: Option<NFA>,
    ids: Vec<u32>,
    /// By place in `ids`: whether the marker takes the white space before and after it.
    strips: Vec<(bool, bool)>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens, {})", self.vocabulary.tokens.len(), self.vocabulary.name())
    }
}

impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.vocabulary == other.vocabulary
    }
}

impl Tokenizer {
    /// Checks the vocabulary ([`Vocabulary::validate`]) and builds what encoding needs.
    pub fn new(vocabulary: Vocabulary) -> Result<Self> {
        vocabulary.validate()?;
        let engine = Engine::new(&vocabulary)?;
        let (vocabulary, engine) = (Arc::new(vocabulary), Arc::new(engine));
        Ok(Self { vocabulary, warnings: vec![], engine })
    }

    /// Reads a tokenizer from the bytes of a tokenizer.json (and, if there is one, of a
    /// tokenizer_config.json).
    pub fn from_json(
        file: &str,
        tokenizer_json: &[u8],
        tokenizer_config: Option<&[u8]>,
    ) -> Result<Self> {
        let (vocabulary, warnings) = json::read(file, tokenizer_json, tokenizer_config)?;
        Self::from_file(file, vocabulary, warnings)
    }

    /// Reads a tokenizer from vocab.json and merges.txt. The tokenizer_config.json must name a class
    /// whose words are known; added_tokens.json is optional.
    pub fn from_merges(
        file: &str,
        vocab_json: &[u8],
        merges_txt: &[u8],
        tokenizer_config: Option<&[u8]>,
        added_tokens: Option<&[u8]>,
    ) -> Result<Self> {
        let sides = json::Sides { config: tokenizer_config, added: added_tokens };
        let (vocabulary, warnings) = json::read_merges(file, vocab_json, merges_txt, sides)?;
        Self::from_file(file, vocabulary, warnings)
    }

    /// Reads a tokenizer from SentencePiece's tokenizer.model and the side files.
    pub fn from_sentence_piece(
        file: &str,
        model: &[u8],
        tokenizer_config: Option<&[u8]>,
        added_tokens: Option<&[u8]>,
    ) -> Result<Self> {
        let sides = json::Sides { config: tokenizer_config, added: added_tokens };
        let (vocabulary, warnings) = json::read_model(file, model, sides)?;
        Self::from_file(file, vocabulary, warnings)
    }

    /// The same with what was found while reading `file`; errors name it.
    fn from_file(file: &str, vocabulary: Vocabulary, warnings: Vec<String>) -> Result<Self> {
        let built = Self::new(vocabulary).map_err(|e| match e {
            Error::Tokenizer { reason } => Error::Tokenizer { reason: format!("{file}: {reason}") },
            Error::Unsupported { name, reason, .. } => {
                Error::Unsupported { file: file.into(), name, reason, offset: None }
            }
            other => other,
        })?;
        Ok(Self { warnings, ..built })
    }

    /// A tokenizer.json that `from_json` reads back equal.
    pub fn to_json(&self) -> String {
        json::write(&self.vocabulary)
    }

    /// Returns the matching tokenizer_config.json, for other readers: special tokens by name, and
    /// the chat template.
    pub fn to_config_json(&self, chat_template: Option<&str>) -> String {
        json::write_config(&self.vocabulary, chat_template)
    }

    /// Ids of `text`. `special`: special tokens in the text are recognised, and bos/eos are added
    /// if the model uses them (not a second time where the text has them); without it the text
    /// is plain. A byte that the vocabulary has no token for is left out, as the reference
    /// tokenizers do.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let vocabulary = &*self.vocabulary;
        let mut ids = Vec::with_capacity(text.len() / 3);
        self.engine.encode(text, special, &mut ids)?;
        if let Some(bos) = vocabulary.bos.filter(|_| special && vocabulary.add_bos)
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        if let Some(eos) = vocabulary.eos.filter(|_| special && vocabulary.add_eos)
            && ids.last() != Some(&eos)
        {
            ids.push(eos);
        }
        Ok(ids)
    }

    /// Text of `ids`. Bytes that are no UTF-8 become U+FFFD; an id outside the vocabulary is an
    /// error.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut bytes = Vec::new();
        for (at, &id) in ids.iter().enumerate() {
            let token = self.bytes(id, skip_special).ok_or_else(|| {
                let reason = format!(
                    "id {id} at position {at} is outside the vocabulary of {} tokens",
                    self.vocabulary.tokens.len()
                );
                Error::Tokenizer { reason }
            })?;
            bytes.extend_from_slice(token);
        }
        if self.adds_a_space() && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// A decoder for streaming: give it ids one by one, it gives text as soon as whole UTF-8
    /// characters are there. Special tokens give no text.
    pub fn stream(&self) -> TokenStream {
        self.stream_with(true)
    }

    /// The same with the choice that `decode` has.
    pub fn stream_with(&self, skip_special: bool) -> TokenStream {
        TokenStream::new(self.clone(), skip_special, self.adds_a_space())
    }

    /// The same for tokens that follow others: a space at their beginning is part of the text.
    pub fn continuation(&self) -> TokenStream {
        TokenStream::new(self.clone(), true, false)
    }

    /// Whether encoding puts a space before the text, which decoding takes away.
    fn adds_a_space(&self) -> bool {
        self.vocabulary.spaces.prefix != Prefix::Never
    }

    /// The bytes of a token (none for a special token that is to be skipped); None outside the
    /// vocabulary.
    pub fn bytes(&self, id: u32, skip_special: bool) -> Option<&[u8]> {
        let kind = self.vocabulary.kinds.get(id as usize)?;
        Some(if skip_special && kind.is_special() {
            &[]
        } else {
            self.engine.token_bytes(id as usize)
        })
    }

    /// Id of a token by its text in the byte alphabet (special tokens verbatim).
    pub fn id(&self, token: &str) -> Option<u32> {
        self.vocabulary.tokens.iter().position(|t| t == token).map(|id| id as u32)
    }
}

impl Engine {
    fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let alphabet = ByteAlphabet::new();
        let byte_level = vocabulary.model == TokenizerModel::ByteLevel;
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(vocabulary.tokens.len()));
        for (token, &kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
            let spelled = match kind {
                TokenKind::Byte => vocabulary::byte_token(token).map(|b| vec![b]),
                TokenKind::Normal if byte_level => alphabet.read(token),
                TokenKind::Normal | TokenKind::UserDefined if !byte_level => {
                    Some(token.replace(SPACE, " ").into_bytes())
                }
                _ => None,
            };
            bytes.extend_from_slice(spelled.as_deref().unwrap_or(token.as_bytes()));
            ends.push(bytes.len());
        }
        let spaces = vocabulary.spaces;
        let model = match vocabulary.model {
            TokenizerModel::ByteLevel => Model::ByteLevel(Box::new(ByteLevel::new(vocabulary)?)),
            TokenizerModel::Merges | TokenizerModel::Scores => {
                Model::SentencePiece(Box::new(SentencePiece::new(vocabulary)?), spaces)
            }
            TokenizerModel::Unigram => Model::Unigram(Box::new(Unigram::new(vocabulary)), spaces),
        };
        Ok(Self {
            model,
            all_markers: Markers::new(vocabulary, TokenKind::is_marker)?,
            user_markers: Markers::new(vocabulary, |kind| kind == TokenKind::UserDefined)?,
            bytes,
            ends,
        })
    }

    fn token_bytes(&self, id: usize) -> &[u8] {
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..self.ends[id]]
    }

    fn encode(&self, text: &str, special: bool, ids: &mut Vec<u32>) -> Result<()> {
        let markers = if special { &self.all_markers } else { &self.user_markers };
        let mut encoder = match &self.model {
            Model::ByteLevel(model) => Encoder::ByteLevel(model.words()),
            Model::SentencePiece(model, spaces) => {
                Encoder::SentencePiece(model, spaces, Merger::default())
            }
            Model::Unigram(model, spaces) => Encoder::Unigram(model, spaces),
        };
        let mut done = 0;
        for found in markers.finder.iter().flat_map(|f| f.try_find_iter(text.into())).flatten() {
            // White space that belongs to the marker before may hold the start of this one.
            if found.start() < done {
                continue;
            }
            let (left, right) = markers.strips[found.pattern().as_usize()];
            let before = &text[done..found.start()];
            encoder.encode(if left { before.trim_end() } else { before }, done == 0, ids)?;
            ids.push(markers.ids[found.pattern().as_usize()]);
            let after = &text[found.end()..];
            let taken = if right { after.len() - after.trim_start().len() } else { 0 };
            done = found.end() + taken;
        }
        encoder.encode(&text[done..], done == 0, ids)
    }
}

/// A model at work on one text.
enum Encoder<'e, 't> {
    ByteLevel(Words<'e, 't>),
    SentencePiece(&'e SentencePiece, &'e Spaces, Merger),
    Unigram(&'e Unigram, &'e Spaces),
}

impl<'t> Encoder<'_, 't> {
    /// Appends the ids of plain text; `first` if no marker was before it.
    fn encode(&mut self, text: &'t str, first: bool, ids: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::ByteLevel(words) => return words.encode(text, ids),
            Self::SentencePiece(model, spaces, merger) => {
                let spelled = spaces.apply(text, first);
                spaces.words(&spelled, &mut |word| model.encode(word, merger, ids));
            }
            Self::Unigram(model, spaces) => {
                let spelled = spaces.apply(text, first);
                let mut result = Ok(());
                spaces.words(&spelled, &mut |word| {
                    if result.is_ok() {
                        result = model.encode(word, ids);
                    }
                });
                return result;
            }
        }
        Ok(())
    }
}

impl Markers {
    fn new(vocabulary: &Vocabulary, wanted: impl Fn(TokenKind) -> bool) -> Result<Self> {
        let chosen = vocabulary
            .tokens
            .iter()
            .zip(&vocabulary.kinds)
            .zip(0u32..)
            .filter(|((_, kind), _)| wanted(**kind));
        // A text has spaces where pieces have U+2581.
        let as_in_texts = |token| match vocabulary.model {
            TokenizerModel::ByteLevel => Cow::from(token),
            _ => str::replace(token, SPACE, " ").into(),
        };
        let (texts, ids): (Vec<Cow<str>>, Vec<u32>) = chosen
            .map(|((token, &kind), id)| match kind {
                TokenKind::UserDefined => (as_in_texts(token.as_str()), id),
                _ => (Cow::from(token.as_str()), id),
            })
            .unzip();
        let strips: HashMap<u32, (bool, bool)> =
            vocabulary.strips.iter().map(|s| (s.id, (s.left, s.right))).collect();
        let strips = ids.iter().map(|id| strips.get(id).copied().unwrap_or_default()).collect();
        if ids.is_empty() {
            return Ok(Self { finder: None, ids, strips });
        }
        let finder = NFA::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts.iter().map(|text| text.as_bytes()));
        Ok(Self {
            finder: Some(
                finder.map_err(|e| Error::Tokenizer { reason: format!("special tokens: {e}") })?,
            ),
            ids,
            strips,
        })
    }
}
