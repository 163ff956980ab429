//! A run from a model and a recipe to a packed model and its report.

use super::dequantize::dequantize;
use super::load::LoadedModel;
use super::output;
use super::quantized_model::QuantizedModel;
use super::record;
use super::report::Report;
use super::sound::sound;
use super::validation::{BlockParts, Validation};
use crate::cancel::Cancel;
use crate::config::options::RunConfig;
use crate::data::ReadingRecord;
#[cfg(feature = "train")]
use crate::data::self_generated::training_text;
use crate::device::Device;
use crate::engine::progress::told;
#[cfg(feature = "train")]
use crate::engine::run_folder::RunFolder;
#[cfg(feature = "train")]
use crate::engine::stages::TrainingInputs;
use crate::engine::stages::default_device;
use crate::error::{Error, Result};
use crate::event::{Evaluations, Event, Measure};
use crate::host::Host;
use crate::nearest;
use crate::recipe::rules::check_trainable;
use crate::recipe::{Recipe, Sites, Stage, WeightSite};
use crate::recipes::RecipeConfig;
use crate::record::StageRecord;
use halfstep_formats::architecture::ActivationSite;
use halfstep_formats::{Model, Quantization};
use halfstep_kernels::Pool;
use std::collections::BTreeMap;
use std::path::Path;

/// Quantizes and, if the recipe has stages, trains. Cancelling during training or the measurement
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

/// [`quantize_as`] of a model that was read from a file, which the output must not take the place
/// of.
pub fn quantize_loaded(
    model: &LoadedModel,
    recipe: &Recipe,
    run: &RunConfig,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<(Model, Report)> {
    let host = Host::native(cancel.clone());
    if let Some(path) = model.path() {
        output::check_input(run, path, &*host.store)?;
    }
    quantize_on(model, recipe, run, events, &host)
}

/// [`quantize`] by a recipe that need not be one of the built-in ones.
pub fn quantize_as(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<(Model, Report)> {
    quantize_on(model, recipe, run, events, &Host::native(cancel.clone()))
}

/// [`quantize_as`] on a given host.
pub fn quantize_on(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    events: &mut dyn FnMut(Event),
    host: &Host,
) -> Result<(Model, Report)> {
    let device = default_device(&Pool::new(run.threads));
    quantize_with(model, recipe, run, device, events, host)
}

/// [`quantize_on`] a given device, whose pool computes what stays on the host.
pub fn quantize_with<D: Device<Number = f32>>(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    device: D,
    events: &mut dyn FnMut(Event),
    host: &Host,
) -> Result<(Model, Report)> {
    let cancel = &host.cancel;
    check(model, recipe, run)?;
    output::check(run, &*host.store)?;
    output::check_space(model, recipe, run, &*host.store)?;
    let coded = |q: &Quantization| q.activation.has_codes();
    if model.provenance.contains_key("recipe") || model.quantization.as_ref().is_some_and(coded) {
        let message = format!(
            "{} is quantized already; its values are used as the unquantized model",
            model.name
        );
        events(Event::Warning { message });
    }
    // The values of the model, low-rank factors included, are rounded and compared with.
    let merged =
        if model.low_rank.is_empty() { None } else { Some(dequantize(model, run.threads)?) };
    let model = merged.as_ref().unwrap_or(model);
    let pool = device.pool().clone();
    let mended = sound(model, recipe, events, &pool)?;
    let model = mended.as_ref().unwrap_or(model);
    let validation = Validation::read(model, recipe, run)?;
    if let Some(validation) = &validation {
        tell(&validation.reading, recipe.stages.is_empty(), events);
    }
    let mut parts = BlockParts::default();
    let mut measure = |small: &Model, events: &mut dyn FnMut(Event)| {
        let Some(validation) = &validation else { return Ok(Evaluations::new()) };
        let evaluations = validation.measure(model, small, recipe, events, cancel, &pool)?;
        if run.record {
            parts = validation.blocks(
                model,
                small,
                model.architecture.layers.len(),
                events,
                cancel,
                &pool,
            )?;
        }
        Ok(evaluations)
    };
    let mut trained = match recipe.stages[..] {
        [] => round(model, recipe, &mut measure, events, host, &pool)?,
        _ => train(model, recipe, run, device, &mut measure, events, host)?,
    };
    trained.model.provenance =
        provenance(model, recipe, trained.data.as_deref(), &trained.evaluations);
    let of_validation = || validation.as_ref().map(|v| v.provenance.clone()).unwrap_or_default();
    trained.model.provenance.extend(trained.reading.take().unwrap_or_else(of_validation));
    let record = if run.record {
        Some(record::of(model, recipe, &trained, parts, cancel, &pool)?)
    } else {
        None
    };
    let experts = trained.stages.iter().flat_map(StageRecord::all_experts).collect();
    let report = Report {
        recipe: recipe.id.clone(),
        target: recipe.target.name().into(),
        bits_per_weight: nearest::bits_per_weight(&trained.model),
        steps: trained.steps,
        tokens: trained.tokens,
        seconds: trained.seconds,
        tokens_per_second: trained.tokens_per_second,
        final_loss: trained.final_loss,
        memory_bytes: host.memory.peak(),
        evaluations: trained.evaluations,
        client_flags: client_flags(recipe, model)?,
        experts,
        record,
    };
    Ok((trained.model, report))
}

/// Refuses what is known to fail, before anything is read or computed.
pub(super) fn check(model: &Model, recipe: &Recipe, run: &RunConfig) -> Result<()> {
    model.refuse_linear_parts(&model.name, "it cannot be rounded or trained")?;
    check_parts(model, recipe)?;
    nearest::check_shapes(&model.architecture, recipe)?;
    halfstep_formats::write::check(&model.architecture, recipe.target.file_format())?;
    if let Some(output) = &run.output {
        crate::run::save::check_ending(Some(recipe.target), Path::new(output)).map_err(
            |e| match e {
                Error::Config { reason, .. } => Error::config("output", reason),
                e => e,
            },
        )?;
    }
    run.reading().begin(model)?;
    check_answers(recipe, run)?;
    let positions = model.architecture.max_positions;
    if let Some(sequence_length) = recipe.sequence_length().filter(|&w| w > positions) {
        return Err(Error::config(
            "train.sequenceLength",
            format!("must be at most the model's {positions} positions, got {sequence_length}"),
        ));
    }
    if run.resume || run.checkpoint_every.is_some() {
        let field = if run.resume { "resume" } else { "checkpointEvery" };
        if recipe.stages.is_empty() {
            return Err(Error::config(
                field,
                "must be absent: rounding has no steps to save or to resume",
            ));
        }
        if run.run_folder.is_none() {
            return Err(Error::config(field, "needs a runFolder for the checkpoints"));
        }
    }
    Ok(())
}

/// Refuses a loss on answers where no stage has one on tokens.
fn check_answers(recipe: &Recipe, run: &RunConfig) -> Result<()> {
    let on_tokens = |stage: &Stage| match stage.by_layers() {
        Some((config, _)) => config.penalty().is_some(),
        None => true,
    };
    if !run.answers_only || recipe.stages.is_empty() || recipe.stages.iter().any(on_tokens) {
        return Ok(());
    }
    let reason = format!(
        "must be absent: {} compares layers at every position and predicts no token; recipes that \
         train the whole model can (silq, llm-qat, efficientqat)",
        recipe.id
    );
    Err(Error::config("answersOnly", reason))
}

/// Refuses rules and stages that cannot be combined, which no built-in recipe has.
fn check_parts(model: &Model, recipe: &Recipe) -> Result<()> {
    recipe.check_target()?;
    Sites::new(&recipe.rules, &model.architecture)?;
    if !recipe.stages.is_empty() {
        check_trainable(&recipe.rules)?;
    }
    let sites: Vec<WeightSite> = recipe.weight_sites().copied().collect();
    for (i, stage) in recipe.stages.iter().enumerate() {
        let valid = match stage {
            Stage::Model { config, .. } => config.validate(),
            Stage::Linear { config, .. }
            | Stage::Block { config, .. }
            | Stage::Window { config, .. } => config.validate(),
        };
        valid.map_err(|e| of_stage(i, stage, e))?;
        stage.check_scope(&format!("stages[{i}]"), model.architecture.layers.len())?;
        let (path, goes_on) = (format!("stages[{i}]"), stage.goes_on(i));
        stage.check(&path, &sites, goes_on, recipe.has_static_sites())?;
    }
    recipe.check_unread()
}

/// Returns an error of a stage's config with the path that its field has in the recipe.
fn of_stage(index: usize, stage: &Stage, error: Error) -> Error {
    let Error::Config { field, reason } = error else { return error };
    let field = field.strip_prefix("train.").unwrap_or(&field);
    let inside = match field {
        _ if stage.by_layers().is_none() => field,
        "lambda" => "saliency.lambda",
        "saliencySamples" => "saliency.samples",
        "saliencySequenceLength" => "saliency.sequenceLength",
        "damping" => "solver.damping",
        "epochs" => "phases",
        "rangeLearningRate" => "phases[0].rates.ranges",
        "lowRankLearningRate" => "phases[0].rates.lowRank",
        "weightLearningRate" => "phases[0].rates.weights",
        "minRatio" => "phases[0].minRatio",
        _ => field,
    };
    Error::config(format!("stages[{index}].config.{inside}"), reason)
}

/// Quantizes without training.
fn round(
    model: &Model,
    recipe: &Recipe,
    measure: &mut Measure,
    events: &mut dyn FnMut(Event),
    host: &Host,
    pool: &Pool,
) -> Result<QuantizedModel> {
    let start = host.seconds();
    let small =
        nearest::quantize_model(model, recipe, &mut told(host, "round", "tensors", events), pool)?;
    let seconds = host.seconds() - start;
    let evaluations = measure(&small, events)?;
    Ok(QuantizedModel {
        model: small,
        evaluations,
        steps: 0,
        tokens: 0,
        seconds,
        tokens_per_second: 0.0,
        final_loss: None,
        data: None,
        reading: None,
        stages: vec![],
    })
}

/// Says how a text is read: the notes if they are `wanted`, and what may not be as intended.
pub(super) fn tell(reading: &ReadingRecord, wanted: bool, events: &mut dyn FnMut(Event)) {
    for note in reading.notes.iter().filter(|_| wanted) {
        events(Event::Phase { name: "data".into(), detail: note.clone() });
    }
    for message in &reading.warnings {
        events(Event::Warning { message: message.clone() });
    }
}

#[cfg(feature = "train")]
fn train<D: Device<Number = f32>>(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    device: D,
    measure: &mut Measure,
    events: &mut dyn FnMut(Event),
    host: &Host,
) -> Result<QuantizedModel> {
    let pool = &device.pool().clone();
    let folder = run.run_folder.as_deref().map(Path::new);
    // Before the first of the run's files is read, and until the last is written.
    let _in_use = folder.map(|folder| RunFolder::open(&*host.store, folder)).transpose()?;
    let text = &training_text(model, recipe, run, events, host, pool)?;
    tell(&text.record(model)?, true, events);
    let inputs = TrainingInputs { model, recipe, run, text, host, pool };
    let t = crate::engine::stages::train(device, inputs, measure, events)?;
    Ok(QuantizedModel {
        model: t.model,
        evaluations: t.evaluations,
        steps: t.steps,
        tokens: t.tokens,
        seconds: t.seconds,
        tokens_per_second: t.tokens_per_second,
        final_loss: t.final_loss.is_finite().then_some(t.final_loss),
        data: Some(text.origin()),
        reading: Some(text.provenance(model)?),
        stages: t.stages,
    })
}

#[cfg(not(feature = "train"))]
fn train<D: Device>(
    _: &Model,
    recipe: &Recipe,
    _: &RunConfig,
    _: D,
    _: &mut Measure,
    _: &mut dyn FnMut(Event),
    _: &Host,
) -> Result<QuantizedModel> {
    let reason =
        "this build does not train; use the native addon, or a recipe without training: rtn"
            .to_owned();
    Err(Error::Format(halfstep_formats::Error::Unsupported {
        file: "halfstep".into(),
        name: recipe.id.clone(),
        reason,
        offset: None,
    }))
}

/// Returns how the model was made, as strings for the metadata of the file.
pub(super) fn provenance(
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
            record.remove("reading");
        }
        out.insert("metrics".to_owned(), metrics.to_string());
    }
    // How the text that these were measured on was read.
    if let Some(reading) = evaluations.values().find_map(|record| record.reading.as_ref()) {
        out.insert("validation".to_owned(), reading.notes.join("; "));
    }
    out
}

/// Returns the flags that a client needs to run the file as it was trained.
pub(super) fn client_flags(recipe: &Recipe, model: &Model) -> Result<Vec<String>> {
    let q = nearest::quantization(recipe, &model.architecture)?;
    let [keys, values] = [ActivationSite::KCache, ActivationSite::VCache].map(|site| q.at(0, site));
    Ok(recipe.target.target().client_flags(keys, values))
}
