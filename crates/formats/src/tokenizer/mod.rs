//! Text to token ids and back. One description (`Vocabulary`), read from tokenizer.json or from GGUF metadata; encoding by the `tokenizers` crate.

use crate::error::Result;

/// What a token is, with ggml's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A byte-level BPE vocabulary, independent of the file it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// Token text by id, in the byte-level alphabet (control tokens verbatim).
    pub tokens: Vec<String>,
    pub kinds: Vec<TokenKind>,
    /// Pairs in order of rank: "left right".
    pub merges: Vec<String>,
    /// llama.cpp's name of the pre-tokenizer: `smollm`, `gpt-2`, `llama-bpe`, `qwen2`, ...
    pub pre: String,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
}

/// A vocabulary ready to encode and decode. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    pub vocabulary: std::sync::Arc<Vocabulary>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens, {})", self.vocabulary.tokens.len(), self.vocabulary.pre)
    }
}

impl Tokenizer {
    pub fn new(_vocabulary: Vocabulary) -> Result<Self> {
        todo!()
    }
    /// From the bytes of a tokenizer.json (and, if there is one, tokenizer_config.json).
    pub fn from_json(_file: &str, _tokenizer_json: &[u8], _tokenizer_config: Option<&[u8]>) -> Result<Self> {
        todo!()
    }
    /// A tokenizer.json that `from_json` reads back equal.
    pub fn to_json(&self) -> String {
        todo!()
    }
    /// Ids of `text`. `special`: special tokens in the text are recognised, and bos/eos are added if the model asks for them; without it the text is plain.
    pub fn encode(&self, _text: &str, _special: bool) -> Result<Vec<u32>> {
        todo!()
    }
    pub fn decode(&self, _ids: &[u32], _skip_special: bool) -> Result<String> {
        todo!()
    }
    /// A decoder for streaming: give it ids one by one, it gives text as soon as whole UTF-8 characters are there.
    pub fn stream(&self) -> TokenStream {
        todo!()
    }
}

pub struct TokenStream {}

impl TokenStream {
    pub fn push(&mut self, _id: u32) -> String {
        todo!()
    }
    /// What was held back at the end.
    pub fn finish(self) -> String {
        todo!()
    }
}
