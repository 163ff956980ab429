//! The training loop: batches, steps, events, checkpoints.

use crate::cancel::Cancel;
use crate::config::options::RunConfig;
use crate::data::{Sequences, Text};
use crate::engine::identity::identity;
use crate::engine::memory;
use crate::engine::memory::{available_bytes, peak_bytes};
use crate::engine::observe::Starts;
use crate::engine::step::StepReport;
use crate::engine::stream::scratch;
use crate::engine::trained::Trained;
use crate::engine::trainer::Trainer;
use crate::engine::{arithmetic, block_loop, checkpoint, state};
use crate::event::Event;
use crate::event::{Evaluations, Measure};
use crate::recipe::block::{SaliencyConfig, SaliencyDifference, SaliencyScale};
use crate::recipe::{Recipe, Stage, StageStart, TrainConfig, Trains};
use crate::record::{StageRecord, note_saliency};
use crate::statistics::saliency::{Saliency, Storage};
use crate::{Error, Result};
use halfstep_formats::Model;
use halfstep_kernels::Pool;
use halfstep_kernels::recycle::MemoryGuard;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where checkpoints go, and whose they are.
struct Checkpoints<'a> {
    folder: &'a Path,
    /// Hash of everything that a resumed run must share with the one it goes on from.
    run: String,
}

/// Trains `model` by the stages of `recipe` on `text`, one after the other, and measures what came
/// out. Cancelled: the error says where the run can go on from, if there is a run folder.
#[allow(clippy::too_many_arguments)]
pub fn train(
    model: &Model,
    recipe: &Recipe,
    run: &RunConfig,
    text: &Text,
    measure: &mut Measure,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
    pool: &Pool,
) -> Result<Trained> {
    let _kept = keep_memory();
    let saliency = if run.record {
        recorded_saliency(
            model,
            recipe,
            text,
            RECORDED_SAMPLES,
            &scratch(run),
            events,
            cancel,
            pool,
        )?
    } else {
        None
    };
    let mut trained: Option<Trained> = None;
    for (number, stage) in recipe.stages.iter().enumerate() {
        let last = number + 1 == recipe.stages.len();
        let folder = run.run_folder.clone();
        let run = of_stage(run, number);
        // A stage's checkpoints know it and those before: what comes after may be changed, and the
        // run resumed.
        let recipe = &Recipe { stages: recipe.stages[..=number].to_vec(), ..recipe.clone() };
        let before = trained.take();
        let previous =
            before.as_ref().map(|t| &t.model).filter(|_| stage.from() == StageStart::Previous);
        // Whoever goes on gives the whole run's folder again.
        let outer = |e: Error| match e {
            Error::Cancelled { resume: Some(_) } => Error::Cancelled { resume: folder.clone() },
            e => e,
        };
        let mut now = match stage {
            Stage::Block { trains, config, .. } => block_loop::train(
                model, previous, recipe, *trains, config, &run, text, events, cancel, pool,
            )
            .map_err(outer)?,
            Stage::Model { trains, config, .. } => {
                let mut nothing: Box<Measure> = Box::new(|_, _| Ok(Evaluations::new()));
                let measure = if last { &mut *measure } else { &mut *nothing };
                end_to_end(
                    model, previous, recipe, *trains, config, &run, text, measure, events, cancel,
                    pool,
                )
                .map_err(outer)?
            }
        };
        if last && matches!(stage, Stage::Block { .. }) {
            now.evaluations = measure(&now.model, events).map_err(|e| {
                if e.is_cancelled() { Error::Cancelled { resume: folder.clone() } } else { e }
            })?;
        }
        if let Some(before) = before {
            let fresh =
                now.tokens_per_second * now.seconds + before.tokens_per_second * before.seconds;
            now.steps += before.steps;
            now.tokens += before.tokens;
            now.seconds += before.seconds;
            now.tokens_per_second = fresh / now.seconds.max(1e-9);
            now.stages.splice(0..0, before.stages);
        }
        trained = Some(now);
    }
    if let Some((saliency, stage)) =
        saliency.zip(trained.as_mut().and_then(|t| t.stages.last_mut()))
    {
        note_saliency(&mut stage.matrices, &saliency);
    }
    trained.ok_or_else(|| Error::Internal { reason: format!("{} does not train", recipe.id) })
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

/// Saliency, by block and linear, for the report of a recipe that has none of its own. Taken first:
/// what is cancelled here has lost nothing.
#[allow(clippy::too_many_arguments)]
pub(crate) fn recorded_saliency(
    model: &Model,
    recipe: &Recipe,
    text: &Text,
    samples: usize,
    scratch: &Path,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
    pool: &Pool,
) -> Result<Option<Vec<Vec<f64>>>> {
    let own = recipe
        .stages
        .iter()
        .any(|stage| matches!(stage, Stage::Block { config, .. } if config.penalty().is_some()));
    let Some(sequence_length) = recipe.sequence_length().filter(|_| !own) else { return Ok(None) };
    let samples = samples.min(text.tokens(model, sequence_length)?.len() / sequence_length);
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
    Ok(Some(
        Saliency::of(model, config, text, Storage::Scratch(scratch), arithmetic, cancel, pool)?
            .shares()?,
    ))
}

/// One model stage. Cancelled, in training or in `measure`: writes a checkpoint if there is a run
/// folder and says where.
#[allow(clippy::too_many_arguments)]
pub(crate) fn end_to_end(
    model: &Model,
    previous: Option<&Model>,
    recipe: &Recipe,
    trains: Trains,
    config: &TrainConfig,
    run: &RunConfig,
    text: &Text,
    measure: &mut Measure,
    events: &mut dyn FnMut(Event),
    cancel: &Cancel,
    pool: &Pool,
) -> Result<Trained> {
    // A resumed run goes on in what its checkpoint was computed in, whatever the probe says this
    // time.
    let config = TrainConfig {
        arithmetic: Some(arithmetic::choose(config.arithmetic, recipe)?),
        ..config.clone()
    };
    let tokens = text.tokens(model, config.sequence_length)?;
    memory::check(
        &model.architecture,
        config.micro_batch.unwrap_or(config.batch) * config.sequence_length,
    )?;
    let per_step = (config.batch * config.sequence_length) as u64;
    let steps = config.steps();
    let checkpoints = run.run_folder.as_deref().map(|folder| Checkpoints {
        folder: Path::new(folder),
        run: identity(previous.unwrap_or(model), recipe, text, pool),
    });
    let mut windows = Sequences::new(tokens, config.sequence_length, config.seed);
    if previous.is_none() {
        let linears: usize = (0..model.architecture.layers.len())
            .map(|layer| model.architecture.linears(layer).len())
            .sum();
        events(Event::Phase {
            name: "calibrate".into(),
            detail: format!("first steps of {linears} matrices"),
        });
    }
    let calibration = windows.batch(0, config.batch);
    let mut trainer = Trainer::<f32>::new(
        model,
        previous,
        recipe,
        trains,
        &config,
        steps,
        &calibration,
        pool.clone(),
    )?;
    let starts = Starts::of(&trainer.matrices, &trainer.parameters, pool);
    if let Some(checkpoints) = &checkpoints {
        checkpoints.begin(&mut trainer, run.resume, events)?;
    }
    events(Event::Phase {
        name: "train".into(),
        detail: format!("{steps} steps of {per_step} tokens in {}", trainer.arithmetic.name()),
    });
    let (start, first, mut losses) = (Instant::now(), trainer.step, vec![]);
    while trainer.step < steps {
        let batch = windows.batch(trainer.step * config.batch as u64, config.batch);
        let report = match trainer.step(&batch, config.sequence_length, cancel) {
            Err(Error::Cancelled { .. }) => {
                return Err(stop(&trainer, checkpoints.as_ref(), events));
            }
            other => other?,
        };
        events(step_event(&trainer, &report, steps, per_step, first, start));
        losses.push(report.loss);
        let due = run.checkpoint_every.is_some_and(|every| {
            every > 0 && trainer.step.is_multiple_of(every) && trainer.step < steps
        });
        if let Some(checkpoints) = checkpoints.as_ref().filter(|_| due) {
            checkpoints.save(&trainer, events)?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    events(Event::Phase {
        name: "pack".into(),
        detail: "codes and scales as the last forward used them".into(),
    });
    trainer.settle();
    let packed = trainer.packed(model, recipe)?;
    let evaluations = match measure(&packed, events) {
        Err(e) if e.is_cancelled() => return Err(stop(&trainer, checkpoints.as_ref(), events)),
        other => other?,
    };
    let checkpoint_bytes = checkpoint::size(state::entries(&trainer))?;
    Ok(Trained {
        model: packed,
        evaluations,
        steps: trainer.step,
        tokens: trainer.step * per_step,
        seconds,
        tokens_per_second: ((trainer.step - first) * per_step) as f64 / seconds.max(1e-9),
        final_loss: losses.last().copied().unwrap_or(f64::NAN),
        stages: vec![StageRecord {
            first_step: first,
            losses,
            blocks: vec![],
            matrices: starts.records(&trainer.matrices, &trainer.parameters, pool),
        }],
        checkpoint_bytes,
    })
}

/// Lets memory stay with the process between two steps, as long as what is given lives: up to a
/// part of what was free.
pub fn keep_memory() -> MemoryGuard {
    MemoryGuard::new(match available_bytes() {
        0 => 2 << 30,
        available => (available / 4) as usize,
    })
}

fn step_event(
    trainer: &Trainer<f32>,
    report: &StepReport,
    steps: u64,
    per_step: u64,
    first: u64,
    start: Instant,
) -> Event {
    let per_second = (trainer.step - first) as f64 / start.elapsed().as_secs_f64();
    Event::Step {
        step: trainer.step,
        steps,
        loss: report.loss,
        learning_rate: report.learning_rate,
        gradient_norm: report.gradient_norm,
        tokens: trainer.step * per_step,
        tokens_per_second: per_second * per_step as f64,
        eta_seconds: (steps - trainer.step) as f64 / per_second,
        memory_bytes: peak_bytes(),
    }
}

impl Checkpoints<'_> {
    /// The state to go on from, if asked for.
    fn begin(
        &self,
        trainer: &mut Trainer<f32>,
        resume: bool,
        events: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let folder = self.folder.display();
        if !resume {
            if state::any(self.folder)? {
                events(Event::Warning {
                    message: format!(
                        "{folder} holds checkpoints of an earlier run; this one starts anew, resume would go on"
                    ),
                });
            }
            return Ok(());
        }
        let (path, reasons) = state::resume(trainer, self.folder, &self.run)?;
        for reason in reasons {
            events(Event::Warning { message: format!("a checkpoint was passed over: {reason}") });
        }
        match path {
            Some(path) => {
                events(Event::Phase { name: "resume".into(), detail: path.display().to_string() })
            }
            None => events(Event::Warning {
                message: format!("no checkpoint in {folder}; starting anew"),
            }),
        }
        Ok(())
    }

    fn save(&self, trainer: &Trainer<f32>, events: &mut dyn FnMut(Event)) -> Result<PathBuf> {
        let path = state::save(trainer, self.folder, &self.run)?;
        events(Event::Checkpoint { step: trainer.step, path: path.display().to_string() });
        Ok(path)
    }
}

/// The error of a cancelled run, with the checkpoint it can go on from.
fn stop(
    trainer: &Trainer<f32>,
    checkpoints: Option<&Checkpoints>,
    events: &mut dyn FnMut(Event),
) -> Error {
    match checkpoints.map(|c| c.save(trainer, events).map(|_| c.folder.display().to_string())) {
        Some(Err(e)) => e,
        saved => Error::Cancelled { resume: saved.and_then(Result::ok) },
    }
}
