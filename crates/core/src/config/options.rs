//! What a caller may ask: every field has a default, and the TypeScript types are made from these.

use halfstep_formats::template::Message;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// How a run is carried out, apart from the recipe. Every field has a default, but a recipe that
/// trains needs `data`, `text` or `selfGenerated`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct RunConfig {
    /// Path of a UTF-8 text file to train on; one that ends in .jsonl holds an object a line, each
    /// with a document in its field `text`.
    pub data: Option<String>,
    /// The text itself, instead of `data`.
    pub text: Option<String>,
    /// Tokens that the unquantized model generates to train on, instead of `data` or beside it
    /// (LLM-QAT, arXiv 2305.17888). They are kept in `runFolder`, and read from there again.
    /// Default: what the recipe says; most want a text.
    pub self_generated: Option<usize>,
    /// Characters of the text to leave out at its beginning (kept for reporting). Default 0.
    pub skip_characters: usize,
    /// Path of a UTF-8 text or .jsonl file to measure on, before and after. Never trained on.
    pub validation: Option<String>,
    /// The validation text itself, instead of `validation`.
    pub validation_text: Option<String>,
    /// Tokens of the validation text to measure on. Default 4096.
    pub validation_tokens: Option<usize>,
    /// Where the result will be saved: an ending that the target is not written with is refused
    /// before anything is done. Nothing is written there by the run.
    pub output: Option<String>,
    /// Folder for checkpoints and finished blocks. Default: none are written.
    pub run_folder: Option<String>,
    /// Optimizer steps between checkpoints. Default: only when the run is stopped. A finished block
    /// is written always.
    pub checkpoint_every: Option<u64>,
    /// Go on from the finished blocks or the newest checkpoint in `runFolder`, if there are any.
    pub resume: bool,
    /// Worker threads; 0 is one per core. The number never changes a result. Default 0.
    pub threads: usize,
    /// Give the report a record of the run: losses, matrices, what each block changes. Default
    /// false.
    pub record: bool,
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct EvaluateConfig {
    /// Path of a UTF-8 text or .jsonl file.
    pub data: Option<String>,
    /// The text itself, instead of `data`.
    pub text: Option<String>,
    /// Token ids to use, from the beginning of the text; 0 is all. Default 0.
    pub tokens: usize,
    /// Tokens of a window; each is run alone from position 0. Default 512.
    pub window: usize,
    /// `auto` (default): integer arithmetic for a quantized model; `float`: weights decoded,
    /// nothing else quantized; `integer`.
    pub arithmetic: ArithmeticConfig,
    /// Worker threads; 0 is one per core.
    pub threads: usize,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            data: None,
            text: None,
            tokens: 0,
            window: 512,
            arithmetic: ArithmeticConfig::Auto,
            threads: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum ArithmeticConfig {
    #[default]
    Auto,
    Float,
    Integer,
}

/// What to generate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct GenerationConfig {
    /// Plain text to continue.
    pub prompt: Option<String>,
    /// A conversation, rendered by the model's chat template; instead of `prompt`.
    #[ts(as = "Option<Vec<ChatMessage>>")]
    pub messages: Option<Vec<Message>>,
    /// New tokens at most. Default 128.
    pub max_tokens: usize,
    /// 0 (default) is greedy.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 (default) keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens whose probabilities reach this; 1 (default) keeps all.
    pub top_p: f32,
    /// Same seed, same text. Default 0.
    pub seed: u64,
    /// Worker threads; 0 is one per core.
    pub threads: usize,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            prompt: None,
            messages: None,
            max_tokens: 128,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
            threads: 0,
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
}
