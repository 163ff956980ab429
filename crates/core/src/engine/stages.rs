//! The stages of a recipe, one after the other: a machine that does one bounded piece of work in
//! every step, and the loop that drives it.

use crate::config::options::RunConfig;
use crate::data::Text;
use crate::device::{Cpu, Device};
use crate::engine::arithmetic;
use crate::engine::block_stage::BlockStage;
use crate::engine::block_start::BlockStart;
use crate::engine::model_stage::ModelStage;
use crate::engine::progress::{Progress, run_to_end};
use crate::engine::stage_inputs::StageInputs;
use crate::engine::stream::scratch;
use crate::engine::trained::Trained;
use crate::event::{Evaluations, Event, Measure};
use crate::host::Host;
use crate::recipe::block::{SaliencyConfig, SaliencyDifference, SaliencyScale};
use crate::recipe::{Recipe, Stage, StageStart, Window};
use crate::record::note_saliency;
use crate::statistics::saliency::{SaliencyTask, Storage};
use crate::{Error, Result};
use halfstep_formats::Model;
use halfstep_kernels::Pool;
use halfstep_kernels::recycle::MemoryGuard;
use std::path::Path;
use std::sync::Arc;

/// What a run trains, on what, and where.
#[derive(Clone, Copy)]
pub struct TrainingInputs<'a> {
    /// The model that is quantized, unquantized.
    pub model: &'a Model,
    /// The recipe with every default filled in.
    pub recipe: &'a Recipe,
    /// Options of the run.
    pub run: &'a RunConfig,
    /// The training text.
    pub text: &'a Text,
    /// Clock, files, memory and the flag that ends the run.
    pub host: &'a Host,
    /// Threads of the run.
    pub pool: &'a Pool,
}

/// The stages of a run, step by step. Dropped between two steps, a run with a run folder has lost
/// what it did since the last checkpoint or finished layer; another run with `resume` continues from
/// there and ends in the same bytes.
pub struct Training<'a, D: Device = Cpu> {
    inputs: TrainingInputs<'a>,
    device: D,
    measure: &'a mut Measure<'a>,
    /// Squared gradients for the report, if it shows them.
    saliency: Option<Vec<Vec<f64>>>,
    /// What the stages before have done; the model of the last of them, until the next one has it.
    done: Option<Trained>,
    /// Index of the current stage.
    number: usize,
    work: Work<'a, D>,
    kept: Option<MemoryGuard>,
}

/// What the next step does.
enum Work<'a, D: Device> {
    Saliency,
    /// For the report.
    Squares(Box<SaliencyTask<'a, D>>),
    Begin,
    Start(Box<BlockStart<'a, D>>),
    Model(Box<ModelStage<'a, D>>),
    Block(Box<BlockStage<'a, D>>),
    /// The result of a last stage that does not measure its own.
    Measure(Box<Trained>),
    Nothing,
}

/// Trains by the stages of the recipe, one after the other, and measures what came out. Cancelled:
/// the error says where the run can go on from, if there is a run folder.
pub fn train<D: Device<Number = f32>>(
    device: D,
    inputs: TrainingInputs,
    measure: &mut Measure,
    events: &mut dyn FnMut(Event),
) -> Result<Trained> {
    let mut training = Training::on(device, inputs, measure);
    run_to_end(|| training.step(events))
}

impl<'a> Training<'a> {
    /// Begins a run on the CPU; `measure` evaluates the models that the events and the record report
    /// on.
    pub fn new(inputs: TrainingInputs<'a>, measure: &'a mut Measure<'a>) -> Self {
        Self::on(default_device(inputs.pool), inputs, measure)
    }
}

impl<'a, D: Device<Number = f32>> Training<'a, D> {
    /// What every stage trains goes through `device`; what stays on the host uses the pool of the
    /// inputs.
    pub fn on(device: D, inputs: TrainingInputs<'a>, measure: &'a mut Measure<'a>) -> Self {
        let work = if inputs.run.record { Work::Saliency } else { Work::Begin };
        Self { inputs, device, measure, saliency: None, done: None, number: 0, work, kept: None }
    }

    /// One optimizer step, one sequence through a layer, the squared gradients of one sequence, a
    /// solver's work on one layer, or a checkpoint; or the beginning of a stage, the packed model,
    /// its measurement.
    ///
    /// Errors: those of the stages. After one the machine is of no further use.
    pub fn step(&mut self, events: &mut dyn FnMut(Event)) -> Result<Progress<Trained>> {
        self.step_inside(events).map_err(|e| self.outer(e))
    }

    fn step_inside(&mut self, events: &mut dyn FnMut(Event)) -> Result<Progress<Trained>> {
        let last = self.number + 1 == self.inputs.recipe.stages.len();
        match &mut self.work {
            Work::Saliency => {
                let TrainingInputs { model, recipe, run, text, host, .. } = self.inputs;
                let (device, samples, scratch) =
                    (&self.device, RECORDED_SAMPLES, scratch(run, host));
                let task = recorded_saliency(
                    model, recipe, text, samples, &scratch, events, host, device,
                )?;
                self.work = task.map_or(Work::Begin, |task| Work::Squares(Box::new(task)));
            }
            Work::Squares(task) => {
                if let Progress::Done(found) = task.step()? {
                    (self.saliency, self.work) = (Some(found.shares()?), Work::Begin);
                }
            }
            Work::Begin => self.work = self.begin(events)?,
            Work::Start(start) => {
                if let Progress::Done(()) = start.step()?
                    && let Work::Start(start) = std::mem::replace(&mut self.work, Work::Nothing)
                {
                    self.work = Work::Block(Box::new(BlockStage::new(*start, events)?));
                }
            }
            Work::Model(stage) => {
                let mut nothing: Box<Measure> = Box::new(|_, _| Ok(Evaluations::new()));
                let measure = if last { &mut *self.measure } else { &mut *nothing };
                if let Progress::Done(trained) = stage.step(measure, events)? {
                    return self.end(trained);
                }
            }
            Work::Block(stage) => match stage.step(events)? {
                Progress::Done(trained) if last => self.work = Work::Measure(Box::new(trained)),
                Progress::Done(trained) => return self.end(trained),
                Progress::Going => {}
            },
            Work::Measure(trained) => {
                let measured = (self.measure)(&trained.model, events);
                // Its layers are in the folder.
                let folder = || self.inputs.run.run_folder.clone();
                trained.evaluations = measured.map_err(|e| {
                    if e.is_cancelled() {
                        return Error::Cancelled { resume: folder() };
                    }
                    if let Some(folder) = folder() {
                        let message = format!(
                            "all layers are finished and kept in {folder}; the same run with resume continues from them"
                        );
                        events(Event::Warning { message });
                    }
                    e
                })?;
                if let Work::Measure(trained) = std::mem::replace(&mut self.work, Work::Nothing) {
                    return self.end(*trained);
                }
            }
            Work::Nothing => {
                return Err(Error::Internal { reason: "the run is over, and was stepped".into() });
            }
        }
        Ok(Progress::Going)
    }

    /// Whoever goes on gives the whole run's folder again.
    fn outer(&self, e: Error) -> Error {
        match e {
            Error::Cancelled { resume: Some(_) } => {
                Error::Cancelled { resume: self.inputs.run.run_folder.clone() }
            }
            e => e,
        }
    }

    fn begin(&mut self, events: &mut dyn FnMut(Event)) -> Result<Work<'a, D>> {
        let TrainingInputs { model, recipe, run, text, host, pool } = self.inputs;
        let number = self.number;
        let stage = recipe
            .stages
            .get(number)
            .ok_or_else(|| Error::Internal { reason: format!("{} does not train", recipe.id) })?;
        // First what the stage before held goes back.
        self.kept = None;
        self.kept = Some(keep_memory(host, stage));
        let none = || model.with(Default::default(), None);
        let before = self.done.as_mut().map(|done| std::mem::replace(&mut done.model, none()));
        let previous = before.filter(|_| stage.from() == StageStart::Previous).map(Arc::new);
        let inputs = StageInputs {
            model,
            previous,
            // A stage's checkpoints know it and those before: what comes after may be changed, and
            // the run resumed.
            recipe: Recipe { stages: recipe.stages[..=number].to_vec(), ..recipe.clone() },
            trains: stage.trains(),
            run: of_stage(run, number),
            text,
            host,
            pool,
        };
        let device = &self.device;
        let by_layers = |inputs, config, window, events: &mut dyn FnMut(Event)| {
            Ok(Work::Start(Box::new(BlockStart::new(inputs, config, window, device, events)?)))
        };
        match stage {
            Stage::Model { config, .. } => {
                let stage = ModelStage::new(inputs, config, device.clone(), events)?;
                Ok(Work::Model(Box::new(stage)))
            }
            Stage::Linear { config, .. } => by_layers(inputs, config, Window::LINEARS, events),
            Stage::Block { config, .. } => by_layers(inputs, config, Window::ONE, events),
            &Stage::Window { layers, stride, ref config, .. } => {
                by_layers(inputs, config, Window { layers, stride, ..Window::ONE }, events)
            }
        }
    }

    /// A stage is over.
    fn end(&mut self, mut now: Trained) -> Result<Progress<Trained>> {
        self.number += 1;
        self.work = Work::Begin;
        if let Some(before) = self.done.take() {
            let fresh =
                now.tokens_per_second * now.seconds + before.tokens_per_second * before.seconds;
            now.steps += before.steps;
            now.tokens += before.tokens;
            now.seconds += before.seconds;
            now.tokens_per_second = fresh / now.seconds.max(1e-9);
            now.stages.splice(0..0, before.stages);
        }
        if self.number < self.inputs.recipe.stages.len() {
            self.done = Some(now);
            return Ok(Progress::Going);
        }
        self.work = Work::Nothing;
        if let Some((saliency, stage)) = self.saliency.take().zip(now.stages.last_mut()) {
            note_saliency(&mut stage.matrices, &saliency, &self.inputs.model.architecture);
        }
        Ok(Progress::Done(now))
    }
}

/// The run as one of its stages sees it: the checkpoints of later ones have folders of their own,
/// so that those of the first are found however many follow.
pub fn of_stage(run: &RunConfig, number: usize) -> RunConfig {
    let folder = run
        .run_folder
        .as_ref()
        .map(|f| if number == 0 { f.clone() } else { format!("{f}/stage-{number}") });
    RunConfig { run_folder: folder, ..run.clone() }
}

/// Sequences whose gradients a report shows.
pub(crate) const RECORDED_SAMPLES: usize = 4;

/// Saliency for the report of a recipe that has none of its own. Taken first: what is cancelled
/// here has lost nothing.
#[allow(clippy::too_many_arguments)]
pub(crate) fn recorded_saliency<'a, D: Device<Number = f32>>(
    model: &'a Model,
    recipe: &Recipe,
    text: &Text,
    samples: usize,
    scratch: &Path,
    events: &mut dyn FnMut(Event),
    host: &'a Host,
    device: &D,
) -> Result<Option<SaliencyTask<'a, D>>> {
    let own = recipe
        .stages
        .iter()
        .any(|stage| stage.by_layers().is_some_and(|(config, _)| config.penalty().is_some()));
    let Some(sequence_length) = recipe.sequence_length().filter(|_| !own) else { return Ok(None) };
    let samples = samples.min(text.windows(model, sequence_length)?.tokens.len() / sequence_length);
    let config = SaliencyConfig {
        lambda: 0.0,
        scale: SaliencyScale::Raw,
        difference: SaliencyDifference::BeforeLowRank,
        samples,
        sequence_length,
    };
    events(Event::Phase {
        name: "saliency".into(),
        detail: format!(
            "for the report: squared gradients of {samples} texts of {sequence_length} tokens"
        ),
    });
    let arithmetic = arithmetic::Arithmetic::of(arithmetic::choose(None, recipe)?);
    let storage = Storage::Scratch(scratch);
    SaliencyTask::new(model, config, text, storage, arithmetic, host, device).map(Some)
}

/// Where a run trains that names no device.
pub(crate) fn default_device(pool: &Pool) -> Cpu {
    Cpu::new(pool)
}

/// Most bytes that a stage of layers holds between two steps. A layer has blocks of many sizes, of
/// which each is held for itself: without a limit they are more than all else of such a stage.
const HELD_BY_LAYERS: usize = 256 << 20;
/// The same of one that solves: its largest matrices are of one site, and the next has others.
const HELD_BY_SOLVERS: usize = 64 << 20;

/// Lets memory stay with the process between two steps, as long as what is given lives: up to a
/// part of what was free.
pub fn keep_memory(host: &Host, stage: &Stage) -> MemoryGuard {
    let limit = match host.memory.available() {
        0 => 2 << 30,
        available => (available / 4) as usize,
    };
    MemoryGuard::new(match stage.by_layers() {
        Some((config, _)) if config.solver.is_some() => limit.min(HELD_BY_SOLVERS),
        Some(_) => limit.min(HELD_BY_LAYERS),
        None => limit,
    })
}
