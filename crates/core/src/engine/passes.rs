//! The streams of hidden states go through layers, one sequence at a time.

use crate::Result;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceBuffer};
use crate::engine::blockwise::{Blockwise, Streams};
use crate::engine::progress::Progress;
use crate::engine::side_streams::SideStreams;
use crate::error::Error;
use crate::layer::block::{Context, check_finite};
use crate::layer::finished::Finished;
use crate::layer::tensors::teacher;
use crate::layer::weights::BlockWeights;
use crate::solver::calibration::InputStream;
use std::collections::BTreeMap;
use std::ops::Range;

/// The plain stream becomes the first target of a window of layers, and the second is made.
pub(crate) struct TargetPass<D: Device> {
    last: usize,
    /// Of the layers that a stream has to go through.
    weights: Vec<BlockWeights<D>>,
    /// The first ones of which the plain stream has gone through already.
    passed: usize,
    sample: usize,
}

impl<D: Device<Number = f32>> TargetPass<D> {
    /// The layers of a window, from the `new`th of which the plain stream is at the inputs.
    pub(crate) fn new(blocks: &Blockwise<D>, layers: Range<usize>, new: usize) -> Result<Self> {
        // The second target begins with the window.
        let first = if blocks.second_stream() { layers.start } else { new };
        let weights = (first..layers.end).map(|layer| teacher(&blocks.device, blocks.model, layer));
        let weights = weights.collect::<Result<_>>()?;
        Ok(Self { last: layers.end - 1, weights, passed: new - first, sample: 0 })
    }

    /// The next sequence.
    ///
    /// Errors: `NonFinite`, what the last layer gives; cancelled.
    pub(crate) fn step(
        &mut self,
        blocks: &Blockwise<D>,
        streams: &mut Streams,
    ) -> Result<Progress<()>> {
        blocks.host.check_cancelled()?;
        let (last, sample, device) = (self.last, self.sample, &blocks.device);
        let new = &self.weights[self.passed..];
        let x = streams.plain.read(sample, 1)?;
        let (plain, sides) = (InputStream::Plain, &mut streams.sides);
        let target = through(blocks, &blocks.plain, new, x, (sides, plain, sample), true)?;
        let target = target.read(device)?;
        check_finite(&target, || format!("the teacher's layer {last}, sequence {sample}"))?;
        streams.plain.write(sample, &target)?;
        if let Some(second) = &mut streams.second_target {
            let x = streams.quantized.read(sample, 1)?;
            let sides = (&mut streams.sides, InputStream::Quantized, sample);
            let target = through(blocks, &blocks.plain, &self.weights, x, sides, false)?;
            second.write(sample, &target.read(device)?)?;
        }
        self.sample += 1;
        Ok(if self.sample < blocks.config.samples { Progress::Going } else { Progress::Done(()) })
    }
}

/// The quantized stream goes through finished layers, as they are stored.
pub(crate) struct OutputPass<D: Device> {
    last: usize,
    weights: Vec<BlockWeights<D>>,
    /// Whether the plain stream is at the outputs of the last of them.
    compares: bool,
    sample: usize,
    loss: f64,
}

impl<D: Device<Number = f32>> OutputPass<D> {
    /// The layers from `first`; the plain stream is at the inputs of layer `plain`.
    pub(crate) fn new(
        blocks: &Blockwise<D>,
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
    pub(crate) fn step(
        &mut self,
        blocks: &Blockwise<D>,
        streams: &mut Streams,
    ) -> Result<Progress<Option<f64>>> {
        blocks.host.check_cancelled()?;
        let device = &blocks.device;
        let (sample, elements) = (self.sample, (blocks.config.samples * blocks.width()) as f64);
        let x = streams.quantized.read(sample, 1)?;
        let sides = (&mut streams.sides, InputStream::Quantized, sample);
        let y = through(blocks, &blocks.quantized, &self.weights, x, sides, true)?;
        if self.compares {
            let target = device.upload(streams.plain.read(sample, 1)?)?;
            let (y, mut unused) = (y.buffer()?, device.zeros(target.len())?);
            self.loss += device.squared_difference(y, &target, elements, &mut unused)?;
        } else {
            check_finite(&y.read(device)?, || {
                format!("quantized block {}, sequence {sample}", self.last)
            })?;
        }
        streams.quantized.write(sample, &y.read(device)?)?;
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

/// One sequence of a stream through layers in a row; `keep`: later layers are to read their keys and
/// values.
fn through<D: Device<Number = f32>>(
    blocks: &Blockwise<D>,
    context: &Context<D>,
    layers: &[BlockWeights<D>],
    x: Vec<f32>,
    (sides, stream, sample): (&mut SideStreams, InputStream, usize),
    keep: bool,
) -> Result<Tensor<D>> {
    let (mut x, mut passed) = (blocks.uploaded(x)?, BTreeMap::new());
    let (a, tokens) = (&context.architecture, context.tokens);
    for weights in layers {
        let layer = weights.layer;
        let beside = sides.read(a, layer, stream, sample)?;
        let mut beside = beside.uploaded(&blocks.device, tokens)?;
        let from = a.layers[layer].kv_from();
        if let Some(own) = from.and_then(|from| passed.get(&from)) {
            beside.keys_values = Some(<[Tensor<D>; 2]>::clone(own));
        }
        let (y, kept) = blocks.forward(context, weights, &x, beside)?;
        if keep {
            sides.keep(&blocks.device, layer, stream, sample, &kept)?;
        }
        passed.extend(kept.map(|kept| (layer, kept)));
        x = y;
    }
    Ok(x)
}

impl<D: Device<Number = f32>> Blockwise<'_, D> {
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
