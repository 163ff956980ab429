//! Text to token ids and back. One description ([`Vocabulary`]), read from tokenizer.json or from
//! GGUF metadata; merging by the `tokenizers` crate.
//!
//! Byte-level BPE (Radford et al., GPT-2, 2019; Sennrich et al., arXiv 1508.07909): special tokens
//! are found first, the text between them is cut into words ([`pre`]), each word's bytes are
//! spelled in the byte alphabet and merged by rank. Of the `tokenizers` crate only the merging (and
//! training) is used: its pipeline stops silently where a pattern gives up, keeps a cache per
//! thread for ever, and costs several times more than the words themselves.

mod alphabet;
mod json;
pub mod pre;
mod stream;
#[cfg(not(target_arch = "wasm32"))]
pub mod train;
mod vocabulary;

pub use stream::TokenStream;
pub use vocabulary::{MAX_TOKEN_BYTES, MAX_TOKENS, TokenKind, Vocabulary, unused_token};

use crate::error::{Error, Result};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use alphabet::ByteAlphabet;
use std::collections::HashMap;
use std::sync::Arc;
use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Vocab};

/// Words longer than this are merged anew each time: they hardly repeat.
const LONGEST_REMEMBERED_WORD: usize = 64;

/// A vocabulary ready to encode and decode. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    /// The description that the tokenizer was built from.
    pub vocabulary: Arc<Vocabulary>,
    engine: Arc<Engine>,
}

/// What is built once from a vocabulary.
struct Engine {
    alphabet: ByteAlphabet,
    splitter: pre::Splitter,
    merger: BPE,
    /// Finds special and user-defined tokens in a text.
    all_markers: Markers,
    /// Finds user-defined tokens only, for text in which special tokens mean nothing.
    user_markers: Markers,
    /// The bytes of all tokens, one after the other; token i is `bytes[ends[i - 1]..ends[i]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Tokens that are found in a text as they are: leftmost first, then longest.
struct Markers {
    finder: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens, {})", self.vocabulary.tokens.len(), self.vocabulary.pre)
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
        Ok(Self { vocabulary: Arc::new(vocabulary), engine: Arc::new(engine) })
    }

    /// Reads a tokenizer from the bytes of a tokenizer.json (and, if there is one, of a
    /// tokenizer_config.json).
    pub fn from_json(
        file: &str,
        tokenizer_json: &[u8],
        tokenizer_config: Option<&[u8]>,
    ) -> Result<Self> {
        let vocabulary = json::read(file, tokenizer_json, tokenizer_config)?;
        Self::new(vocabulary).map_err(|e| match e {
            Error::Tokenizer { reason } => Error::Tokenizer { reason: format!("{file}: {reason}") },
            Error::Unsupported { name, reason, .. } => {
                Error::Unsupported { file: file.into(), name, reason }
            }
            other => other,
        })
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
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// A decoder for streaming: give it ids one by one, it gives text as soon as whole UTF-8
    /// characters are there. Special tokens give no text.
    pub fn stream(&self) -> TokenStream {
        TokenStream::new(self.clone(), true)
    }

    /// The same with the choice that `decode` has.
    pub fn stream_with(&self, skip_special: bool) -> TokenStream {
        TokenStream::new(self.clone(), skip_special)
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
        let pre = pre::find(&vocabulary.pre).expect("validated");
        let alphabet = ByteAlphabet::new();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(vocabulary.tokens.len()));
        for (token, &kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
            let spelled = match kind {
                TokenKind::Normal => alphabet.read(token),
                TokenKind::Byte => vocabulary::byte_token(token).map(|b| vec![b]),
                _ => None,
            };
            bytes.extend_from_slice(spelled.as_deref().unwrap_or(token.as_bytes()));
            ends.push(bytes.len());
        }
        Ok(Self {
            alphabet,
            splitter: pre::Splitter::new(pre),
            merger: merger(vocabulary, pre.whole_words)?,
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
        let mut words = Words { engine: self, known: HashMap::new(), spelled: String::new() };
        let mut done = 0;
        for found in markers.finder.iter().flat_map(|f| f.find_iter(text)) {
            words.encode(&text[done..found.start()], ids)?;
            ids.push(markers.ids[found.pattern().as_usize()]);
            done = found.end();
        }
        words.encode(&text[done..], ids)
    }
}

/// The merges with the tokens they may build, in the form the crate wants.
fn merger(vocabulary: &Vocabulary, whole_words: bool) -> Result<BPE> {
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0u32..);
    let ids: Vocab = tokens
        .filter(|((_, kind), _)| kind.is_mergeable())
        .map(|((token, _), id)| (token.clone(), id))
        .collect();
    let merges = (0..vocabulary.merges.len())
        .map(|rank| vocabulary.merge(rank).map(|(l, r)| (l.to_string(), r.to_string())))
        .collect::<Result<Vec<_>>>()?;
    // Its cache would live as long as the thread; ours lives as long as one text.
    let builder =
        BPE::builder().vocab_and_merges(ids, merges).cache_capacity(0).ignore_merges(whole_words);
    builder.build().map_err(|e| Error::Tokenizer { reason: e.to_string() })
}

impl Markers {
    fn new(vocabulary: &Vocabulary, wanted: impl Fn(TokenKind) -> bool) -> Result<Self> {
        let chosen = vocabulary
            .tokens
            .iter()
            .zip(&vocabulary.kinds)
            .zip(0u32..)
            .filter(|((_, kind), _)| wanted(**kind));
        let (texts, ids): (Vec<&str>, Vec<u32>) =
            chosen.map(|((token, _), id)| (token.as_str(), id)).unzip();
        if ids.is_empty() {
            return Ok(Self { finder: None, ids });
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&texts);
        Ok(Self {
            finder: Some(
                finder.map_err(|e| Error::Tokenizer { reason: format!("special tokens: {e}") })?,
            ),
            ids,
        })
    }
}

/// Encodes plain text, remembering the words of one call.
struct Words<'e, 't> {
    engine: &'e Engine,
    known: HashMap<&'t str, Box<[u32]>>,
    spelled: String,
}

impl<'t> Words<'_, 't> {
    fn encode(&mut self, text: &'t str, ids: &mut Vec<u32>) -> Result<()> {
        self.engine.splitter.split(text, &mut |word| {
            if let Some(known) = self.known.get(word) {
                ids.extend_from_slice(known);
                return Ok(());
            }
            self.engine.alphabet.spell(word.as_bytes(), &mut self.spelled);
            let tokens = self
                .engine
                .merger
                .tokenize(&self.spelled)
                .map_err(|e| Error::Tokenizer { reason: e.to_string() })?;
            let start = ids.len();
            ids.extend(tokens.iter().map(|t| t.id));
            if word.len() <= LONGEST_REMEMBERED_WORD {
                self.known.insert(word, ids[start..].into());
            }
            Ok(())
        })
    }
}
