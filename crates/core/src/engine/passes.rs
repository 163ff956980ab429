//! The streams of hidden states go through a layer, one sequence at a time.

use crate::Result;
use crate::device::{Cpu, Device};
use crate::engine::blockwise::{Blockwise, Streams};
use crate::engine::progress::Progress;
use crate::error::Error;
use crate::layer::block::check_finite;
use crate::layer::finished::Finished;
use crate::layer::tensors::teacher;
use crate::layer::weights::BlockWeights;

/// The plain stream becomes the first target of a layer, and the second is made.
pub(crate) struct TargetPass {
    layer: usize,
    weights: BlockWeights<Cpu>,
    sample: usize,
}

impl TargetPass {
    pub fn new(blocks: &Blockwise, layer: usize) -> Result<Self> {
        Ok(Self { layer, weights: teacher(&blocks.device, blocks.model, layer)?, sample: 0 })
    }

    /// The next sequence.
    ///
    /// Errors: `NonFinite`, what the layer gives; cancelled.
    pub fn step(&mut self, blocks: &Blockwise, streams: &mut Streams) -> Result<Progress<()>> {
        blocks.host.check_cancelled()?;
        let (layer, sample) = (self.layer, self.sample);
        let through = |x| blocks.forward(&blocks.plain, &self.weights, x);
        let target = through(streams.plain.read(sample, 1)?)?;
        check_finite(&target, || format!("the teacher's layer {layer}, sequence {sample}"))?;
        streams.plain.write(sample, &target)?;
        if let Some(second) = &mut streams.second_target {
            second.write(sample, &through(streams.quantized.read(sample, 1)?)?)?;
        }
        self.sample += 1;
        Ok(if self.sample < blocks.config.samples { Progress::Going } else { Progress::Done(()) })
    }
}

/// The quantized stream goes through a finished layer, as it is stored.
pub(crate) struct OutputPass {
    layer: usize,
    weights: BlockWeights<Cpu>,
    sample: usize,
    loss: f64,
}

impl OutputPass {
    pub fn new(blocks: &Blockwise, layer: usize, block: &Finished) -> Result<Self> {
        let (a, integer) = (&blocks.model.architecture, blocks.integer());
        let weights = block.weights(&blocks.device, a, layer, integer)?;
        Ok(Self { layer, weights, sample: 0, loss: 0.0 })
    }

    /// The next sequence; after the last, the mean squared difference from the first target.
    ///
    /// Errors: `NonFinite`, that difference; cancelled.
    pub fn step(&mut self, blocks: &Blockwise, streams: &mut Streams) -> Result<Progress<f64>> {
        blocks.host.check_cancelled()?;
        let (sample, elements) = (self.sample, (blocks.config.samples * blocks.width()) as f64);
        let x = streams.quantized.read(sample, 1)?;
        let y = blocks.forward(&blocks.quantized, &self.weights, x)?;
        let (target, mut unused) = (streams.plain.read(sample, 1)?, vec![0.0; y.len()]);
        self.loss += blocks.device.squared_difference(&y, &target, elements, &mut unused)?;
        streams.quantized.write(sample, &y)?;
        self.sample += 1;
        if self.sample < blocks.config.samples {
            return Ok(Progress::Going);
        }
        if !self.loss.is_finite() {
            return Err(Error::NonFinite {
                step: blocks.config.steps(),
                tensor: format!("the output of quantized block {}", self.layer),
            });
        }
        Ok(Progress::Done(self.loss))
    }
}

impl Blockwise<'_> {
    /// A whole [`TargetPass`].
    #[cfg(feature = "train")]
    pub(crate) fn targets(&self, layer: usize, streams: &mut Streams) -> Result<()> {
        let mut pass = TargetPass::new(self, layer)?;
        crate::engine::progress::run_to_end(|| pass.step(self, streams))
    }

    /// A whole [`OutputPass`].
    #[cfg(feature = "train")]
    pub(crate) fn advance(
        &self,
        layer: usize,
        block: &Finished,
        streams: &mut Streams,
    ) -> Result<f64> {
        let mut pass = OutputPass::new(self, layer, block)?;
        crate::engine::progress::run_to_end(|| pass.step(self, streams))
    }
}
