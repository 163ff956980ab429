//! Estimates what a run will need before it starts: a few real steps of each stage on the real text
//! are measured, and the rest is computed from them.

use crate::Result;
use crate::cancel::Cancel;
use crate::config::options::RunConfig;
use crate::data::Text;
use crate::data::self_generated;
use crate::engine::probe;
use crate::engine::probe::{Probe, timed};
use crate::engine::stage_inputs::StageInputs;
use crate::engine::stages as run;
use crate::event::Evaluations;
use crate::event::Event;
use crate::host::Host;
use crate::nearest;
use crate::recipe::{
    LowRankConfig, Observer, Recipe, Sites, Stage, StageStart, WeightSite, Window,
};
use crate::recipes::RecipeConfig;
use crate::run::dequantize::dequantize;
use crate::run::inspect::experts;
use crate::run::quantize::{check, client_flags, provenance, tell};
use crate::run::report::ExpertsInspection;
use crate::run::validation::Validation;
use half::f16;
use halfstep_formats::{LowRank, Model};
use halfstep_kernels::Pool;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use ts_rs::TS;

/// The estimate of what a run will need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Name of the recipe.
    pub recipe: String,
    /// Name of the target: `gguf:q4_0`.
    pub target: String,
    /// Stored bits per weight of the linear layers, scales and low-rank factors included.
    pub bits_per_weight: f64,
    /// Size of the file that will be written.
    pub output_bytes: u64,
    /// The experts of the model, their bytes in the file; null if no layer has some.
    pub experts: Option<ExpertsInspection>,
    /// Largest size of the run folder.
    pub disk_bytes: u64,
    /// Number of optimizer steps.
    pub steps: u64,
    /// Tokens that will be trained on, repeated ones each time.
    pub tokens: u64,
    /// Time until the result is in memory and measured.
    pub seconds: f64,
    /// Peak resident memory of the process.
    pub peak_memory_bytes: u64,
    /// Memory that this process can use without swapping; 0 where the system does not report it.
    pub free_memory_bytes: u64,
    /// Whether the peak was measured. Otherwise it is estimated, because the system does not report
    /// it, or reports it only with what the process has used before.
    pub memory_measured: bool,
    /// Whether there is enough memory; null where the system does not report how much is free.
    pub fits: Option<bool>,
    /// Changes that would need less memory, if it does not fit.
    pub advice: Option<String>,
    /// Estimates of the stages, one after the other.
    pub stages: Vec<PlanStage>,
    /// Flags that the client will need to run the file.
    pub client_flags: Vec<String>,
    /// Time that the planning took.
    pub plan_seconds: f64,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct PlanStage {
    /// `generate`, `saliency` (for a report), `round`, `blocks`, `model` or `evaluate`.
    pub name: String,
    /// Number of optimizer steps; 0 without training.
    pub steps: u64,
    /// Time of one step; 0 without steps.
    pub seconds_per_step: f64,
    /// Time of the stage.
    pub seconds: f64,
    /// Peak resident memory of the process while the stage runs.
    pub peak_memory_bytes: u64,
    /// Largest size of the run folder.
    pub disk_bytes: u64,
    /// Peaks of its parts, of which `peak_memory_bytes` is the largest: with the size of a model
    /// each grows in its own way.
    #[serde(skip)]
    #[ts(skip)]
    pub(super) peaks: Vec<u64>,
}

impl PlanStage {
    fn new(name: &str, probe: &Probe, left: u64) -> Self {
        Self::of_parts(name, probe, left, &[probe.peak_bytes])
    }

    /// A stage of parts with these peaks.
    fn of_parts(name: &str, probe: &Probe, left: u64, peaks: &[u64]) -> Self {
        let peaks: Vec<u64> = peaks.iter().map(|peak| peak + left).collect();
        Self {
            name: name.into(),
            steps: probe.steps,
            seconds_per_step: probe.seconds_per_step,
            seconds: probe.seconds,
            peak_memory_bytes: peaks.iter().copied().max().unwrap_or(0),
            disk_bytes: probe.disk_bytes,
            peaks,
        }
    }
}

impl Plan {
    /// The same for a machine with so many bytes of free memory.
    pub fn on_machine(self, free: u64) -> Self {
        let (fits, advice) = verdict(self.peak_memory_bytes, free, &self.stages);
        Self { free_memory_bytes: free, fits, advice, ..self }
    }
}

/// Plans [`crate::run::quantize()`] with the same arguments, refusing what it would refuse. Nothing
/// is written.
pub fn plan(
    model: &Model,
    recipe: &RecipeConfig,
    run: &RunConfig,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<Plan> {
    plan_as(model, &recipe.resolve()?, run, events, cancel)
}

/// [`plan`] of a recipe that need not be one of the built-in ones.
pub fn plan_as(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<Plan> {
    plan_on_text(model, recipe, run, None, events, cancel)
}

/// [`plan_as`] on token ids, if there are some, instead of the text of the run.
pub(super) fn plan_on_text(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    tokens: Option<&[u32]>,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
) -> Result<Plan> {
    check(model, recipe, run)?;
    // What was needed so far (to read the model) will be needed again.
    let host = Host::native(cancel.clone());
    let (memory, start) = (&host.memory, host.seconds());
    let (before, free) = (memory.peak(), memory.available() + memory.resident());
    let memory_measured = memory.reset_peak();
    let merged =
        if model.low_rank.is_empty() { None } else { Some(dequantize(model, run.threads)?) };
    let mut planner = Planner::new(merged.as_ref().unwrap_or(model), recipe, run, &host)?;
    planner.given = tokens;
    planner.work(events)?;
    planner.finish()?;
    let peak = planner.stages.iter().map(|s| s.peak_memory_bytes).max().unwrap_or(0).max(before);
    let free = if memory.available() > 0 { free } else { 0 };
    let made = Plan {
        recipe: recipe.id.clone(),
        target: recipe.target.name().into(),
        bits_per_weight: planner.bits_per_weight,
        output_bytes: planner.output_bytes,
        experts: experts(&planner.result),
        disk_bytes: planner.stages.iter().map(|s| s.disk_bytes).sum(),
        steps: planner.stages.iter().map(|s| s.steps).sum(),
        tokens: planner.tokens,
        seconds: planner.stages.iter().map(|s| s.seconds).sum(),
        peak_memory_bytes: peak,
        free_memory_bytes: free,
        memory_measured,
        fits: None,
        advice: None,
        stages: std::mem::take(&mut planner.stages),
        client_flags: client_flags(recipe, model)?,
        plan_seconds: host.seconds() - start,
    };
    Ok(made.on_machine(free))
}

/// Whether there is enough memory and, if not, what would make the largest part smaller; both are
/// None where the system does not report how much is free (`free` 0).
fn verdict(peak: u64, free: u64, stages: &[PlanStage]) -> (Option<bool>, Option<String>) {
    let fits = (free > 0).then_some(peak <= free);
    let Some(greatest) =
        stages.iter().max_by_key(|s| s.peak_memory_bytes).filter(|_| fits == Some(false))
    else {
        return (fits, None);
    };
    let advice = match greatest.name.as_str() {
        "model" => {
            "use a smaller microBatch, a shorter sequenceLength or recompute always, or train \
             layer by layer (omniquant, apiq, efficientqat)"
        }
        "blocks" => "use fewer samples or a shorter sequenceLength",
        "evaluate" => "use no validation text, and measure the file afterwards",
        _ => "use a smaller model",
    };
    (fits, Some(advice.into()))
}

/// A plan in progress.
struct Planner<'a> {
    model: &'a Model,
    recipe: &'a Recipe,
    run: &'a RunConfig,
    validation: Option<Validation>,
    host: &'a Host,
    pool: Pool,
    stages: Vec<PlanStage>,
    tokens: u64,
    /// Token ids to train on, instead of the text of the run.
    given: Option<&'a [u32]>,
    /// Where the text comes from.
    data: Option<String>,
    /// How it is read, for the metadata of the file.
    reading: BTreeMap<String, String>,
    /// As large as the result: rounded, or the packed model of a model stage's first steps.
    result: Arc<Model>,
    evaluations: Evaluations,
    bits_per_weight: f64,
    output_bytes: u64,
}

impl<'a> Planner<'a> {
    fn new(
        model: &'a Model,
        recipe: &'a Recipe,
        run: &'a RunConfig,
        host: &'a Host,
    ) -> Result<Self> {
        let (pool, validation) = (Pool::new(run.threads), Validation::read(model, recipe, run)?);
        let result = Arc::new(model.with(Default::default(), None));
        let reading = validation.as_ref().map(|v| v.provenance.clone()).unwrap_or_default();
        let (stages, tokens, data, evaluations, bits_per_weight, output_bytes) =
            (vec![], 0, None, Evaluations::new(), 0.0, 0);
        Ok(Self {
            model,
            recipe,
            run,
            validation,
            host,
            pool,
            stages,
            tokens,
            given: None,
            data,
            reading,
            result,
            evaluations,
            bits_per_weight,
            output_bytes,
        })
    }

    fn work(&mut self, events: &mut dyn FnMut(Event)) -> Result<()> {
        let (model, recipe, pool) = (self.model, self.recipe, self.pool.clone());
        if recipe.stages.is_empty() {
            events(Event::Phase { name: "plan".into(), detail: "rounding".into() });
            let ((), seconds) = timed(self.host, || self.round())?;
            let probe = Probe {
                seconds,
                peak_bytes: probe::peak(self.host, 0, || self.held()),
                ..Probe::default()
            };
            self.stages.push(PlanStage::new("round", &probe, 0));
            return self.evaluate(0, events);
        }
        let mut left = 0;
        let device = &run::default_device(&pool);
        let text = self.training_text(events)?;
        self.data = Some(text.origin());
        self.reading = text.provenance(model)?;
        tell(&text.record(model)?, true, events);
        if self.run.record {
            let probe =
                probe::recorded_saliency(model, recipe, self.run, &text, self.host, device)?;
            self.stages.push(PlanStage::new("saliency", &probe, 0));
        }
        for (number, stage) in recipe.stages.iter().enumerate() {
            let (last, run) = (number + 1 == recipe.stages.len(), run::of_stage(self.run, number));
            let _kept = run::keep_memory(self.host, stage);
            let goes_on = number > 0 && stage.from() == StageStart::Previous;
            let inputs = StageInputs {
                model,
                previous: goes_on.then(|| self.result.clone()),
                recipe: recipe.clone(),
                trains: stage.trains(),
                run,
                text: &text,
                host: self.host,
                pool: &pool,
            };
            if let Some((config, window)) = stage.by_layers() {
                events(Event::Phase {
                    name: "plan".into(),
                    detail: format!(
                        "a few steps of the first {}",
                        match window {
                            Window::ONE => "layer",
                            Window::LINEARS => "layer's linears",
                            _ => "window",
                        }
                    ),
                });
                let probe = probe::block(inputs, config, window, device)?;
                // In the end all layers are there, and everything else is rounded. Not before:
                // a run does not hold both either.
                self.host.memory.reset_peak();
                self.round()?;
                let peaks = [probe.peak_bytes, probe::peak(self.host, probe.left_bytes, || 0)];
                self.stages.push(PlanStage::of_parts("blocks", &probe, left, &peaks));
                (self.tokens, left) = (self.tokens + probe.tokens, left + probe.left_bytes);
                continue;
            }
            let Stage::Model { config, .. } = stage else { continue };
            events(Event::Phase {
                name: "plan".into(),
                detail: "a few steps of the whole model".into(),
            });
            let (measured, whole) = (Cell::new(0.0), Cell::new(0.0));
            let validation = self.validation.as_ref().filter(|_| last);
            let mut measure = |small: &Model, _: &mut dyn FnMut(Event)| {
                let Some(validation) = validation else { return Ok(Evaluations::new()) };
                let ((evaluations, seconds), here) = timed(self.host, || {
                    on_a_window(validation, model, small, recipe, self.run.record, self.host, &pool)
                })?;
                measured.set(here);
                whole.set(seconds);
                Ok(evaluations)
            };
            let device = device.clone();
            let (probe, trained) =
                probe::end_to_end(inputs, config, device, &mut measure, &|| measured.get())?;
            self.stages.push(PlanStage::new("model", &probe, left));
            if validation.is_some() {
                // Its peak is within that of the stage, whose state is kept meanwhile.
                let evaluate = Probe {
                    seconds: whole.get(),
                    peak_bytes: probe.peak_bytes,
                    ..Probe::default()
                };
                self.stages.push(PlanStage::new("evaluate", &evaluate, left));
            }
            (self.tokens, self.result, self.evaluations) =
                (self.tokens + probe.tokens, Arc::new(trained.model), trained.evaluations);
        }
        if !matches!(recipe.stages.last(), Some(Stage::Model { .. })) {
            self.evaluate(left, events)?;
        }
        Ok(())
    }

    /// The text of the run, with a substitute for what will be generated.
    fn training_text(&mut self, events: &mut dyn FnMut(Event)) -> Result<Text> {
        if let Some(tokens) = self.given {
            return Ok(Text::generated(tokens.to_vec()));
        }
        let (model, recipe, run, host) = (self.model, self.recipe, self.run, self.host);
        self_generated::with_generated(model, recipe, run, |settings| {
            events(Event::Phase { name: "plan".into(), detail: "generating a few tokens".into() });
            let (probe, text) = probe::generation(model, settings, run, host, &self.pool)?;
            self.stages.push(PlanStage::new("generate", &probe, 0));
            Ok(text)
        })
    }

    /// Rounds to nearest: the whole work of a recipe without training, and otherwise a substitute
    /// for the trained layers.
    fn round(&mut self) -> Result<()> {
        let alone = self.recipe.stages.is_empty();
        let start = |site: WeightSite| {
            if alone { site } else { WeightSite { observer: Observer::Absmax, ..site } }
        };
        let recipe = self.recipe.with_weight_sites(start);
        let mut each = |_, _| self.host.check_cancelled();
        let mut rounded = nearest::quantize_model(self.model, &recipe, &mut each, &self.pool)?;
        let sites = Sites::new(&recipe.rules, &self.model.architecture)?;
        for spec in self.model.architecture.tensors() {
            let low_rank = sites.of(&spec).and_then(|site| site.low_rank);
            let stored = low_rank.filter(|factors| factors.position.traits().is_stored);
            let Some(LowRankConfig { rank, .. }) = stored else { continue };
            let zeros = |n: usize| vec![f16::ZERO; n];
            let (a, b) = (zeros(rank * spec.shape[1]), zeros(spec.shape[0] * rank));
            rounded.low_rank.insert(spec.name, LowRank { rank, a, b });
        }
        self.result = Arc::new(rounded);
        Ok(())
    }

    fn evaluate(&mut self, left: u64, events: &mut dyn FnMut(Event)) -> Result<()> {
        let Some(validation) = &self.validation else { return Ok(()) };
        events(Event::Phase { name: "plan".into(), detail: "measuring one sequence".into() });
        self.host.memory.reset_peak();
        let (evaluations, seconds) = on_a_window(
            validation,
            self.model,
            &self.result,
            self.recipe,
            self.run.record,
            self.host,
            &self.pool,
        )?;
        let probe = Probe {
            seconds,
            peak_bytes: probe::peak(self.host, 0, || self.held()),
            ..Probe::default()
        };
        self.stages.push(PlanStage::new("evaluate", &probe, left));
        self.evaluations = evaluations;
        Ok(())
    }

    /// If the system does not report it: both models, and both again as networks, one of them in
    /// f32.
    fn held(&self) -> u64 {
        let floats = (self.model.architecture.parameters() * size_of::<f32>()) as u64;
        probe::stored(self.model) + 2 * probe::stored(&self.result) + floats
    }

    /// Sizes of what will be written.
    fn finish(&mut self) -> Result<()> {
        // Nothing else holds it by now.
        let mut made = provenance(self.model, self.recipe, self.data.as_deref(), &self.evaluations);
        made.extend(self.reading.clone());
        Arc::make_mut(&mut self.result).provenance = made;
        self.bits_per_weight = nearest::bits_per_weight(&self.result);
        self.output_bytes =
            halfstep_formats::write::size(&self.result, self.recipe.target.file_format())?;
        Ok(())
    }
}

/// Tokens of the shorter of two measurements, whose difference is the time of a token.
const FEW_TOKENS: usize = 32;

/// The evaluation of one sequence, and the seconds it will take on all; with `record`, of
/// each layer alone too.
#[allow(clippy::too_many_arguments)]
fn on_a_window(
    validation: &Validation,
    model: &Model,
    result: &Model,
    recipe: &Recipe,
    record: bool,
    host: &Host,
    pool: &Pool,
) -> Result<(Evaluations, f64)> {
    let sequence_length = validation.first(validation.sequence_length());
    let few = validation.first(FEW_TOKENS.min(validation.sequence_length() / 2).max(2));
    let on = |part: &Validation| {
        timed(host, || part.measure(model, result, recipe, &mut |_| {}, &host.cancel, pool))
    };
    let ((_, few_seconds), (evaluations, mut seconds)) = (on(&few)?, on(&sequence_length)?);
    let tokens = (sequence_length.tokens() - few.tokens()).max(1) as f64;
    let more = (validation.tokens() - sequence_length.tokens()) as f64;
    seconds += (seconds - few_seconds).max(0.0) / tokens * more;
    if record {
        let (_, of_one) = timed(host, || {
            sequence_length.blocks(model, result, 1, &mut |_| {}, &host.cancel, pool)
        })?;
        let windows = validation.block_tokens() as f64 / sequence_length.tokens() as f64;
        seconds += of_one * windows * model.architecture.layers.len() as f64;
    }
    Ok((evaluations, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_by_its_greatest_part() {
        let stage = |name: &str, peak_bytes| {
            PlanStage::new(name, &Probe { peak_bytes, ..Probe::default() }, 0)
        };
        let stages = [stage("blocks", 700), stage("model", 900), stage("evaluate", 200)];
        assert_eq!(verdict(900, 900, &stages), (Some(true), None));
        assert_eq!(verdict(900, 0, &stages), (None, None));
        let (fits, advice) = verdict(900, 899, &stages);
        assert!(
            fits == Some(false)
                && advice.is_some_and(|a| a.contains("microBatch") && a.contains("layer by layer"))
        );
        let (_, advice) = verdict(700, 600, &stages[..1]);
        assert!(advice.is_some_and(|a| a.contains("fewer samples")));
    }
}
