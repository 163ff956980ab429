//! Options of runs, evaluations and generations. Every field has a default; the TypeScript types
//! are generated from these.

use crate::data::Reading;
use halfstep_formats::template::Message;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use ts_rs::TS;

/// More threads than this are a mistake, and more than some systems start.
const MOST_THREADS: usize = 1024;

fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let threads = usize::deserialize(deserializer)?;
    if threads <= MOST_THREADS {
        return Ok(threads);
    }
    Err(D::Error::custom(format!("must be at most {MOST_THREADS}, got {threads}")))
}

/// Options of a run that are not part of the recipe. Every field has a default, but a recipe that
/// trains needs `data`, `text` or `selfGenerated`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct RunConfig {
    /// Path of the text to train on: UTF-8, or documents: a .jsonl or .ndjson file with an object in
    /// each line, or a .json file with an array of them. An object has a text in `text`, or a
    /// conversation in `messages` (objects with role and content), which the chat template of the
    /// model renders. Default: none; a recipe that trains needs one, or `selfGenerated`.
    pub data: Option<String>,
    /// Text to train on, instead of a path in `data`. Default: none.
    pub text: Option<String>,
    /// Number of tokens that the unquantized model (the teacher) generates to train on, instead of
    /// `data` or in addition to it (LLM-QAT, arXiv 2305.17888). They are kept in `runFolder` and
    /// used again from there. Default: given by the recipe; all but llm-qat generate none.
    pub self_generated: Option<usize>,
    /// Number of characters to skip at the beginning of the text, such as those that validation
    /// uses. Default 0.
    pub skip_characters: usize,
    /// Path of a text, or of documents as in `data`, that is never trained on; the model is measured
    /// on it before and after. Default: nothing is measured.
    pub validation: Option<String>,
    /// Text to measure on, instead of a path in `validation`. Default: none.
    pub validation_text: Option<String>,
    /// Number of tokens of the validation text to measure on. Default 4096.
    pub validation_tokens: Option<usize>,
    /// Whether the begin token is put before each sequence: `on`, `off` or `auto` (on if the
    /// tokenizer adds one to a text). It takes one position of each sequence and is never
    /// predicted. Default `auto`.
    pub bos: Switch,
    /// Whether special tokens that a text spells out are read as tokens: `on`, `off` (they are plain
    /// text) or `auto` (on for conversations only). Default `auto`.
    pub special: Switch,
    /// Learn from the answers of conversations only: what no assistant says is read, but not
    /// predicted. Stages that train layer by layer compare every position. Default false.
    pub answers_only: bool,
    /// Path that the result will be saved to, so that what would fail at the end is refused before
    /// the run starts: an ending that does not fit the target, a folder that cannot be written to, a
    /// file that is there already, the model itself. The run itself writes nothing there. Default:
    /// none.
    pub output: Option<String>,
    /// Let the output replace a file that is there, even one of the model that is quantized.
    /// Default false.
    pub overwrite: bool,
    /// Folder for checkpoints and finished layers, from which a stopped run can be resumed; one run
    /// at a time can use it. Default: none; on the command line the output with `.run` added.
    pub run_folder: Option<String>,
    /// Number of optimizer steps between two checkpoints; 0 writes none between the first step and
    /// the last. Finished layers and the state after the last step are always saved. Default: a
    /// checkpoint every ten minutes, less often where writing one takes more than six seconds.
    pub checkpoint_every: Option<u64>,
    /// Resume from the newest checkpoint or the last finished layer in `runFolder`, if there is
    /// one. Default false.
    pub resume: bool,
    /// Number of threads, at most 1024; 0 uses one per core. It never changes a result. Default 0.
    #[serde(deserialize_with = "threads")]
    pub threads: usize,
    /// Add a record of the run to the report: losses, statistics of every matrix, and the effect of
    /// quantizing each layer alone. Default false.
    pub record: bool,
}

impl RunConfig {
    /// How the texts of the run become tokens.
    pub(crate) fn reading(&self) -> Reading {
        Reading { bos: self.bos, special: self.special, answers_only: self.answers_only }
    }
}

/// Something that is on, off, or decided by what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Switch {
    /// Decided by the model and the text.
    #[default]
    Auto,
    /// On.
    On,
    /// Off.
    Off,
}

/// Options of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct EvaluateConfig {
    /// Path of the text to measure on: UTF-8, or documents: a .jsonl or .ndjson file with an object
    /// in each line, or a .json file with an array of them. An object has a text in `text`, or a
    /// conversation in `messages` (objects with role and content), which the chat template of the
    /// model renders. Default: none.
    pub data: Option<String>,
    /// Text to measure on, instead of a path in `data`. Default: none.
    pub text: Option<String>,
    /// Number of tokens to measure on, from the beginning of the text; 0 uses all of it. Default 0.
    pub tokens: usize,
    /// Number of tokens of each sequence that the text is cut into; each sequence is evaluated by
    /// itself. Default 512.
    pub sequence_length: usize,
    /// How the text is cut, and what is scored: `sequences` (every token of a sequence but its
    /// first) or `llama.cpp` (as the tool `llama-perplexity` does, for figures to compare with its
    /// own: the begin token takes the place of the first token of each sequence, the second half
    /// of each is scored, and tokens after the last whole sequence are left out). Default
    /// `sequences`.
    pub windows: WindowRule,
    /// Whether the begin token is put before each sequence: `on`, `off` or `auto` (on if the
    /// tokenizer adds one to a text). It takes one position of each sequence and is never
    /// predicted. Default `auto`.
    pub bos: Switch,
    /// Whether special tokens that a text spells out are read as tokens: `on`, `off` (they are plain
    /// text) or `auto` (on for conversations only). Default `auto`.
    pub special: Switch,
    /// Measure the answers of conversations only: what no assistant says is read, but not
    /// predicted. Default false.
    pub answers_only: bool,
    /// Arithmetic of the products: `integer` (on the codes of the quantized weights), `float` (on
    /// decoded weights, with nothing else quantized) or `auto` (integer for a quantized model).
    /// Default `auto`.
    pub arithmetic: ArithmeticConfig,
    /// Number of threads, at most 1024; 0 uses one per core. It never changes a result. Default 0.
    #[serde(deserialize_with = "threads")]
    pub threads: usize,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            data: None,
            text: None,
            tokens: 0,
            sequence_length: 512,
            windows: WindowRule::Sequences,
            bos: Switch::Auto,
            special: Switch::Auto,
            answers_only: false,
            arithmetic: ArithmeticConfig::Auto,
            threads: 0,
        }
    }
}

impl EvaluateConfig {
    /// How the text becomes tokens.
    pub(crate) fn reading(&self) -> Reading {
        Reading { bos: self.bos, special: self.special, answers_only: self.answers_only }
    }
}

/// How an evaluation cuts a text, and which tokens it scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum WindowRule {
    /// Every token of each sequence but its first.
    #[default]
    Sequences,
    /// The second half of each whole sequence, as llama.cpp's perplexity tool does.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
}

/// Arithmetic of the products with weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum ArithmeticConfig {
    /// Integer for a quantized model, otherwise float.
    #[default]
    Auto,
    /// On decoded weights in f32, with activations and cache in f32 too.
    Float,
    /// On the codes of the quantized weights; an error for a float model.
    Integer,
}

/// Options of a generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct GenerationConfig {
    /// Plain text to continue. Default: none.
    pub prompt: Option<String>,
    /// Conversation to continue, rendered by the chat template of the model, instead of `prompt`.
    /// Default: none.
    #[ts(as = "Option<Vec<ChatMessage>>")]
    pub messages: Option<Vec<Message>>,
    /// Largest number of new tokens. Default 128.
    pub max_tokens: usize,
    /// Temperature of the sampling, 0 or more; 0 always takes the most likely token. Default 0.
    pub temperature: f32,
    /// Sample from the k most likely tokens only; 0 samples from all. Default 0.
    pub top_k: usize,
    /// Sample from the smallest set of tokens whose probabilities reach this sum; 1 samples from
    /// all. Default 1.
    pub top_p: f32,
    /// Seed of the sampling; the same seed gives the same text. Default 0.
    #[ts(type = "number | bigint")]
    pub seed: u64,
    /// Number of threads, at most 1024; 0 uses one per core. It never changes a result. Default 0.
    #[serde(deserialize_with = "threads")]
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
    /// Role of the speaker: `system`, `user`, `assistant` or another that the chat template has.
    pub role: String,
    /// Text of the turn.
    pub content: String,
}
