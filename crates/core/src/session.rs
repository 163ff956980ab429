//! The surface that the bindings forward to: configs in, models, reports and events out. Nothing here knows napi or wasm-bindgen.

use crate::error::{Error, Result, nearest};
use crate::event::{EvaluationRecord, Event};
use crate::recipes::RecipeConfig;
use halfstep_formats::Model;
use halfstep_formats::template::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use ts_rs::TS;

/// A flag that ends a run within one micro-step. Cheap to clone; all clones are one flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a run is carried out, apart from the recipe. Every field has a default, but a recipe that trains needs `data` or `text`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct RunConfig {
    /// Path of a UTF-8 text file to train on.
    pub data: Option<String>,
    /// The text itself, instead of `data`.
    pub text: Option<String>,
    /// Characters of the text to leave out at its beginning (kept for reporting). Default 0.
    pub skip_characters: usize,
    /// Path of a UTF-8 text file to measure on, before and after. Never trained on.
    pub validation: Option<String>,
    /// The validation text itself, instead of `validation`.
    pub validation_text: Option<String>,
    /// Tokens of the validation text to measure on. Default 4096.
    pub validation_tokens: Option<usize>,
    /// Folder for checkpoints. Default: none are written.
    pub run_folder: Option<String>,
    /// Optimizer steps between checkpoints. Default: only when the run is stopped.
    pub checkpoint_every: Option<u64>,
    /// Go on from the newest checkpoint in `runFolder`, if there is one.
    pub resume: bool,
    /// Worker threads; 0 is one per core. The number never changes a result. Default 0.
    pub threads: usize,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub recipe: String,
    pub target: String,
    /// Stored bits of the block linears, scales included, per weight.
    pub bits_per_weight: f64,
    /// Optimizer steps; 0 without training.
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
    pub tokens_per_second: f64,
    /// Loss of the last step; null without training.
    pub final_loss: Option<f64>,
    /// Peak resident memory in bytes; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// On the validation text, if there is one: full precision, round to nearest on the same grid, and the result.
    pub evaluations: BTreeMap<String, EvaluationRecord>,
    /// Flags the client needs to run the file as it was trained, e.g. the cache type.
    pub client_flags: Vec<String>,
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct EvaluateConfig {
    /// Path of a UTF-8 text file.
    pub data: Option<String>,
    /// The text itself, instead of `data`.
    pub text: Option<String>,
    /// Token ids to use, from the beginning of the text; 0 is all. Default 0.
    pub tokens: usize,
    /// Tokens of a window; each is run alone from position 0. Default 512.
    pub window: usize,
    /// `auto` (default): integer arithmetic for a quantized model; `float`: weights decoded, nothing else quantized; `integer`.
    pub arithmetic: ArithmeticConfig,
    /// Worker threads; 0 is one per core.
    pub threads: usize,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { data: None, text: None, tokens: 0, window: 512, arithmetic: ArithmeticConfig::Auto, threads: 0 }
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
        Self { prompt: None, messages: None, max_tokens: 128, temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, threads: 0 }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
}

/// A generation, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    pub text: String,
    pub tokens: Vec<u32>,
    pub prompt_tokens: usize,
    pub tokens_per_second: f64,
}

/// What stands in a model: for `halfstep inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    pub name: String,
    pub parameters: usize,
    pub file_bytes: u64,
    /// All stored weight bits over all parameters.
    pub bits_per_weight: f64,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub max_positions: usize,
    pub tied_head: bool,
    pub tokenizer: Option<String>,
    pub has_chat_template: bool,
    /// Target of a quantized model, null for a float one.
    pub target: Option<String>,
    /// Storage type -> number of tensors.
    pub tensor_types: BTreeMap<String, usize>,
    pub provenance: BTreeMap<String, String>,
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct SaveReport {
    pub path: String,
    pub bytes: u64,
    /// Codes, scales and outputs of the re-opened file were compared with the model in memory and are equal.
    pub parity: bool,
}

/// Parses a config, naming an unknown or wrong field as the user wrote it and the nearest known one.
pub fn parse_config<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| config_error(&e.to_string()))
}

fn config_error(message: &str) -> Error {
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let message = message.split(" at line ").next().unwrap_or(message);
    let names = quoted(message);
    if let Some((field, known)) = names.split_first()
        && (message.starts_with("unknown field") || message.starts_with("unknown variant"))
    {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = nearest(field, &known).map(|k| format!("; did you mean {k}?")).unwrap_or_default();
        let what = if message.starts_with("unknown field") { "unknown option" } else { "unknown value" };
        return Error::config(field.clone(), format!("{what}{hint} Known: {}", known.join(", ")));
    }
    Error::config("config", message)
}

/// Reads a model from a file or folder.
pub fn load(path: &str) -> Result<Arc<Model>> {
    Ok(Arc::new(halfstep_formats::load::load(Path::new(path))?))
}

/// Quantizes (and, if the recipe says so, trains). Cancelling during training writes a checkpoint when there is a run folder.
pub fn quantize(_model: &Model, _recipe: &RecipeConfig, _run: &RunConfig, _events: &mut dyn FnMut(Event), _cancel: &Cancel) -> Result<(Model, Report)> {
    todo!()
}

/// Perplexity, and KL and top-1 agreement against another model. `progress(done, total)` in tokens.
pub fn evaluate(
    _model: &Model,
    _against: Option<&Model>,
    _config: &EvaluateConfig,
    _progress: &mut dyn FnMut(usize, usize),
    _cancel: &Cancel,
) -> Result<EvaluationRecord> {
    todo!()
}

/// Generates; `on_text` gets each new piece of text as soon as whole characters are there.
pub fn generate(_model: &Model, _config: &GenerationConfig, _on_text: &mut dyn FnMut(&str), _cancel: &Cancel) -> Result<Generation> {
    todo!()
}

/// Writes a model: the format follows its target (or the path's ending, .gguf or .safetensors, for a float model). A quantized model passes the parity gate on the
/// re-opened file, or no file is kept.
pub fn save(_model: &Model, _path: &str) -> Result<SaveReport> {
    todo!()
}

pub fn inspect(_model: &Model) -> Inspection {
    todo!()
}
