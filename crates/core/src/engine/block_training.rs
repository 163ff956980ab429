//! One block's training by gradients: phases, steps, and the loss of a step.

use crate::data::permutation;
use crate::device::{Cpu, Device};
use crate::engine::blockwise::{Blockwise, Streams};
use crate::engine::observe::Starts;
use crate::engine::progress::Progress;
use crate::engine::student::{LayerPass, Student};
use crate::event::Event;
use crate::layer::finished::Finished;
use crate::objective::saliency::Penalty;
use crate::objective::{Tap, TermConfig, WeightedTerm};
use crate::optimizer::state::State;
use crate::optimizer::{GroupConfig, Optimizer, Schedule};
use crate::quantizer::matrix::Matrix;
use crate::recipe::BlockConfig;
use crate::recipe::block::BlockPhase;
use crate::record::BlockRecord;
use crate::{Error, Result};

/// What is heard of a block in the making.
pub(crate) enum BlockEvent {
    Step(BlockStep),
    Warning(String),
}

/// What one step of a block did.
pub(crate) struct BlockStep {
    /// Of this block, from 1.
    step: u64,
    pub loss: f64,
    rate: f64,
    gradient_norm: f64,
}

/// Steps done before this part of the run, and the seconds at which it began.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub first: u64,
    pub start: f64,
}

/// One block that trains, step by step. The plain stream is at its outputs, the quantized one at
/// its inputs.
pub(crate) struct BlockTraining {
    layer: usize,
    penalty: Option<Penalty>,
    student: Student<Cpu>,
    starts: Starts,
    losses: Vec<f64>,
    /// The place of the next step: phase, epoch of it, batch of that.
    phase: usize,
    epoch: usize,
    batch: usize,
    /// Of the phase at hand, once it has begun.
    optimizer: Option<Optimizer<Cpu>>,
}

impl BlockTraining {
    pub fn new(blocks: &Blockwise, layer: usize, penalty: Option<Penalty>) -> Result<Self> {
        let student = Student::new(blocks.student(), layer, &blocks.device)?;
        let starts = Starts::of(&student.matrices, &student.parameters)?;
        let (losses, phase, epoch, batch, optimizer) = (vec![], 0, 0, 0, None);
        Ok(Self { layer, penalty, student, starts, losses, phase, epoch, batch, optimizer })
    }

    /// One optimizer step; behind the last one the codes.
    ///
    /// Errors: `NonFinite`, a loss or a gradient; cancelled.
    pub fn step(
        &mut self,
        blocks: &Blockwise,
        streams: &mut Streams,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Progress<Finished>> {
        let config = blocks.config;
        let per_epoch = config.samples.div_ceil(config.batch);
        while config.phases.get(self.phase).is_some_and(|phase| self.epoch == phase.epochs) {
            (self.phase, self.epoch, self.optimizer) = (self.phase + 1, 0, None);
        }
        let Some(phase) = config.phases.get(self.phase) else {
            return self.finish(per_epoch).map(Progress::Done);
        };
        // The same order for every block: a function of seed, phase and epoch.
        let number = (self.phase << 16 | self.epoch) as u64;
        let order = permutation(config.samples, config.seed, number);
        let first = self.batch * config.batch;
        let batch = &order[first..config.samples.min(first + config.batch)];
        blocks.host.check_cancelled()?;
        let optimizer = self
            .optimizer
            .get_or_insert_with(|| optimizer(phase, config, (phase.epochs * per_epoch) as u64));
        let student = &mut self.student;
        let at = (self.epoch * per_epoch + self.batch) as u64;
        let step = self.losses.len() as u64 + 1;
        let progress = at as f64 / optimizer.schedule.steps.max(1) as f64;
        let terms = at_progress(&config.phase_terms(phase), progress);
        let mut loss = blocks.gradients(student, streams, batch, &terms, self.penalty.as_ref())?;
        optimizer.anchor = anchor(&terms);
        let regularise = |matrix: &Matrix<Cpu>| matrix.regularise(&student.parameters, progress);
        loss += student.matrices.iter().map(regularise).sum::<Result<f64>>()?;
        if !loss.is_finite() {
            let tensor = format!("the loss of block {}", self.layer);
            return Err(Error::NonFinite { step, tensor });
        }
        let gradient_norm = optimizer.gradient_norm(&student.parameters, step)?;
        let signed = |matrix: &Matrix<Cpu>| matrix.signed_scales(&student.parameters);
        let before = student.matrices.iter().map(signed).collect::<Result<Vec<_>>>()?;
        optimizer.update(&mut student.parameters, at, gradient_norm)?;
        for (matrix, before) in student.matrices.iter().zip(&before) {
            matrix.guard(&mut student.parameters, before.as_ref())?;
        }
        self.losses.push(loss);
        let rate = optimizer.schedule.rate(at) * phase.rates.ranges.max(phase.rates.weights);
        tell(BlockEvent::Step(BlockStep { step, loss, rate, gradient_norm }));
        self.batch += 1;
        if self.batch == per_epoch {
            (self.epoch, self.batch) = (self.epoch + 1, 0);
        }
        Ok(Progress::Going)
    }

    fn finish(&mut self, per_epoch: usize) -> Result<Finished> {
        let student = &mut self.student;
        student.settle()?;
        let matrices = self.starts.records(&student.matrices, &student.parameters)?;
        let losses = std::mem::take(&mut self.losses);
        Ok(Finished {
            record: BlockRecord::new(self.layer, losses, per_epoch),
            matrices,
            ..student.finish()?
        })
    }
}

impl Blockwise<'_> {
    /// The event of a step of block `layer`.
    pub(crate) fn step_event(&self, layer: usize, step: &BlockStep, pace: Pace) -> Event {
        let (layers, steps) = (self.model.architecture.layers.len() as u64, self.config.steps());
        let (done, all) = (layer as u64 * steps + step.step, layers * steps);
        let per_second = (done - pace.first) as f64 / (self.host.seconds() - pace.start);
        let per_step = (self.config.batch * self.config.sequence_length) as u64;
        Event::Step {
            step: done,
            steps: all,
            loss: step.loss,
            learning_rate: step.rate,
            gradient_norm: step.gradient_norm,
            tokens: done * per_step,
            tokens_per_second: per_second * per_step as f64,
            eta_seconds: (all - done) as f64 / per_second,
            memory_bytes: self.host.memory.peak(),
        }
    }

    /// Loss of some sequences, with the gradients of what learns left in its sinks.
    fn gradients(
        &self,
        student: &Student<Cpu>,
        streams: &mut Streams,
        batch: &[usize],
        terms: &[(TermConfig, f64)],
        penalty: Option<&Penalty>,
    ) -> Result<f64> {
        student.parameters.list.iter().for_each(|p| p.sink.clear());
        let (weights, sinks) = (student.weights()?, student.sinks());
        let mut loss = 0.0;
        let output: Vec<_> =
            terms.iter().filter(|(term, _)| term.tap() == Tap::LayerOutput).copied().collect();
        if !output.is_empty() {
            let pass = LayerPass {
                context: &self.quantized,
                weights: &weights,
                sinks: &sinks,
                terms: &output,
                sequences: batch.len(),
            };
            for &sample in batch {
                let x = streams.quantized.read(sample, 1)?;
                let targets = std::iter::once(&mut streams.plain).chain(&mut streams.second_target);
                let targets =
                    targets.map(|target| target.read(sample, 1)).collect::<Result<_>>()?;
                pass.gradients(x, targets)?.into_iter().for_each(|term| loss += term);
            }
        } else {
            let list = &student.parameters.list;
            list.iter().try_for_each(|p| p.sink.add_zeros(&self.device))?;
        }
        let saliency = terms.iter().find(|(term, _)| matches!(term, TermConfig::Saliency(_)));
        if let Some((penalty, &(_, weight))) = penalty.zip(saliency) {
            loss += penalty.add(weight, &student.matrices, &student.parameters, &weights)?;
        }
        student.backward()?;
        Ok(loss)
    }
}

/// The terms that count at `progress`, the share of the phase's steps that are done.
fn at_progress(terms: &[WeightedTerm], progress: f64) -> Vec<(TermConfig, f64)> {
    let now = terms.iter().map(|term| (term.term, term.weight.at(progress)));
    now.filter(|(_, weight)| *weight > 0.0).collect()
}

/// The pull of weights towards where they began.
fn anchor(terms: &[(TermConfig, f64)]) -> f64 {
    let anchor = terms.iter().find(|(term, _)| matches!(term, TermConfig::Anchor(_)));
    anchor.map_or(0.0, |(_, weight)| *weight)
}

/// Rates as given: the groups' multipliers are the rates themselves.
fn optimizer<D: Device>(phase: &BlockPhase, config: &BlockConfig, steps: u64) -> Optimizer<D> {
    let group = |rate_multiplier, weight_decay| GroupConfig { rate_multiplier, weight_decay };
    let still = group(0.0, 0.0);
    Optimizer {
        rule: config.optimizer(),
        schedule: Schedule { steps, warmup: 0, learning_rate: 1.0, min_ratio: phase.min_ratio },
        max_norm: f64::INFINITY,
        weights: group(phase.rates.weights, 0.0),
        norms: group(phase.rates.weights, 0.0),
        ranges: group(phase.rates.ranges, config.weight_decay),
        low_rank: group(phase.rates.low_rank, config.weight_decay),
        anchor: 0.0,
        weight_steps: group(phase.rates.ranges, config.weight_decay),
        activation_steps: still,
        state: State::default(),
    }
}
