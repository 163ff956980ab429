//! Training the whole model: batches, optimizer steps, checkpoints.

use crate::data::{Batch, Sequences};
use crate::device::Device;
use crate::engine::identity::identity;
use crate::engine::memory;
use crate::engine::observe::Starts;
use crate::engine::progress::{Progress, told};
use crate::engine::stage_inputs::StageInputs;
use crate::engine::step::StepReport;
use crate::engine::trained::Trained;
use crate::engine::trainer::Trainer;
use crate::engine::{arithmetic, checkpoint, state};
use crate::event::{Event, Measure};
use crate::host::Store;
use crate::recipe::TrainConfig;
use crate::record::StageRecord;
use crate::{Error, Result};
use halfstep_formats::Model;
use std::path::PathBuf;

/// Fewer steps say too little of whether training helped.
const LEAST_COMPARED: usize = 20;
/// The loss of one batch differs from that of all text by about so much.
const MUCH_WORSE: f64 = 1.25;

/// One model stage, step by step.
pub(crate) struct ModelStage<'a, D: Device> {
    inputs: StageInputs<'a>,
    config: TrainConfig,
    steps: u64,
    sequences: Sequences,
    trainer: Trainer<D>,
    starts: Starts,
    checkpoints: Option<Checkpoints<'a>>,
    /// The step and the second at which this part of the run began, and how long it trained.
    first: u64,
    start: f64,
    seconds: f64,
    losses: Vec<f64>,
    saved: Saved,
    next: Next,
}

/// When the last checkpoint was written (or the stage began) and what it took, and the same for the
/// last step, in seconds.
struct Saved {
    at: f64,
    took: f64,
    step: f64,
}

impl Saved {
    /// A checkpoint takes at most this share of the time.
    const SHARE: f64 = 0.01;

    /// Whether it is time for a checkpoint where the caller has not said how often. Before so many
    /// seconds are over, not after: the next step is work too. A checkpoint that takes long is
    /// written less often.
    fn is_due(&self, now: f64) -> bool {
        let between = state::SECONDS_BETWEEN.max(self.took / Self::SHARE);
        now - self.at + self.step > between
    }
}

/// Checkpoints that a disk must have space for: the last good one, the next, and a margin.
const CHECKPOINTS_NEEDED: f64 = 2.2;

/// What the next step does.
enum Next {
    Train,
    Checkpoint,
    Pack,
    Measure(Box<Model>),
    Nothing,
}

/// Where checkpoints go, and whose they are.
struct Checkpoints<'a> {
    store: &'a dyn Store,
    folder: PathBuf,
    /// Hash of everything that a resumed run must share with the run that it continues.
    run: String,
}

impl<'a, D: Device<Number = f32>> ModelStage<'a, D> {
    /// Builds the trainer, and loads the state that a resumed run continues from.
    ///
    /// Errors: `Config`, more memory than there is; those of the text, the trainer and the
    /// checkpoints.
    pub(crate) fn new(
        mut inputs: StageInputs<'a>,
        config: &TrainConfig,
        device: D,
        events: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let StageInputs { model, recipe, run, text, host, pool, .. } = &inputs;
        // A resumed run uses the arithmetic of its checkpoint, whatever the probe says
        // this time.
        let config = TrainConfig {
            arithmetic: Some(arithmetic::choose(config.arithmetic, recipe)?),
            ..config.clone()
        };
        let windows = text.windows(model, config.sequence_length)?;
        let rows = config.micro_batch.unwrap_or(config.batch) * config.sequence_length;
        memory::check(&model.architecture, rows, host)?;
        let steps = config.steps();
        let checkpoints = run.run_folder.as_deref().map(|folder| Checkpoints {
            store: &*host.store,
            folder: folder.into(),
            run: identity(inputs.start(), recipe, text, pool),
        });
        let mut sequences = Sequences::of(windows, config.sequence_length, config.seed);
        if inputs.previous.is_none() {
            let linears: usize = (0..model.architecture.layers.len())
                .map(|layer| model.architecture.linears(layer).len())
                .sum();
            events(Event::Phase {
                name: "calibrate".into(),
                detail: format!("first steps of {linears} matrices"),
            });
        }
        let calibration = sequences.batch(0, config.batch);
        let mut trainer = Trainer::watched(
            model,
            inputs.previous.as_deref(),
            recipe,
            inputs.trains,
            &config,
            steps,
            &calibration,
            device,
            &mut told(host, "calibrate", "tensors", events),
        )?;
        let starts = Starts::of(&trainer.matrices, &trainer.parameters)?;
        if let Some(checkpoints) = &checkpoints {
            checkpoints.begin(&mut trainer, run.resume, events)?;
            checkpoints.check_space(state::bytes(&trainer))?;
        }
        let per_step = config.batch * config.sequence_length;
        events(Event::Phase {
            name: "train".into(),
            detail: format!("{steps} steps of {per_step} tokens in {}", trainer.arithmetic.name()),
        });
        let (first, start, losses) = (trainer.step, host.seconds(), vec![]);
        let saved = Saved { at: start, took: 0.0, step: 0.0 };
        let next = if first < steps { Next::Train } else { Next::Pack };
        // The trainer has its own copy.
        inputs.previous = None;
        Ok(Self {
            inputs,
            config,
            steps,
            sequences,
            trainer,
            starts,
            checkpoints,
            first,
            start,
            seconds: 0.0,
            losses,
            saved,
            next,
        })
    }

    /// One optimizer step or one checkpoint; behind the last optimizer step the packed model, and
    /// then its measurement.
    ///
    /// Errors: cancelled, in training or in `measure`; then a checkpoint is written if there is a
    /// run folder, and the error says where.
    pub(crate) fn step(
        &mut self,
        measure: &mut Measure,
        events: &mut dyn FnMut(Event),
    ) -> Result<Progress<Trained>> {
        self.next = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Train => self.train(events)?,
            Next::Checkpoint => {
                self.checkpoint(events);
                if self.trainer.step == self.steps { Next::Pack } else { Next::Train }
            }
            Next::Pack => {
                self.seconds = self.inputs.host.seconds() - self.start;
                if let Some(message) = self.worse() {
                    events(Event::Warning { message });
                }
                events(Event::Phase {
                    name: "pack".into(),
                    detail: "codes and scales as the last forward used them".into(),
                });
                let packed = self
                    .trainer
                    .settle()
                    .and_then(|()| self.trainer.packed(self.inputs.model, &self.inputs.recipe));
                Next::Measure(Box::new(packed.map_err(|e| self.kept(e, events))?))
            }
            Next::Measure(packed) => {
                let finished = self.finish(*packed, measure, events);
                return finished.map(Progress::Done).map_err(|e| self.kept(e, events));
            }
            Next::Nothing => {
                return Err(Error::Internal { reason: "a stage is over, and was stepped".into() });
            }
        };
        Ok(Progress::Going)
    }

    fn train(&mut self, events: &mut dyn FnMut(Event)) -> Result<Next> {
        let (trainer, config) = (&mut self.trainer, &self.config);
        let start = trainer.step * config.batch as u64;
        let tokens = self.sequences.batch(start, config.batch);
        let targets = self.sequences.targets(start, config.batch);
        let batch = Batch { tokens: &tokens, targets: targets.as_deref() };
        let began = self.inputs.host.seconds();
        let report = match trainer.step(batch, config.sequence_length, self.inputs.host) {
            Err(Error::Cancelled { .. }) => return Err(self.stop(events)),
            // It was found before the update, so that the state is that of the step before.
            Err(e @ Error::NonFinite { .. }) => {
                if self.trainer.step > self.first {
                    self.checkpoint(events);
                }
                return Err(self.kept(e, events));
            }
            other => other?,
        };
        self.losses.push(report.loss);
        events(self.step_event(&report));
        let (step, now) = (self.trainer.step, self.inputs.host.seconds());
        self.saved.step = now - began;
        let is_due = step == self.steps
            || match self.inputs.run.checkpoint_every {
                None => self.saved.is_due(now),
                Some(every) => every > 0 && step.is_multiple_of(every),
            };
        Ok(match &self.checkpoints {
            Some(_) if is_due => Next::Checkpoint,
            _ if step == self.steps => Next::Pack,
            _ => Next::Train,
        })
    }

    /// Saves the state of a run that goes on. That it cannot be saved now is no reason to lose what
    /// is trained: the last checkpoint is still there, and a later one may find more space.
    fn checkpoint(&mut self, events: &mut dyn FnMut(Event)) {
        let Some(checkpoints) = &self.checkpoints else { return };
        let began = self.inputs.host.seconds();
        if let Err(e) = checkpoints.save(&self.trainer, events) {
            events(Event::Warning {
                message: format!("the run goes on, but its state could not be saved: {e}"),
            });
        }
        self.saved.at = self.inputs.host.seconds();
        self.saved.took = self.saved.at - began;
    }

    /// An error after which the state of training is still there: says where.
    fn kept(&self, e: Error, events: &mut dyn FnMut(Event)) -> Error {
        let folder = self.checkpoints.as_ref().map(|checkpoints| &checkpoints.folder);
        let there =
            folder.filter(|folder| state::any(&*self.inputs.host.store, folder).unwrap_or(false));
        if let Some(folder) = there.filter(|_| !e.is_cancelled()) {
            let folder = folder.display();
            events(Event::Warning {
                message: format!(
                    "the state of training is kept in {folder}; the same run with resume continues from it"
                ),
            });
        }
        e
    }

    fn finish(
        &mut self,
        packed: Model,
        measure: &mut Measure,
        events: &mut dyn FnMut(Event),
    ) -> Result<Trained> {
        let evaluations = match measure(&packed, events) {
            Err(e) if e.is_cancelled() => return Err(self.stop(events)),
            other => other?,
        };
        let (trainer, losses) = (&self.trainer, std::mem::take(&mut self.losses));
        let per_step = self.tokens_per_step();
        Ok(Trained {
            model: packed,
            evaluations,
            steps: trainer.step,
            tokens: trainer.step * per_step,
            seconds: self.seconds,
            tokens_per_second: ((trainer.step - self.first) * per_step) as f64
                / self.seconds.max(1e-9),
            final_loss: losses.last().copied().unwrap_or(f64::NAN),
            stages: vec![StageRecord {
                first_step: self.first,
                losses,
                blocks: vec![],
                matrices: self.starts.records(&trainer.matrices, &trainer.parameters)?,
                experts: trainer.experts.clone(),
            }],
            checkpoint_bytes: checkpoint::size(state::entries(trainer)?)?,
        })
    }

    /// What to say if the loss of the last steps is above that of the first, whose model is what the
    /// stage began with, as a rule the rounded one: too high a rate undoes in its first steps more than a short training makes good.
    /// Terms with weights that change are not compared.
    fn worse(&self) -> Option<String> {
        let (&first, steps) = (self.losses.first()?, self.losses.len());
        if self.first > 0 || steps < LEAST_COMPARED || !self.config.terms.is_empty() {
            return None;
        }
        let last = &self.losses[steps - steps / 10..];
        let last = last.iter().sum::<f64>() / last.len() as f64;
        let rate = self.trainer.optimizer.schedule.learning_rate;
        (last > MUCH_WORSE * first).then(|| {
            format!(
                "the loss of the last steps is {last:.3}, and that of the first was {first:.3}: \
                 training left the model worse than it began; use a lower learning rate than \
                 {rate:.1e} or more tokens"
            )
        })
    }

    fn tokens_per_step(&self) -> u64 {
        (self.config.batch * self.config.sequence_length) as u64
    }

    fn step_event(&self, report: &StepReport) -> Event {
        let (step, host, per_step) = (self.trainer.step, self.inputs.host, self.tokens_per_step());
        let per_second = (step - self.first) as f64 / (host.seconds() - self.start);
        Event::Step {
            step,
            steps: self.steps,
            loss: report.loss,
            learning_rate: report.learning_rate,
            gradient_norm: report.gradient_norm,
            tokens: step * per_step,
            tokens_per_second: per_second * per_step as f64,
            eta_seconds: (self.steps - step) as f64 / per_second,
            memory_bytes: host.memory.peak(),
        }
    }

    /// The error of a cancelled run, with the checkpoint it can go on from.
    fn stop(&self, events: &mut dyn FnMut(Event)) -> Error {
        let save =
            |c: &Checkpoints| c.save(&self.trainer, events).map(|_| c.folder.display().to_string());
        match self.checkpoints.as_ref().map(save) {
            Some(Err(e)) => e,
            saved => Error::Cancelled { resume: saved.and_then(Result::ok) },
        }
    }
}

/// A whole model stage.
#[cfg(feature = "train")]
pub(crate) fn end_to_end<D: Device<Number = f32>>(
    inputs: StageInputs,
    config: &TrainConfig,
    device: D,
    measure: &mut Measure,
    events: &mut dyn FnMut(Event),
) -> Result<Trained> {
    let mut stage = ModelStage::new(inputs, config, device, events)?;
    crate::engine::progress::run_to_end(|| stage.step(measure, events))
}

impl Checkpoints<'_> {
    /// The state to go on from, if asked for.
    fn begin<D: Device<Number = f32>>(
        &self,
        trainer: &mut Trainer<D>,
        resume: bool,
        events: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let (store, folder) = (self.store, self.folder.display());
        if !resume {
            if state::any(store, &self.folder)? {
                events(Event::Warning {
                    message: format!(
                        "{folder} holds checkpoints of an earlier run; this one starts anew, resume would go on"
                    ),
                });
            }
            return Ok(());
        }
        let (path, reasons) = state::resume(trainer, store, &self.folder, &self.run)?;
        for reason in reasons {
            events(Event::Warning { message: format!("a checkpoint was ignored: {reason}") });
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

    /// Refuses a disk that is too small for the checkpoints of this stage, what they take now
    /// counted in.
    ///
    /// Errors: `Data`; those of reading the folder.
    fn check_space(&self, bytes: u64) -> Result<()> {
        let Some(free) = self.store.free(&self.folder) else { return Ok(()) };
        let needed = (bytes as f64 * CHECKPOINTS_NEEDED) as u64;
        let there = state::bytes_in(self.store, &self.folder)?;
        if free.saturating_add(there) >= needed {
            return Ok(());
        }
        let reason = format!(
            "its disk has {free} bytes free; the checkpoints of the run need {needed}: free some, or give the run a folder on another disk"
        );
        Err(Error::Data { data: self.folder.display().to_string(), reason })
    }

    fn save<D: Device<Number = f32>>(
        &self,
        trainer: &Trainer<D>,
        events: &mut dyn FnMut(Event),
    ) -> Result<PathBuf> {
        let path = state::save(trainer, self.store, &self.folder, &self.run)?;
        events(Event::Checkpoint { step: trainer.step, path: path.display().to_string() });
        Ok(path)
    }
}
