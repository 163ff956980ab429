//! The streams of hidden states go through layers, one sequence at a time.

use crate::Result;
use crate::device::{Cpu, Device};
use crate::engine::blockwise::{Blockwise, Streams};
use crate::engine::progress::Progress;
use crate::error::Error;
use crate::layer::block::{Context, check_finite};
use crate::layer::finished::Finished;
use crate::layer::tensors::teacher;
use crate::layer::weights::BlockWeights;
use std::ops::Range;

/// The plain stream becomes the first target of a window of layers, and the second is made.
pub(crate) struct TargetPass {
    last: usize,
    /// Of the layers that a stream has to go through.
    weights: Vec<BlockWeights<Cpu>>,
    /// The first ones of which the plain stream has gone through already.
    passed: usize,
    sample: usize,
}

impl TargetPass {
    /// The layers of a window, from the `new`th of which the plain stream is at the inputs.
    pub fn new(blocks: &Blockwise, layers: Range<usize>, new: usize) -> Result<Self> {
        // The second target begins with the window.
        let first = if blocks.second_stream() { layers.start } else { new };
        let weights = (first..layers.end).map(|layer| teacher(&blocks.device, blocks.model, layer));
        let weights = weights.collect::<Result<_>>()?;
        Ok(Self { last: layers.end - 1, weights, passed: new - first, sample: 0 })
    }

    /// The next sequence.
    ///
    /// Errors: `NonFinite`, what the last layer gives; cancelled.
    pub fn step(&mut self, blocks: &Blockwise, streams: &mut Streams) -> Result<Progress<()>> {
        blocks.host.check_cancelled()?;
        let (last, sample) = (self.last, self.sample);
        let new = &self.weights[self.passed..];
        let target = through(blocks, &blocks.plain, new, streams.plain.read(sample, 1)?)?;
        check_finite(&target, || format!("the teacher's layer {last}, sequence {sample}"))?;
        streams.plain.write(sample, &target)?;
        if let Some(second) = &mut streams.second_target {
            let x = streams.quantized.read(sample, 1)?;
            second.write(sample, &through(blocks, &blocks.plain, &self.weights, x)?)?;
        }
        self.sample += 1;
        Ok(if self.sample < blocks.config.samples { Progress::Going } else { Progress::Done(()) })
    }
}

/// The quantized stream goes through finished layers, as they are stored.
pub(crate) struct OutputPass {
    last: usize,
    weights: Vec<BlockWeights<Cpu>>,
    /// Whether the plain stream is at the outputs of the last of them.
    compares: bool,
    sample: usize,
    loss: f64,
}

impl OutputPass {
    /// The layers from `first`; the plain stream is at the inputs of layer `plain`.
    pub fn new(
        blocks: &Blockwise,
        first: usize,
        finished: &[Finished],
        plain: usize,
    ) -> Result<Self> {
        let weights = finished.iter().enumerate().map(|(i, layer)| {
            let integer = |linear| blocks.integer(first + i, linear);
            layer.weights(&blocks.device, &blocks.model.architecture, first + i, integer)
        });
        let (weights, end) = (weights.collect::<Result<_>>()?, first + finished.len());
        Ok(Self { last: end - 1, weights, compares: end == plain, sample: 0, loss: 0.0 })
    }

    /// The next sequence; after the last, the mean squared difference from the first target if that
    /// is known.
    ///
    /// Errors: `NonFinite`, what the last layer gives; cancelled.
    pub fn step(
        &mut self,
        blocks: &Blockwise,
        streams: &mut Streams,
    ) -> Result<Progress<Option<f64>>> {
        blocks.host.check_cancelled()?;
        let (sample, elements) = (self.sample, (blocks.config.samples * blocks.width()) as f64);
        let x = streams.quantized.read(sample, 1)?;
        let y = through(blocks, &blocks.quantized, &self.weights, x)?;
        if self.compares {
            let (target, mut unused) = (streams.plain.read(sample, 1)?, vec![0.0; y.len()]);
            self.loss += blocks.device.squared_difference(&y, &target, elements, &mut unused)?;
        } else {
            check_finite(&y, || format!("quantized block {}, sequence {sample}", self.last))?;
        }
        streams.quantized.write(sample, &y)?;
        self.sample += 1;
        if self.sample < blocks.config.samples {
            return Ok(Progress::Going);
        }
        if !self.loss.is_finite() {
            return Err(Error::NonFinite {
                step: blocks.config.steps(),
                tensor: format!("the output of quantized block {}", self.last),
            });
        }
        Ok(Progress::Done(self.compares.then_some(self.loss)))
    }
}

/// One sequence through layers in a row.
fn through(
    blocks: &Blockwise,
    context: &Context<Cpu>,
    layers: &[BlockWeights<Cpu>],
    x: Vec<f32>,
) -> Result<Vec<f32>> {
    layers.iter().try_fold(x, |x, weights| blocks.forward(context, weights, x))
}

impl Blockwise<'_> {
    /// A whole [`TargetPass`] of the window that starts at `first`, as of the first one.
    #[cfg(feature = "train")]
    pub(crate) fn targets(&self, first: usize, streams: &mut Streams) -> Result<()> {
        let mut pass = TargetPass::new(self, self.window_at(first), first)?;
        crate::engine::progress::run_to_end(|| pass.step(self, streams))
    }

    /// A whole [`OutputPass`].
    #[cfg(feature = "train")]
    pub(crate) fn advance(
        &self,
        first: usize,
        finished: &[Finished],
        streams: &mut Streams,
    ) -> Result<Option<f64>> {
        let plain = self.window_at(first).end;
        let mut pass = OutputPass::new(self, first, finished, plain)?;
        crate::engine::progress::run_to_end(|| pass.step(self, streams))
    }
}
