//! The surface that the bindings forward to: configs in, models, reports and events out. Nothing
//! here knows napi or wasm-bindgen.

mod configs;
#[cfg(feature = "train")]
mod plan;
mod record;
mod reports;
mod validation;

pub use crate::config::parse_config;
use crate::error::{Error, Result};
use crate::evaluation::EvaluationRun;
use crate::event::{EvaluationRecord, Event};
use crate::generation::GenerationRun;
pub use crate::generation::generate_all;
use crate::recipe::{Recipe, Stage};
use crate::recipes::RecipeConfig;
use crate::record::StageRecord;
use crate::rtn;
use crate::targets::TargetId;
#[cfg(feature = "train")]
use crate::train::self_generated::training_text;
pub use configs::{ArithmeticConfig, ChatMessage, EvaluateConfig, GenerationConfig, RunConfig};
use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_kernels::{CacheQuantizer, CodeRange, Partition, Pool};
use halfstep_runtime::clock::Clock;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
#[cfg(feature = "train")]
pub use plan::{Plan, PlanStage, plan};
pub use reports::{Generation, Inspection, Report, SaveReport};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use validation::{BlockParts, Validation};

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

/// A model and, once it has been run, the network made of it: its weights are prepacked once, not
/// for every generation.
pub struct Loaded {
    model: Model,
    network: Mutex<Option<(usize, Arc<Network>)>>,
}

impl From<Model> for Loaded {
    fn from(model: Model) -> Self {
        Self { model, network: Mutex::new(None) }
    }
}

impl Deref for Loaded {
    type Target = Model;
    fn deref(&self) -> &Model {
        &self.model
    }
}

impl Loaded {
    /// The network in the model's own arithmetic; kept for the number of threads last asked for.
    pub fn network(&self, threads: usize) -> Result<Arc<Network>> {
        let mut kept = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, network)) = kept.as_ref().filter(|(for_threads, _)| *for_threads == threads)
        {
            return Ok(network.clone());
        }
        // The old one goes first: two would need twice the memory.
        *kept = None;
        let network = Arc::new(Network::new(&self.model, Arithmetic::Auto, Pool::new(threads))?);
        *kept = Some((threads, network.clone()));
        Ok(network)
    }
}

/// Reads a model from a file or folder.
pub fn load(path: &str) -> Result<Arc<Loaded>> {
    Ok(Arc::new(halfstep_formats::load::load(Path::new(path))?.into()))
}

/// Quantizes (and, if the recipe says so, trains). Cancelling during training or the measurement
/// after it writes a checkpoint when there is a run folder.
pub fn quantize(
    model: &Model,
    recipe: &RecipeConfig,
    run: &RunConfig,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<(Model, Report)> {
    quantize_as(model, &recipe.resolve()?, run, events, cancel)
}

/// [`quantize`] by a recipe that need not be one of the built-in ones.
pub fn quantize_as(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<(Model, Report)> {
    check(model, recipe, run)?;
    if model.provenance.contains_key("recipe") {
        let message = format!(
            "{} was quantized before; what it is now is taken for the unquantized model",
            model.name
        );
        events(Event::Warning { message });
    }
    // What is rounded and measured against is what the model means, low-rank factors included.
    let merged = (!model.low_rank.is_empty()).then(|| dequantize(model, run.threads));
    let model = merged.as_ref().unwrap_or(model);
    let pool = Pool::new(run.threads);
    let validation = Validation::read(model, recipe, run)?;
    let mut parts = BlockParts::default();
    let mut measure = |small: &Model, events: &mut dyn FnMut(Event)| {
        let Some(validation) = &validation else { return Ok(Evaluations::new()) };
        let evaluations = validation.measure(model, small, recipe, events, cancel, &pool)?;
        if run.record {
            parts = validation.blocks(
                model,
                small,
                model.architecture.layers,
                events,
                cancel,
                &pool,
            )?;
        }
        Ok(evaluations)
    };
    let mut trained = match recipe.stages[..] {
        [] => round(model, recipe, &mut measure, events, cancel, &pool)?,
        _ => train(model, recipe, run, &mut measure, events, cancel, &pool)?,
    };
    trained.model.provenance =
        provenance(model, recipe, trained.data.as_deref(), &trained.evaluations);
    let record = if run.record {
        Some(record::of(model, recipe, &trained, parts, cancel, &pool)?)
    } else {
        None
    };
    let report = Report {
        recipe: recipe.id.clone(),
        target: recipe.target.name().into(),
        bits_per_weight: rtn::bits_per_weight(&trained.model),
        steps: trained.steps,
        tokens: trained.tokens,
        seconds: trained.seconds,
        tokens_per_second: trained.tokens_per_second,
        final_loss: trained.final_loss,
        memory_bytes: peak_memory_bytes(),
        evaluations: trained.evaluations,
        client_flags: client_flags(recipe),
        record,
    };
    Ok((trained.model, report))
}

/// By subject: `fp`, `rtn`, `result`.
pub type Evaluations = BTreeMap<String, EvaluationRecord>;

/// What can be known to fail before anything is read or computed.
fn check(model: &Model, recipe: &Recipe, run: &RunConfig) -> Result<()> {
    rtn::check_shapes(&model.architecture, recipe)?;
    check_stages(recipe)?;
    if let Some(output) = &run.output {
        crate::export::check_ending(Some(recipe.target), Path::new(output)).map_err(
            |e| match e {
                Error::Config { reason, .. } => Error::config("output", reason),
                e => e,
            },
        )?;
    }
    let positions = model.architecture.max_positions;
    if let Some(window) = recipe.window().filter(|&w| w > positions) {
        return Err(Error::config(
            "train.window",
            format!("{window} tokens are more than the model's {positions} positions"),
        ));
    }
    if run.resume || run.checkpoint_every.is_some() {
        let field = if run.resume { "resume" } else { "checkpointEvery" };
        if recipe.stages.is_empty() {
            return Err(Error::config(field, "rounding has no steps to keep or to go on from"));
        }
        if run.run_folder.is_none() {
            return Err(Error::config(field, "there is no runFolder to find checkpoints in"));
        }
    }
    Ok(())
}

/// Refuses stages that do not go together, which no built-in recipe has.
fn check_stages(recipe: &Recipe) -> Result<()> {
    let mut low_rank = false;
    for stage in &recipe.stages {
        match stage {
            Stage::Block { config } => {
                let affine = recipe.weights.is_some_and(|w| {
                    w.quantizer.grid.range == CodeRange::Affine
                        && w.quantizer.partition != Partition::Tensor
                });
                if config.solver.is_none() && !affine {
                    return Err(Error::config(
                        "stages",
                        "blocks are trained on grids with zero points per row or group",
                    ));
                }
                low_rank |= config.low_rank.is_some();
            }
            Stage::Model { .. } if low_rank => {
                return Err(Error::config(
                    "stages",
                    "low-rank factors of an earlier stage do not go through a model stage yet",
                ));
            }
            Stage::Model { .. } => {}
        }
    }
    Ok(())
}

/// What a recipe made.
struct Made {
    model: Model,
    evaluations: Evaluations,
    steps: u64,
    tokens: u64,
    seconds: f64,
    tokens_per_second: f64,
    final_loss: Option<f64>,
    /// Where the training text came from.
    data: Option<String>,
    stages: Vec<StageRecord>,
}

/// What is measured on the packed model, while a trainer's state can still be saved.
pub type Measure<'a> = dyn FnMut(&Model, &mut dyn FnMut(Event)) -> Result<Evaluations> + 'a;

/// Without training.
fn round(
    model: &Model,
    recipe: &Recipe,
    measure: &mut Measure,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
    pool: &Pool,
) -> Result<Made> {
    let start = Clock::start();
    let small = rtn::quantize_model(model, recipe, cancel, pool)?;
    let seconds = start.seconds();
    let evaluations = measure(&small, events)?;
    Ok(Made {
        model: small,
        evaluations,
        steps: 0,
        tokens: 0,
        seconds,
        tokens_per_second: 0.0,
        final_loss: None,
        data: None,
        stages: vec![],
    })
}

#[cfg(feature = "train")]
fn train(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    measure: &mut Measure,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
    pool: &Pool,
) -> Result<Made> {
    let text = training_text(model, recipe, run, events, cancel, pool)?;
    let t = crate::train::run::train(model, recipe, run, &text, measure, events, cancel, pool)?;
    Ok(Made {
        model: t.model,
        evaluations: t.evaluations,
        steps: t.steps,
        tokens: t.tokens,
        seconds: t.seconds,
        tokens_per_second: t.tokens_per_second,
        final_loss: t.final_loss.is_finite().then_some(t.final_loss),
        data: Some(text.origin()),
        stages: t.stages,
    })
}

#[cfg(not(feature = "train"))]
fn train(
    _: &Model,
    recipe: &Recipe,
    _: &RunConfig,
    _: &mut Measure,
    _: &mut dyn FnMut(Event),
    _: &Cancel,
    _: &Pool,
) -> Result<Made> {
    let reason =
        "this build does not train; use the native addon, or a recipe without training: rtn"
            .to_owned();
    Err(Error::Format(halfstep_formats::Error::Unsupported {
        file: "halfstep".into(),
        name: recipe.id.clone(),
        reason,
    }))
}

#[cfg(feature = "train")]
fn peak_memory_bytes() -> u64 {
    crate::train::memory::peak_bytes()
}

#[cfg(not(feature = "train"))]
fn peak_memory_bytes() -> u64 {
    0
}

/// What made the model, as strings for the file's metadata.
fn provenance(
    model: &Model,
    recipe: &Recipe,
    data: Option<&str>,
    evaluations: &Evaluations,
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("source".to_owned(), model.name.clone()),
        ("recipe".to_owned(), serde_json::to_string(recipe).unwrap_or_default()),
    ]);
    if let Some(seed) = recipe.seed() {
        out.insert("seed".to_owned(), seed.to_string());
    }
    if let Some(data) = data {
        out.insert("data".to_owned(), data.to_owned());
    }
    if !evaluations.is_empty() {
        // Without the speed: the same run gives the same bytes.
        let mut metrics = serde_json::to_value(evaluations).unwrap_or_default();
        for record in metrics
            .as_object_mut()
            .into_iter()
            .flat_map(|all| all.values_mut())
            .filter_map(|r| r.as_object_mut())
        {
            record.remove("tokensPerSecond");
        }
        out.insert("metrics".to_owned(), metrics.to_string());
    }
    out
}

/// What llama.cpp must be told: the cache type is a flag of the client, not in the file.
fn client_flags(recipe: &Recipe) -> Vec<String> {
    match (recipe.target, recipe.cache) {
        (TargetId::Halfstep, _) => vec![],
        (_, CacheQuantizer::Q8_0) => {
            vec!["--cache-type-k q8_0".into(), "--cache-type-v q8_0".into()]
        }
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
    let mut run = EvaluationRun::new(&[model], against, config)?;
    loop {
        let (done, total) = run.progress();
        progress(done, total);
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { resume: None });
        }
        if !run.step()? {
            return Ok(run.finish().remove(0));
        }
    }
}

/// Generates; `on_text` gets each new piece of text as soon as whole characters are there.
pub fn generate(
    model: &Loaded,
    config: &GenerationConfig,
    on_text: &mut dyn FnMut(&str),
    cancel: &Cancel,
) -> Result<Generation> {
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

/// Token ids of `text`. `special`: special tokens in it are recognised, and begin and end tokens
/// added if the model asks for them.
pub fn tokenize(model: &Model, text: &str, special: bool) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer.as_ref().ok_or_else(|| Error::Data {
        data: model.name.clone(),
        reason: "the model has no tokenizer".into(),
    })?;
    Ok(tokenizer.encode(text, special)?)
}

/// Logits `[tokens, V]` of a sequence run from position 0, in the model's own arithmetic.
pub fn logits(model: &Loaded, tokens: &[u32]) -> Result<Vec<f32>> {
    let network = model.network(0)?;
    Ok(network.forward(tokens, &mut Cache::new(&network), Logits::All)?)
}

/// The model's values as a full-precision f32 model: blocks and codes decoded, low-rank factors
/// merged, nothing quantized any more. Factors that fit no weight are left out; no file holds such.
pub fn dequantize(model: &Model, threads: usize) -> Model {
    let pool = Pool::new(threads);
    let tensors = model.tensors.iter().map(|(name, t)| {
        let mut values = t.to_f32(&pool);
        if let Some(factors) =
            model.low_rank.get(name).filter(|factors| factors.check(t.rows(), t.cols()).is_ok())
        {
            factors.merge(&mut values);
        }
        (name.clone(), Tensor { shape: t.shape.clone(), data: TensorData::F32(values) })
    });
    Model { provenance: model.provenance.clone(), ..model.with(tensors.collect(), None) }
}

/// Writes a model: the format follows its target (or the path's ending, .gguf or .safetensors, for
/// a float model). A quantized model passes the parity gate on the re-opened file, or no file is
/// kept.
pub fn save(model: &Model, path: &str) -> Result<SaveReport> {
    crate::export::save(model, Path::new(path), &Pool::new(0))
}

/// The bytes of the file that [`save`] would write to `path`; without a path, in the format of the
/// model's target (GGUF for a float model).
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
    for factors in model.low_rank.values() {
        *tensor_types.entry(format!("low rank {}", factors.rank)).or_insert(0) += 1;
        bytes += factors.stored_bytes();
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
