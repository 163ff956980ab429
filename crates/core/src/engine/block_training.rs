//! One block's training by gradients: phases, steps, and the loss of a step.

use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::data::permutation;
use crate::engine::blockwise::{Blockwise, Streams};
use crate::engine::memory::peak_bytes;
use crate::engine::observe::Starts;
use crate::engine::student::Student;
use crate::event::Event;
use crate::layer::block::Block;
use crate::layer::finished::Finished;
use crate::objective::saliency::Penalty;
use crate::objective::{LayerOutput, Tap, TermConfig, WeightedTerm};
use crate::optimizer::state::State;
use crate::optimizer::{GroupConfig, Optimizer, Schedule};
use crate::quantizer::matrix::Matrix;
use crate::recipe::BlockConfig;
use crate::recipe::block::BlockPhase;
use crate::record::BlockRecord;
use crate::{Error, Result};
use std::time::Instant;

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

/// Steps done before this part of the run, and when it began.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub first: u64,
    pub start: Instant,
}

impl BlockStep {
    pub fn event(
        &self,
        layer: usize,
        layers: usize,
        steps: u64,
        config: &BlockConfig,
        pace: Pace,
    ) -> Event {
        let (done, all) = (layer as u64 * steps + self.step, layers as u64 * steps);
        let per_second = (done - pace.first) as f64 / pace.start.elapsed().as_secs_f64();
        let per_step = (config.batch * config.sequence_length) as u64;
        Event::Step {
            step: done,
            steps: all,
            loss: self.loss,
            learning_rate: self.rate,
            gradient_norm: self.gradient_norm,
            tokens: done * per_step,
            tokens_per_second: per_second * per_step as f64,
            eta_seconds: (all - done) as f64 / per_second,
            memory_bytes: peak_bytes(),
        }
    }
}

impl Blockwise<'_> {
    /// The codes of a block that trains. The plain stream is at its outputs, the quantized one at
    /// its inputs.
    pub(crate) fn train_block(
        &self,
        layer: usize,
        streams: &mut Streams,
        penalty: Option<Penalty>,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Finished> {
        let mut student = Student::<f32>::new(self.student(), layer, self.pool)?;
        let starts = Starts::of(&student.matrices, &student.parameters, self.pool);
        let (per_epoch, mut done, mut losses) =
            (self.config.samples.div_ceil(self.config.batch), 0, vec![]);
        for (number, phase) in self.config.phases.iter().enumerate() {
            let mut optimizer = optimizer(phase, self.config, (phase.epochs * per_epoch) as u64);
            let terms = self.config.phase_terms(phase);
            for epoch in 0..phase.epochs {
                // The same order for every block: a function of seed, phase and epoch.
                let order = permutation(
                    self.config.samples,
                    self.config.seed,
                    (number << 16 | epoch) as u64,
                );
                for (i, batch) in order.chunks(self.config.batch).enumerate() {
                    self.check_cancelled()?;
                    let (at, step) = ((epoch * per_epoch + i) as u64, done + 1);
                    let progress = at as f64 / optimizer.schedule.steps.max(1) as f64;
                    let now = at_progress(&terms, progress);
                    let mut loss =
                        self.gradients(&student, streams, batch, &now, penalty.as_ref())?;
                    optimizer.anchor = anchor(&now);
                    let regularise =
                        |matrix: &Matrix<f32>| matrix.regularise(&student.parameters, progress);
                    loss += student.matrices.iter().map(regularise).sum::<f64>();
                    if !loss.is_finite() {
                        return Err(Error::NonFinite {
                            step,
                            tensor: format!("the loss of block {layer}"),
                        });
                    }
                    let gradient_norm =
                        optimizer.gradient_norm(self.pool, &student.parameters, step)?;
                    let signs: Vec<_> =
                        student.matrices.iter().map(|m| m.signs(&student.parameters)).collect();
                    optimizer.update(self.pool, &mut student.parameters, at, gradient_norm);
                    for (matrix, signs) in student.matrices.iter().zip(&signs) {
                        matrix.guard(&mut student.parameters, signs);
                    }
                    done = step;
                    losses.push(loss);
                    let rate =
                        optimizer.schedule.rate(at) * phase.rates.ranges.max(phase.rates.weights);
                    tell(BlockEvent::Step(BlockStep { step, loss, rate, gradient_norm }));
                }
            }
        }
        student.settle();
        let matrices = starts.records(&student.matrices, &student.parameters, self.pool);
        Ok(Finished {
            record: BlockRecord::new(layer, losses, per_epoch),
            matrices,
            ..student.finish(self.pool)?
        })
    }

    /// Loss of some sequences, with the gradients of what learns left in its sinks.
    fn gradients(
        &self,
        student: &Student<f32>,
        streams: &mut Streams,
        batch: &[usize],
        terms: &[(TermConfig, f64)],
        penalty: Option<&Penalty>,
    ) -> Result<f64> {
        student.parameters.list.iter().for_each(|p| p.sink.clear());
        let (weights, sinks) = (student.weights(self.pool), student.sinks());
        let mut loss = 0.0;
        let output: Vec<_> =
            terms.iter().filter(|(term, _)| term.tap() == Tap::LayerOutput).collect();
        if !output.is_empty() {
            let shape = [self.config.sequence_length, self.model.architecture.hidden_size];
            for &sample in batch {
                let x = Tensor::new(streams.quantized.read(sample, 1)?, &shape)?;
                let mut tape = Tape::on();
                let y =
                    Block { context: &self.quantized, weights: &weights, sinks: &sinks, tap: None }
                        .forward(&mut tape, &x)?;
                let mut dy = vec![0.0; self.width()];
                let targets = std::iter::once(&mut streams.plain).chain(&mut streams.second_target);
                for target in targets {
                    let target = &target.read(sample, 1)?;
                    let (pool, y, sequences) = (self.pool, y.values(), batch.len());
                    let at = LayerOutput { pool, y, target, width: shape[1], sequences };
                    for (term, weight) in &output {
                        loss += term.of_layer_output(at, *weight, &mut dy);
                    }
                }
                tape.backward(self.pool, &x, &y, Tensor::new(dy, &shape)?)?;
            }
        } else {
            student
                .parameters
                .list
                .iter()
                .for_each(|p| p.sink.add(|gradient, _| gradient.fill(0.0)));
        }
        let saliency = terms.iter().find(|(term, _)| matches!(term, TermConfig::Saliency(_)));
        if let Some((penalty, &(_, weight))) = penalty.zip(saliency) {
            loss +=
                penalty.add(weight, &student.matrices, &student.parameters, &weights, self.pool);
        }
        student.backward(self.pool);
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
fn optimizer<T>(phase: &BlockPhase, config: &BlockConfig, steps: u64) -> Optimizer<T> {
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
