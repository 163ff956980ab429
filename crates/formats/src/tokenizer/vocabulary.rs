//! The vocabulary as data, and the checks it has to pass before anything is built from it.

use super::pre;
use super::sentence_piece::scores_of_merges;
use super::spaces::Spaces;
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};

/// Most tokens (and merges) a vocabulary may have.
pub const MAX_TOKENS: usize = 1 << 24;
/// Longest text of one token.
pub const MAX_TOKEN_BYTES: usize = 64 << 10;
/// Tokens that are searched for in the text are compiled into an automaton, which takes many times
/// their size.
pub const MAX_MARKERS: usize = 1 << 16;
/// Most bytes that the texts of these tokens may have together.
pub const MAX_MARKER_BYTES: usize = 4 << 20;
/// Longest of these tokens. The search begins anew at every byte, at worst after going along the
/// whole of one.
pub const MAX_MARKER_TOKEN_BYTES: usize = 256;
/// Longest piece that is put together by its score: all its halves are looked up.
pub const MAX_PIECE_BYTES: usize = 512;

/// What a token is, with ggml's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text, built by merges.
    Normal = 1,
    /// Stands for what has no token.
    Unknown = 2,
    /// A sign to the model, such as the end of a message, and no text.
    Control = 3,
    /// Text that is found as it is before anything is merged.
    UserDefined = 4,
    /// An id that no text gives.
    Unused = 5,
    /// A single byte.
    Byte = 6,
}

/// What an id without a token is called, as llama.cpp's converter does.
pub fn unused_token(id: usize) -> String {
    format!("[PAD{id}]")
}

impl TokenKind {
    /// The kind with this number in a GGUF file.
    pub fn from_ggml(number: i64) -> Option<Self> {
        [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte]
            .into_iter()
            .find(|&k| k as i64 == number)
    }

    /// Whether the token is searched for in the text as it is, instead of being built by merges.
    pub fn is_marker(self) -> bool {
        matches!(self, Self::Control | Self::Unknown | Self::UserDefined)
    }

    /// Whether the token is a sign to the model and no part of the text.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown | Self::Unused)
    }

    /// Whether merges may name the token. An ordinary token that a file marks special may still be
    /// the half of another.
    pub fn is_mergeable(self) -> bool {
        !matches!(self, Self::Unused | Self::Byte)
    }

    /// Whether the token is a piece of text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined)
    }
}

/// How text becomes tokens, and how tokens spell text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenizerModel {
    /// Byte-level BPE: words, spelled in the byte alphabet, merged in the order of `merges`.
    #[default]
    ByteLevel,
    /// SentencePiece's BPE in the order of `merges`; U+2581 stands for a space.
    Merges,
    /// SentencePiece's BPE: whatever two neighbours make a token, the best of `scores` first.
    Scores,
    /// SentencePiece's Unigram: the cut whose `scores` (log-probabilities) have the largest sum.
    Unigram,
}

/// White space around a marker that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strip {
    /// Id of the marker.
    pub id: u32,
    /// Whether it takes the white space before it.
    pub left: bool,
    /// Whether it takes the white space after it.
    pub right: bool,
}

/// A vocabulary, independent of the file it came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// What the other fields mean.
    pub model: TokenizerModel,
    /// Token text by id: in the byte-level alphabet, or with U+2581 for spaces (control tokens
    /// verbatim).
    pub tokens: Vec<String>,
    /// Kind of each token, by id.
    pub kinds: Vec<TokenKind>,
    /// Score of each token, by id; empty where merges decide.
    pub scores: Vec<f32>,
    /// Pairs in order of rank: "left right"; empty where scores decide.
    pub merges: Vec<String>,
    /// llama.cpp's name of the pre-tokenizer: `smollm`, `gpt-2`, `llama-bpe`, `qwen2`, ... Empty but
    /// for byte-level BPE.
    pub pre: String,
    /// A word that is a token as a whole is taken as it is, without merging.
    pub ignore_merges: bool,
    /// tokenizer.json asks for NFC. Neither llama.cpp nor we normalise: the ids differ for text that
    /// is not in NFC already.
    pub nfc: bool,
    /// What is done to spaces; byte-level BPE leaves them alone.
    pub spaces: Spaces,
    /// Whether neighbouring characters without a token become one unknown token.
    pub fuse_unknown: bool,
    /// Markers that take white space around them.
    pub strips: Vec<Strip>,
    /// Id of the token that begins a text.
    pub bos: Option<u32>,
    /// Id of the token that ends a text.
    pub eos: Option<u32>,
    /// Other tokens that end a generation, as the files name them (end of turn first, then end of
    /// message); see [`Self::end_tokens`].
    pub ends: Vec<u32>,
    /// End of turn and end of message as a GGUF file has them, where these are not the first and the
    /// second of `ends`.
    pub turn_and_message: Option<[Option<u32>; 2]>,
    /// Id of the token that stands for what has no other.
    pub unknown: Option<u32>,
    /// Id of the token that fills up short sequences.
    pub padding: Option<u32>,
    /// Whether a text is encoded with `bos` before it.
    pub add_bos: bool,
    /// Whether a text is encoded with `eos` after it.
    pub add_eos: bool,
}

fn wrong(reason: String) -> Error {
    Error::Tokenizer { reason }
}

impl Vocabulary {
    /// The two halves of merge `rank`.
    pub(super) fn merge(&self, rank: usize) -> Result<(&str, &str)> {
        let merge = &self.merges[rank];
        // In the byte alphabet no token holds a space, so the one space is the separator.
        match merge.split_once(' ') {
            Some((left, right))
                if !left.is_empty() && !right.is_empty() && !right.contains(' ') =>
            {
                Ok((left, right))
            }
            _ => Err(wrong(format!(
                "merge {rank} is not two tokens with a space between: {:?}",
                shown(merge)
            ))),
        }
    }

    /// Id by token text.
    pub(super) fn ids(&self) -> HashMap<&str, u32> {
        self.tokens.iter().zip(0..).map(|(t, id)| (t.as_str(), id)).collect()
    }

    /// What it is called: the pre-tokenizer, or the kind of pieces.
    pub fn name(&self) -> &str {
        match self.model {
            TokenizerModel::ByteLevel => &self.pre,
            TokenizerModel::Merges | TokenizerModel::Scores => "sentencepiece",
            TokenizerModel::Unigram => "unigram",
        }
    }

    /// The scores under which a text is cut as the merges cut it, if there are any.
    pub fn scores_of_merges(&self) -> Result<Option<Vec<f32>>> {
        scores_of_merges(self)
    }

    /// Everything that must hold before a tokenizer is built. Errors are `Tokenizer`, naming token
    /// or merge; an unknown pre-tokenizer is `Unsupported`.
    pub fn validate(&self) -> Result<()> {
        if self.model == TokenizerModel::ByteLevel && pre::find(&self.pre).is_none() {
            let reason = format!("pre-tokenizers are {}", pre::names());
            return Err(Error::Unsupported {
                file: "tokenizer".into(),
                name: format!("pre-tokenizer {:?}", shown(&self.pre)),
                reason,
                offset: None,
            });
        }
        self.check_tokens()?;
        self.check_scores()?;
        self.check_merges()?;
        self.check_roles()
    }

    fn check_scores(&self) -> Result<()> {
        let scored = matches!(self.model, TokenizerModel::Scores | TokenizerModel::Unigram);
        if scored && self.scores.len() != self.tokens.len() {
            return Err(wrong(format!(
                "{} tokens but {} scores",
                self.tokens.len(),
                self.scores.len()
            )));
        }
        for (id, token) in self.tokens.iter().enumerate().filter(|_| scored) {
            if !self.kinds[id].is_text() {
                continue;
            }
            if !self.scores[id].is_finite() {
                return Err(wrong(format!("score of token {id} is {}", self.scores[id])));
            }
            if token.len() > MAX_PIECE_BYTES {
                return Err(wrong(format!(
                    "token {id} has {} bytes; one with a score has at most {MAX_PIECE_BYTES}",
                    token.len()
                )));
            }
        }
        Ok(())
    }

    fn check_tokens(&self) -> Result<()> {
        if self.tokens.is_empty() || self.tokens.len() > MAX_TOKENS {
            return Err(wrong(format!("{} tokens, expected 1 to {MAX_TOKENS}", self.tokens.len())));
        }
        if self.kinds.len() != self.tokens.len() {
            return Err(wrong(format!(
                "{} tokens but {} token types",
                self.tokens.len(),
                self.kinds.len()
            )));
        }
        let mut seen: HashMap<&str, usize> = HashMap::with_capacity(self.tokens.len());
        let (mut markers, mut marker_bytes) = (0, 0);
        for (id, (token, &kind)) in self.tokens.iter().zip(&self.kinds).enumerate() {
            if token.is_empty() {
                return Err(wrong(format!("token {id} is empty")));
            }
            if token.len() > MAX_TOKEN_BYTES {
                return Err(wrong(format!(
                    "token {id} has {} bytes, more than {MAX_TOKEN_BYTES}",
                    token.len()
                )));
            }
            if let Some(first) = seen.insert(token, id) {
                return Err(wrong(format!("tokens {first} and {id} are both {:?}", shown(token))));
            }
            if kind == TokenKind::Byte && byte_token(token).is_none() {
                return Err(wrong(format!(
                    "token {id} is of the byte type but not of the form <0x00> to <0xFF>: {:?}",
                    shown(token)
                )));
            }
            if kind.is_marker() && token.len() > MAX_MARKER_TOKEN_BYTES {
                return Err(wrong(format!(
                    "token {id} has {} bytes; one that is searched for in the text has at most \
                     {MAX_MARKER_TOKEN_BYTES}",
                    token.len()
                )));
            }
            if kind.is_marker() {
                (markers, marker_bytes) = (markers + 1, marker_bytes + token.len());
            }
        }
        if markers > MAX_MARKERS || marker_bytes > MAX_MARKER_BYTES {
            return Err(wrong(format!(
                "{markers} special tokens of {marker_bytes} bytes, more than {MAX_MARKERS} of \
                 {MAX_MARKER_BYTES}"
            )));
        }
        Ok(())
    }

    fn check_merges(&self) -> Result<()> {
        if self.merges.len() > MAX_TOKENS {
            return Err(wrong(format!("{} merges, more than {MAX_TOKENS}", self.merges.len())));
        }
        let ids = self.ids();
        let mergeable =
            |token: &str| ids.get(token).is_some_and(|&id| self.kinds[id as usize].is_mergeable());
        let mut seen = HashSet::with_capacity(self.merges.len());
        let mut whole = String::new();
        for rank in 0..self.merges.len() {
            let (left, right) = self.merge(rank)?;
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            for token in [left, right, whole.as_str()] {
                if !mergeable(token) {
                    return Err(wrong(format!(
                        "merge {rank} needs the token {:?}, which is not in the vocabulary",
                        shown(token)
                    )));
                }
            }
            if !seen.insert(self.merges[rank].as_str()) {
                return Err(wrong(format!(
                    "merge {rank} appears twice: {:?}",
                    shown(&self.merges[rank])
                )));
            }
        }
        Ok(())
    }

    fn check_roles(&self) -> Result<()> {
        let ends = self.turn_and_message.iter().flatten().flatten().chain(&self.ends);
        let ends = ends.map(|&id| ("end", Some(id)));
        let strips = self.strips.iter().map(|strip| ("stripping", Some(strip.id)));
        let roles = [
            ("bos", self.bos),
            ("eos", self.eos),
            ("unknown", self.unknown),
            ("padding", self.padding),
        ];
        for (role, id) in roles.into_iter().chain(ends).chain(strips) {
            if let Some(id) = id.filter(|&id| id as usize >= self.tokens.len()) {
                return Err(wrong(format!(
                    "{role} token is {id}, but there are {} tokens",
                    self.tokens.len()
                )));
            }
        }
        for (role, add, id) in [("bos", self.add_bos, self.bos), ("eos", self.add_eos, self.eos)] {
            if add && id.is_none() {
                return Err(wrong(format!("a {role} token is to be added but none is named")));
            }
        }
        Ok(())
    }
}

/// Returns the byte that a token like `<0x0A>` represents.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    // from_str_radix would take a sign.
    (hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u8::from_str_radix(hex, 16).ok())?
}

/// The start of a text, short enough for a message.
pub(super) fn shown(text: &str) -> &str {
    let mut end = text.len().min(80);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
