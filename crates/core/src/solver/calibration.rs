//! What a solver asks of the loop that runs it: the current layer, and what goes into it. The loop
//! over layers implements it; a solver knows nothing else of training.

use crate::Result;
use crate::device::Device;
use crate::layer::sides::SideValues;
use crate::layer::weights::BlockWeights;
use crate::quantizer::site::WeightSite;
use crate::statistics::{Pass, Seen};
use halfstep_formats::Model;
use halfstep_formats::architecture::ActivationSite;
use halfstep_kernels::Pool;

/// The two ways through the layers before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputStream {
    /// The teacher's layers; nothing is quantized on the way through this one either.
    Plain,
    /// The quantized layers; activations and cache of this one are quantized too.
    Quantized,
}

/// What goes into a layer in one sequence.
#[derive(Clone, Debug)]
pub(crate) struct LayerInput {
    /// `[T, D]`.
    pub x: Vec<f32>,
    /// What it reads beside.
    pub sides: SideValues,
    /// Number of the sequence.
    pub sample: usize,
}

/// One layer that is to be solved, and the sequences that go into it.
pub(crate) trait Calibration<'a, D: Device> {
    /// The model that the layer belongs to: the original, or what an earlier stage stored.
    fn model(&self) -> &'a Model;

    /// Number of the layer.
    fn layer(&self) -> usize;

    /// Threads of the host.
    fn pool(&self) -> &'a Pool;

    /// Where sequences go through the layer.
    fn device(&self) -> &'a D;

    /// The quantizer of a weight by its name; None where it stays in floating point.
    fn site(&self, weight: &str) -> Option<WeightSite>;

    /// Number of sequences.
    fn samples(&self) -> usize;

    /// What goes into the layer.
    fn input(&mut self, stream: InputStream, sample: usize) -> Result<LayerInput>;

    /// Shows on the host what linears read, site by site, when x goes through the layer with these
    /// weights; experts that few rows reach get some more.
    ///
    /// Errors: those of `see` and of the device; cancelled.
    fn seen(
        &self,
        stream: InputStream,
        weights: &BlockWeights<D>,
        x: LayerInput,
        see: &mut dyn FnMut(ActivationSite, &[f32]) -> Result<()>,
    ) -> Result<()>;

    /// What the layer with these weights gives for x, `[T, D]`.
    ///
    /// Errors: those of the device; cancelled.
    fn output(
        &self,
        stream: InputStream,
        weights: &BlockWeights<D>,
        x: LayerInput,
    ) -> Result<D::Buffer>;

    /// Tells the user of something that the result should be read with.
    fn warn(&mut self, message: String);
}

/// All sequences on their way through the layer.
pub(crate) struct LayerPass<'c, 'a, D: Device> {
    pub layer: &'c mut dyn Calibration<'a, D>,
    pub stream: InputStream,
    pub weights: &'c BlockWeights<D>,
}

impl<D: Device> Pass for LayerPass<'_, '_, D> {
    fn sequences(&self) -> usize {
        self.layer.samples()
    }

    fn show(&mut self, sequence: usize, see: &mut dyn FnMut(Seen) -> Result<()>) -> Result<()> {
        let x = self.layer.input(self.stream, sequence)?;
        let see = &mut |site: ActivationSite, x: &[f32]| see(Seen::Input { site, x });
        self.layer.seen(self.stream, self.weights, x, see)
    }
}
