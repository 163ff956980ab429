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
    /// Path of the text to train on: UTF-8, or .jsonl with a document in the field `text` of each
    /// line. Default: none; a recipe that trains needs one, or `selfGenerated`.
    pub data: Option<String>,
    /// The text to train on itself, instead of `data`. Default: none.
    pub text: Option<String>,
    /// Tokens that the unquantized model generates to train on, instead of `data` or beside it
    /// (LLM-QAT, arXiv 2305.17888). They are kept in `runFolder` and read from there again.
    /// Default: given by the recipe; all but llm-qat generate none.
    pub self_generated: Option<usize>,
    /// Characters to leave out at the beginning of the text, such as those kept for measuring.
    /// Default 0.
    pub skip_characters: usize,
    /// Path of a text (or .jsonl file) that is never trained on, to measure the model on before and
    /// after. Default: nothing is measured.
    pub validation: Option<String>,
    /// The text to measure on itself, instead of `validation`. Default: none.
    pub validation_text: Option<String>,
    /// Tokens of the validation text to measure on. Default 4096.
    pub validation_tokens: Option<usize>,
    /// Where the result will be saved: an ending that does not fit the target is refused before
    /// anything is done. The run itself writes nothing there. Default: none.
    pub output: Option<String>,
    /// Folder for checkpoints and finished layers, from which a stopped run goes on. Default: none;
    /// on the command line the output with `.run`.
    pub run_folder: Option<String>,
    /// Optimizer steps between two checkpoints; finished layers are always kept. Default: a
    /// checkpoint is written only when the run is interrupted.
    pub checkpoint_every: Option<u64>,
    /// Go on from the newest checkpoint or the last finished layer in `runFolder`, if there is one.
    /// Default false.
    pub resume: bool,
    /// Number of threads; 0 is one per core. It never changes a result. Default 0.
    pub threads: usize,
    /// Add a record of the run to the report: losses, matrices, what each layer changes. Default
    /// false.
    pub record: bool,
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct EvaluateConfig {
    /// Path of the text to measure on: UTF-8, or .jsonl with a document in the field `text` of each
    /// line. Default: none.
    pub data: Option<String>,
    /// The text to measure on itself, instead of `data`. Default: none.
    pub text: Option<String>,
    /// Tokens to measure on, from the beginning of the text; 0 is all of it. Default 0.
    pub tokens: usize,
    /// Tokens of each sequence that the text is cut into; each is run by itself. Default 512.
    pub sequence_length: usize,
    /// What to compute in: `integer` (quantized weights as they are), `float` (weights decoded,
    /// nothing else quantized) or `auto` (integer for a quantized model). Default `auto`.
    pub arithmetic: ArithmeticConfig,
    /// Number of threads; 0 is one per core. It never changes a result. Default 0.
    pub threads: usize,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            data: None,
            text: None,
            tokens: 0,
            sequence_length: 512,
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
    /// Plain text to continue. Default: none.
    pub prompt: Option<String>,
    /// A conversation, rendered by the chat template of the model, instead of `prompt`. Default:
    /// none.
    #[ts(as = "Option<Vec<ChatMessage>>")]
    pub messages: Option<Vec<Message>>,
    /// Greatest number of new tokens. Default 128.
    pub max_tokens: usize,
    /// Temperature of the sampling, 0 or more; 0 always takes the likeliest token. Default 0.
    pub temperature: f32,
    /// Sample from the k likeliest tokens only; 0 samples from all. Default 0.
    pub top_k: usize,
    /// Sample from the smallest set of tokens whose probabilities reach this sum; 1 samples from
    /// all. Default 1.
    pub top_p: f32,
    /// Number that decides what is sampled; the same seed gives the same text. Default 0.
    pub seed: u64,
    /// Number of threads; 0 is one per core. It never changes a result. Default 0.
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
