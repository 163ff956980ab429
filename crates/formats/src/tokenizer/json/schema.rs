//! tokenizer.json and tokenizer_config.json as types: only what we read, with a cap on every list.

use crate::tokenizer::vocabulary::MAX_TOKENS;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Formatter;
use std::marker::PhantomData;

/// Steps of a pre-tokenizer or post-processor, entries of a template.
pub const MAX_STEPS: usize = 64;

#[derive(Deserialize)]
pub struct File {
    #[serde(default)]
    pub added_tokens: Capped<AddedToken>,
    #[serde(default)]
    pub normalizer: Option<Step>,
    #[serde(default)]
    pub pre_tokenizer: Option<Step>,
    #[serde(default)]
    pub post_processor: Option<Step>,
    #[serde(default)]
    pub decoder: Option<Step>,
    pub model: Bpe,
}

#[derive(Default, Deserialize, Serialize)]
pub struct AddedToken {
    pub id: u32,
    pub content: String,
    #[serde(default)]
    pub single_word: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub normalized: bool,
    #[serde(default)]
    pub special: bool,
}

/// A normalizer, pre-tokenizer, post-processor or decoder: the fields of all that we know, of which
/// each has some.
#[derive(Default, Deserialize)]
pub struct Step {
    pub r#type: String,
    #[serde(default)]
    pub pretokenizers: Capped<Step, MAX_STEPS>,
    #[serde(default)]
    pub processors: Capped<Step, MAX_STEPS>,
    #[serde(default)]
    pub normalizers: Capped<Step, MAX_STEPS>,
    #[serde(default)]
    pub decoders: Capped<Step, MAX_STEPS>,
    pub content: Option<String>,
    pub prepend: Option<String>,
    pub replacement: Option<String>,
    pub prepend_scheme: Option<String>,
    pub split: Option<bool>,
    pub add_prefix_space: Option<bool>,
    pub use_regex: Option<bool>,
    pub individual_digits: Option<bool>,
    pub pattern: Option<Pattern>,
    pub behavior: Option<String>,
    pub invert: Option<bool>,
    #[serde(default)]
    pub single: Capped<Piece, MAX_STEPS>,
    pub special_tokens: Option<HashMap<String, SpecialToken>>,
    pub halfstep: Option<Roles>,
}

#[derive(Deserialize)]
pub enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Deserialize)]
pub enum Piece {
    Sequence { id: String },
    SpecialToken { id: String },
}

#[derive(Deserialize)]
pub struct SpecialToken {
    #[serde(default)]
    pub ids: Capped<u32, MAX_STEPS>,
}

#[derive(Default, Deserialize)]
pub struct Bpe {
    pub r#type: Option<String>,
    pub dropout: Option<f64>,
    pub unk_token: Option<String>,
    pub unk_id: Option<u32>,
    #[serde(default)]
    pub fuse_unk: bool,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub byte_fallback: bool,
    #[serde(default)]
    pub ignore_merges: bool,
    pub vocab: Entries,
    #[serde(default)]
    pub merges: Capped<Merge>,
}

/// What we add to the file.
#[derive(Deserialize, Serialize)]
pub struct Roles {
    pub pre: String,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<u32>,
    /// Where scores decide what merges; the merges of the file say the same as well as they can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<f32>,
    /// Pairs of id and ggml type, for the types that added_tokens cannot express.
    pub kinds: Vec<(u32, u8)>,
}

/// `"a b"` or `["a", "b"]`, kept as the former.
pub struct Merge(pub String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = String;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("a merge, \"left right\" or [\"left\", \"right\"]")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
                Ok(text.to_string())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<String, A::Error> {
                let mut half = |n: usize| {
                    seq.next_element::<String>()?.ok_or_else(|| A::Error::invalid_length(n, &self))
                };
                let (left, right) = (half(0)?, half(1)?);
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(format!("{left} {right}")),
                    Some(_) => Err(A::Error::invalid_length(3, &self)),
                }
            }
        }
        deserializer.deserialize_any(Pair).map(Merge)
    }
}

/// A list of at most `MAX` elements; null is an empty one.
pub struct Capped<T, const MAX: usize = MAX_TOKENS>(pub Vec<T>);

impl<T, const MAX: usize> Default for Capped<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Capped<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CappedVisitor::<T, MAX>(PhantomData)).map(Capped)
    }
}

struct CappedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for CappedVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list of at most {MAX}")
    }
    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

/// The object `{"token": id}`, every entry kept, so that a repeated one is found; or, of other
/// model types, a list of `["token", score]`, whose places are the ids.
#[derive(Default)]
pub struct Entries {
    pub ids: Vec<(String, u32)>,
    pub scores: Vec<f32>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "an object of at most {MAX_TOKENS} token ids, or a list of tokens with scores")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while let Some(entry) = map.next_entry::<String, u32>()? {
            if entries.ids.len() == MAX_TOKENS {
                return Err(A::Error::invalid_length(MAX_TOKENS + 1, &self));
            }
            entries.ids.push(entry);
        }
        Ok(entries)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while let Some((token, score)) = seq.next_element::<(String, f64)>()? {
            if entries.ids.len() == MAX_TOKENS {
                return Err(A::Error::invalid_length(MAX_TOKENS + 1, &self));
            }
            entries.ids.push((token, entries.scores.len() as u32));
            entries.scores.push(score as f32);
        }
        Ok(entries)
    }
}

/// Tokens as that object.
pub struct ById<'v>(pub &'v [String]);

impl Serialize for ById<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in self.0.iter().enumerate() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

/// The keys of tokenizer_config.json that we read. A token is a string or an object with its
/// `content`.
#[derive(Deserialize, Default)]
pub struct Config {
    pub bos_token: Option<TokenName>,
    pub eos_token: Option<TokenName>,
    pub unk_token: Option<TokenName>,
    pub pad_token: Option<TokenName>,
    pub add_bos_token: Option<bool>,
    pub add_eos_token: Option<bool>,
}

/// What stands in for the sections of a tokenizer.json where there is none.
#[derive(Deserialize, Default)]
pub struct SlowConfig {
    pub tokenizer_class: Option<String>,
    pub add_prefix_space: Option<bool>,
    pub added_tokens_decoder: Option<BTreeMap<String, DecodedToken>>,
}

/// An entry of `added_tokens_decoder`, which is an [`AddedToken`] without its id.
#[derive(Deserialize)]
pub struct DecodedToken {
    pub content: String,
    #[serde(default)]
    pub single_word: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub special: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum TokenName {
    Text(String),
    Object { content: String },
}

impl TokenName {
    pub fn text(&self) -> &str {
        match self {
            TokenName::Text(text) | TokenName::Object { content: text } => text,
        }
    }
}
