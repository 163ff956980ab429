//! The training of a window of layers by gradients: phases, steps, and the loss of a step. A block
//! is a window of one layer; a linear trains as a layer that has no other.

use crate::autograd::parameter::Parameters;
use crate::data::permutation;
use crate::device::{Device, DeviceBuffer};
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
use crate::solver::calibration::InputStream;
use crate::{Error, Result};
use halfstep_formats::architecture::Linear;
use std::borrow::Cow;
use std::collections::BTreeMap;

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

impl BlockStep {
    /// The same step of a block in which `steps` others were done before.
    pub(crate) fn after(self, steps: u64) -> Self {
        Self { step: self.step + steps, ..self }
    }
}

/// Steps done before this part of the run, and the seconds at which it began.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub first: u64,
    pub start: f64,
}

/// A layer that trains.
pub(crate) struct OpenLayer<D: Device> {
    student: Student<D>,
    starts: Starts,
    penalty: Option<Penalty>,
}

impl<D: Device<Number = f32>> OpenLayer<D> {
    pub(crate) fn new(
        blocks: &Blockwise<D>,
        layer: usize,
        penalty: Option<Penalty>,
    ) -> Result<Self> {
        Self::of(blocks, layer, None, penalty)
    }

    /// As [`Self::new`]; with `alone` one linear of the layer, whose own penalty is given.
    pub(crate) fn of(
        blocks: &Blockwise<D>,
        layer: usize,
        alone: Option<Linear>,
        penalty: Option<Penalty>,
    ) -> Result<Self> {
        let student = Student::of(blocks.student(), layer, alone, &blocks.device)?;
        let starts = Starts::of(&student.matrices, &student.parameters)?;
        Ok(Self { student, starts, penalty })
    }

    /// What it is now, as it will be stored; `losses` are those of its steps, `per_epoch` of each
    /// pass through the samples.
    pub(crate) fn finish(self, losses: Vec<f64>, per_epoch: usize) -> Result<Finished> {
        let Self { mut student, starts, .. } = self;
        student.settle()?;
        let matrices = starts.records(&student.matrices, &student.parameters)?;
        let record = BlockRecord::new(student.layer, losses, per_epoch);
        Ok(Finished { record, matrices, ..student.finish()? })
    }

    /// Its name in an error.
    fn place(&self) -> String {
        let Student { layer, alone, .. } = &self.student;
        alone.map_or_else(|| format!("block {layer}"), |linear| linear.weight_name(*layer))
    }

    /// Everything that the training so far has changed, by name.
    pub(crate) fn values(&self) -> Result<Vec<OpenValue<'_>>> {
        let Parameters { device, .. } = &self.student.parameters;
        let learned = self.student.parameters.learned();
        learned.map(|p| Ok((p.name.as_str(), device.read(&p.value)?))).collect()
    }

    /// Goes on from what [`Self::values`] gave.
    ///
    /// Errors: `Internal`, a value is missing or of another size.
    pub(crate) fn restore(&mut self, values: &BTreeMap<String, Vec<f32>>) -> Result<()> {
        let device = self.student.parameters.device.clone();
        for parameter in self.student.parameters.learned_mut() {
            let stored = values.get(&parameter.name);
            let stored = stored.filter(|stored| stored.len() == parameter.value.len());
            let reason = || format!("no value of {} to go on from", parameter.name);
            let stored = stored.cloned().ok_or_else(|| Error::Internal { reason: reason() })?;
            parameter.value = device.upload(stored)?;
        }
        Ok(())
    }
}

/// A name, and the values that a layer has learned under it.
pub(crate) type OpenValue<'a> = (&'a str, Cow<'a, [f32]>);

/// What a window gives: its first layers, finished, and those that go on learning in the next one.
pub(crate) struct TrainedLayers<D: Device> {
    pub finished: Vec<Finished>,
    pub open: Vec<OpenLayer<D>>,
}

/// Layers that train together, step by step. The plain stream is at the outputs of the last one,
/// the quantized one at the inputs of the first.
pub(crate) struct BlockTraining<D: Device> {
    layers: Vec<OpenLayer<D>>,
    /// Number of layers that are finished with this window.
    finishes: usize,
    losses: Vec<f64>,
    /// The place of the next step: phase, epoch of it, batch of that.
    phase: usize,
    epoch: usize,
    batch: usize,
    /// Of the current phase, once it has begun: one for each layer.
    optimizers: Vec<Optimizer<D>>,
}

impl<D: Device<Number = f32>> BlockTraining<D> {
    pub(crate) fn new(layers: Vec<OpenLayer<D>>, finishes: usize) -> Self {
        let (losses, phase, epoch, batch, optimizers) = (vec![], 0, 0, 0, vec![]);
        Self { layers, finishes, losses, phase, epoch, batch, optimizers }
    }

    /// One optimizer step; behind the last one the codes.
    ///
    /// Errors: `NonFinite`, a loss or a gradient; cancelled.
    pub(crate) fn step(
        &mut self,
        blocks: &Blockwise<D>,
        streams: &mut Streams,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Progress<TrainedLayers<D>>> {
        let config = blocks.config;
        let per_epoch = config.samples.div_ceil(config.batch);
        while config.phases.get(self.phase).is_some_and(|phase| self.epoch == phase.epochs) {
            (self.phase, self.epoch, self.optimizers) = (self.phase + 1, 0, vec![]);
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
        let steps = (phase.epochs * per_epoch) as u64;
        if self.optimizers.is_empty() {
            let depth = blocks.model.architecture.layers.len() as f64;
            let of = |open: &OpenLayer<D>| {
                let growth = 1.0 + config.rate_growth * open.student.layer as f64 / depth;
                optimizer(phase, config, growth, steps)
            };
            self.optimizers = self.layers.iter().map(of).collect();
        }
        let at = (self.epoch * per_epoch + self.batch) as u64;
        let step = self.losses.len() as u64 + 1;
        let progress = at as f64 / steps.max(1) as f64;
        let terms = at_progress(&config.phase_terms(phase), progress);
        let mut loss = blocks.gradients(&self.layers, streams, batch, &terms)?;
        for OpenLayer { student, .. } in &self.layers {
            let regularise = |m: &Matrix<D>| m.regularise(&student.parameters, progress);
            loss += student.matrices.iter().map(regularise).sum::<Result<f64>>()?;
        }
        if !loss.is_finite() {
            let first = self.layers.first().map_or_else(String::new, OpenLayer::place);
            return Err(Error::NonFinite { step, tensor: format!("the loss of {first}") });
        }
        let norms = self
            .layers
            .iter()
            .zip(&self.optimizers)
            .map(|(layer, optimizer)| optimizer.gradient_norm(&layer.student.parameters, step));
        let norms = norms.collect::<Result<Vec<_>>>()?;
        let gradient_norm = norms.into_iter().reduce(f64::hypot).unwrap_or(0.0);
        for (OpenLayer { student, .. }, optimizer) in
            self.layers.iter_mut().zip(&mut self.optimizers)
        {
            optimizer.anchor = anchor(&terms);
            let signed = |matrix: &Matrix<D>| matrix.signed_scales(&student.parameters);
            let before = student.matrices.iter().map(signed).collect::<Result<Vec<_>>>()?;
            optimizer.update(&mut student.parameters, at, gradient_norm)?;
            for (matrix, before) in student.matrices.iter().zip(&before) {
                matrix.guard(&mut student.parameters, before.as_ref())?;
            }
        }
        self.losses.push(loss);
        let rate = self.optimizers.first().map_or(0.0, |optimizer| optimizer.schedule.rate(at))
            * phase.rates.ranges.max(phase.rates.weights);
        tell(BlockEvent::Step(BlockStep { step, loss, rate, gradient_norm }));
        self.batch += 1;
        if self.batch == per_epoch {
            (self.epoch, self.batch) = (self.epoch + 1, 0);
        }
        Ok(Progress::Going)
    }

    fn finish(&mut self, per_epoch: usize) -> Result<TrainedLayers<D>> {
        let mut layers = std::mem::take(&mut self.layers);
        let open = layers.split_off(self.finishes);
        let losses = std::mem::take(&mut self.losses);
        let finish = |layer: OpenLayer<D>| layer.finish(losses.clone(), per_epoch);
        let finished = layers.into_iter().map(finish).collect::<Result<_>>()?;
        Ok(TrainedLayers { finished, open })
    }
}

impl<D: Device<Number = f32>> Blockwise<'_, D> {
    /// The event of a step of the window that starts at `first`.
    pub(crate) fn step_event(&self, first: usize, step: &BlockStep, pace: Pace) -> Event {
        let steps = self.config.steps();
        let done = self.trainings_before(first) as u64 * steps + step.step;
        let all = self.trainings() as u64 * steps;
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
        layers: &[OpenLayer<D>],
        streams: &mut Streams,
        batch: &[usize],
        terms: &[(TermConfig, f64)],
    ) -> Result<f64> {
        let parameters = || layers.iter().flat_map(|layer| &layer.student.parameters.list);
        parameters().for_each(|p| p.sink.clear());
        let parts = layers
            .iter()
            .map(|OpenLayer { student, .. }| Ok((student.weights()?, student.sinks())))
            .collect::<Result<Vec<_>>>()?;
        let mut loss = 0.0;
        let output: Vec<_> =
            terms.iter().filter(|(term, _)| term.tap() == Tap::LayerOutput).copied().collect();
        if !output.is_empty() {
            let (context, sequences) = (&self.quantized, batch.len());
            let alone = layers.first().and_then(|layer| layer.student.alone);
            let pass = LayerPass { context, layers: &parts, alone, terms: &output, sequences };
            for &sample in batch {
                let x = streams.quantized.read(sample, 1)?;
                let (a, sides) = (&self.model.architecture, &mut streams.sides);
                let mut read = |layer| sides.read(a, layer, InputStream::Quantized, sample);
                let sides = layers.iter().map(|layer| read(layer.student.layer));
                let sides = sides.collect::<Result<Vec<_>>>()?;
                let targets = std::iter::once(&mut streams.plain).chain(&mut streams.second_target);
                let targets =
                    targets.map(|target| target.read(sample, 1)).collect::<Result<_>>()?;
                pass.gradients(x, &sides, targets)?.into_iter().for_each(|term| loss += term);
            }
        } else {
            parameters().try_for_each(|p| p.sink.add_zeros(&self.device))?;
        }
        let saliency = terms.iter().find(|(term, _)| matches!(term, TermConfig::Saliency(_)));
        for (OpenLayer { student, penalty, .. }, (weights, _)) in layers.iter().zip(&parts) {
            if let Some((penalty, &(_, weight))) = penalty.as_ref().zip(saliency) {
                loss += penalty.add(weight, &student.matrices, &student.parameters, weights)?;
            }
            student.backward()?;
        }
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

/// Rates as given times `growth`: the groups' multipliers are the rates themselves.
fn optimizer<D: Device>(
    phase: &BlockPhase,
    config: &BlockConfig,
    growth: f64,
    steps: u64,
) -> Optimizer<D> {
    let group = |rate_multiplier, weight_decay| GroupConfig { rate_multiplier, weight_decay };
    let still = group(0.0, 0.0);
    Optimizer {
        rule: config.optimizer(),
        schedule: Schedule { steps, warmup: 0, learning_rate: growth, min_ratio: phase.min_ratio },
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
