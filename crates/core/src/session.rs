//! The surface that the bindings forward to: configs in, models, reports and events out. Nothing here knows napi or wasm-bindgen.

pub use crate::config::parse_config;
use crate::data::Text;
use crate::error::{Error, Result};
use crate::evaluation::EvaluationRun;
use crate::event::{EvaluationRecord, Event};
use crate::generation::GenerationRun;
use crate::recipe::{Recipe, StartRule, WeightSite};
use crate::recipes::RecipeConfig;
use crate::rtn;
use crate::targets::TargetId;
use halfstep_formats::template::Message;
use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_kernels::{ActivationQuantizer, CacheQuantizer, Pool};
use halfstep_runtime::clock::Clock;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network, score};
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

/// Reads a model from a file or folder.
pub fn load(path: &str) -> Result<Arc<Model>> {
    Ok(Arc::new(halfstep_formats::load::load(Path::new(path))?))
}

/// Quantizes (and, if the recipe says so, trains). Cancelling during training writes a checkpoint when there is a run folder.
pub fn quantize(model: &Model, recipe: &RecipeConfig, run: &RunConfig, events: &mut dyn FnMut(Event), cancel: &Cancel) -> Result<(Model, Report)> {
    let recipe = recipe.resolve()?;
    rtn::check_shapes(&model.architecture, &recipe)?;
    let pool = Pool::new(run.threads);
    let validation = Validation::read(model, &recipe, run, &pool)?;
    let start = Clock::start();
    let trained = match &recipe.training {
        Some(_) => train(model, &recipe, run, events, cancel, &pool)?,
        None => Trained { model: rtn::quantize_model(model, &recipe, &pool)?, steps: 0, tokens: 0, seconds: start.seconds(), final_loss: None, data: None },
    };
    let mut small = trained.model;
    let evaluations = match validation {
        Some(validation) => validation.measure(model, &small, events, cancel, &pool)?,
        None => BTreeMap::new(),
    };
    small.provenance = provenance(model, &recipe, trained.data.as_deref(), &evaluations);
    let report = Report {
        recipe: recipe.id.clone(),
        target: recipe.target.name().into(),
        bits_per_weight: rtn::bits_per_weight(&small),
        steps: trained.steps,
        tokens: trained.tokens,
        seconds: trained.seconds,
        tokens_per_second: trained.tokens as f64 / trained.seconds.max(1e-9),
        final_loss: trained.final_loss,
        memory_bytes: peak_memory_bytes(),
        evaluations,
        client_flags: client_flags(&recipe),
    };
    Ok((small, report))
}

struct Trained {
    model: Model,
    steps: u64,
    tokens: u64,
    seconds: f64,
    final_loss: Option<f64>,
    /// Hash of the training text.
    data: Option<String>,
}

#[cfg(feature = "train")]
fn train(model: &Model, recipe: &Recipe, run: &RunConfig, events: &mut dyn FnMut(Event), cancel: &Cancel, pool: &Pool) -> Result<Trained> {
    let text = Text::read(run.data.as_deref(), run.text.as_deref(), run.skip_characters)?;
    let text = text.ok_or_else(|| Error::config("data", format!("{} trains: give a text file to train on", recipe.id)))?;
    let t = crate::train::run::train(model, recipe, run, &text, events, cancel, pool)?;
    let final_loss = t.final_loss.is_finite().then_some(t.final_loss);
    Ok(Trained { model: t.model, steps: t.steps, tokens: t.tokens, seconds: t.seconds, final_loss, data: Some(text.hash()) })
}

#[cfg(not(feature = "train"))]
fn train(_: &Model, recipe: &Recipe, _: &RunConfig, _: &mut dyn FnMut(Event), _: &Cancel, _: &Pool) -> Result<Trained> {
    let reason = "this build does not train; use the native addon, or a recipe without training: rtn".to_owned();
    Err(Error::Format(halfstep_formats::Error::Unsupported { file: "halfstep".into(), name: recipe.id.clone(), reason }))
}

#[cfg(feature = "train")]
fn peak_memory_bytes() -> u64 {
    crate::train::memory::peak_bytes()
}

#[cfg(not(feature = "train"))]
fn peak_memory_bytes() -> u64 {
    0
}

/// Text on which a run is measured before and after.
struct Validation {
    tokens: Vec<u32>,
    window: usize,
    /// The same grid, rounded to nearest.
    rtn: Option<Model>,
}

impl Validation {
    fn read(model: &Model, recipe: &Recipe, run: &RunConfig, pool: &Pool) -> Result<Option<Self>> {
        let Some(text) = Text::read(run.validation.as_deref(), run.validation_text.as_deref(), 0)? else { return Ok(None) };
        let window = recipe.training.as_ref().map_or(512, |t| t.window).min(model.architecture.max_positions);
        let mut tokens = text.tokens(model, window)?;
        tokens.truncate(run.validation_tokens.unwrap_or(4096).max(window));
        // Static steps are calibrated by the trainer, so a grid with them has no untrained twin.
        let has_static = matches!(recipe.activation, ActivationQuantizer::Static { .. }) || matches!(recipe.cache, CacheQuantizer::Static { .. });
        let rtn = (recipe.training.is_some() && !has_static).then(|| {
            let mut recipe = recipe.clone();
            recipe.weights = recipe.weights.map(|w| WeightSite { start: StartRule::Best, ..w });
            rtn::quantize_model(model, &recipe, pool)
        });
        Ok(Some(Self { tokens, window, rtn: rtn.transpose()? }))
    }

    fn measure(
        &self,
        model: &Model,
        result: &Model,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
        pool: &Pool,
    ) -> Result<BTreeMap<String, EvaluationRecord>> {
        let fp = Network::new(model, Arithmetic::Float, pool.clone())?;
        let mut records = BTreeMap::new();
        let subjects = [("fp", None), ("rtn", self.rtn.as_ref()), ("result", Some(result))];
        for (subject, quantized) in subjects.into_iter().filter(|(s, q)| *s == "fp" || q.is_some()) {
            events(Event::Phase { name: "evaluate".into(), detail: subject.into() });
            let network = quantized.map(|m| Network::new(m, Arithmetic::Integer, pool.clone())).transpose()?;
            let (network, against) = network.as_ref().map_or((&fp, None), |n| (n, Some(&fp)));
            let evaluation = score::evaluate(network, against, &self.tokens, self.window, &mut |_, _| !cancel.is_cancelled())?;
            let record = EvaluationRecord::from(evaluation);
            events(Event::Eval { subject: subject.into(), evaluation: record.clone() });
            records.insert(subject.to_owned(), record);
        }
        Ok(records)
    }
}

/// What made the model, as strings for the file's metadata.
fn provenance(model: &Model, recipe: &Recipe, data: Option<&str>, evaluations: &BTreeMap<String, EvaluationRecord>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("source".to_owned(), model.name.clone()),
        ("recipe".to_owned(), serde_json::to_string(recipe).unwrap_or_default()),
    ]);
    if let Some(config) = &recipe.training {
        out.insert("seed".to_owned(), config.seed.to_string());
    }
    if let Some(data) = data {
        out.insert("data".to_owned(), format!("blake3:{data}"));
    }
    if !evaluations.is_empty() {
        out.insert("metrics".to_owned(), serde_json::to_string(evaluations).unwrap_or_default());
    }
    out
}

/// What llama.cpp must be told: the cache type is a flag of the client, not in the file.
fn client_flags(recipe: &Recipe) -> Vec<String> {
    match (recipe.target, recipe.cache) {
        (TargetId::Halfstep, _) => vec![],
        (_, CacheQuantizer::Q8_0) => vec!["--cache-type-k q8_0".into(), "--cache-type-v q8_0".into()],
        (_, CacheQuantizer::F32) => vec!["--cache-type-k f32".into(), "--cache-type-v f32".into()],
        _ => vec![],
    }
}

/// Perplexity, and KL and top-1 agreement against another model. `progress(done, total)` in tokens.
pub fn evaluate(
    model: &Model,
    against: Option<&Model>,
    config: &EvaluateConfig,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &Cancel,
) -> Result<EvaluationRecord> {
    let mut run = EvaluationRun::new(model, against, config)?;
    loop {
        let (done, total) = run.progress();
        progress(done, total);
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { resume: None });
        }
        if !run.step()? {
            return Ok(run.finish());
        }
    }
}

/// Generates; `on_text` gets each new piece of text as soon as whole characters are there.
pub fn generate(model: &Model, config: &GenerationConfig, on_text: &mut dyn FnMut(&str), cancel: &Cancel) -> Result<Generation> {
    let mut run = GenerationRun::new(model, config)?;
    while let Some(text) = run.step()? {
        if !text.is_empty() {
            on_text(&text);
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { resume: None });
        }
    }
    Ok(run.finish())
}

/// Token ids of `text`. `special`: special tokens in it are recognised, and begin and end tokens added if the model asks for them.
pub fn tokenize(model: &Model, text: &str, special: bool) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer.as_ref().ok_or_else(|| Error::Data { data: model.name.clone(), reason: "the model has no tokenizer".into() })?;
    Ok(tokenizer.encode(text, special)?)
}

/// Logits `[tokens, V]` of a sequence run from position 0, in the model's own arithmetic.
pub fn logits(model: &Model, tokens: &[u32]) -> Result<Vec<f32>> {
    let network = Network::new(model, Arithmetic::Auto, Pool::new(0))?;
    Ok(network.forward(tokens, &mut Cache::new(&network), Logits::All)?)
}

/// The model's values as a full-precision f32 model: blocks and codes decoded, nothing quantized any more.
pub fn dequantize(model: &Model, threads: usize) -> Model {
    let pool = Pool::new(threads);
    let tensors = model.tensors.iter().map(|(name, t)| (name.clone(), Tensor { shape: t.shape.clone(), data: TensorData::F32(t.to_f32(&pool)) }));
    Model { tensors: tensors.collect(), quantization: None, file_bytes: 0, ..model.clone() }
}

/// Writes a model: the format follows its target (or the path's ending, .gguf or .safetensors, for a float model). A quantized model passes the parity gate on the
/// re-opened file, or no file is kept.
pub fn save(model: &Model, path: &str) -> Result<SaveReport> {
    crate::export::save(model, Path::new(path), &Pool::new(0))
}

/// The bytes of the file that [`save`] would write to `path`; without a path, in the format of the model's target (GGUF for a float model).
pub fn to_bytes(model: &Model, path: Option<&str>) -> Result<(Vec<u8>, SaveReport)> {
    crate::export::to_bytes(model, path.map(Path::new), &Pool::new(0))
}

pub fn inspect(model: &Model) -> Inspection {
    let a = &model.architecture;
    let mut tensor_types = BTreeMap::new();
    let mut bytes = 0;
    for tensor in model.tensors.values() {
        *tensor_types.entry(rtn::type_name(tensor)).or_insert(0) += 1;
        bytes += rtn::stored_bytes(tensor);
    }
    Inspection {
        name: model.name.clone(),
        parameters: a.parameters(),
        file_bytes: model.file_bytes,
        bits_per_weight: 8.0 * bytes as f64 / a.parameters().max(1) as f64,
        vocab_size: a.vocab_size,
        hidden_size: a.hidden_size,
        intermediate_size: a.intermediate_size,
        layers: a.layers,
        heads: a.heads,
        kv_heads: a.kv_heads,
        head_dim: a.head_dim,
        max_positions: a.max_positions,
        tied_head: a.tied_head,
        tokenizer: model.tokenizer.as_ref().map(|t| t.vocabulary.pre.clone()),
        has_chat_template: model.chat_template.is_some(),
        target: model.quantization.as_ref().map(|q| q.target.clone()),
        tensor_types,
        provenance: model.provenance.clone(),
    }
}
