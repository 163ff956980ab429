//! A window of layers in the making: their codes by whatever the recipe says.

use crate::Result;
use crate::device::Device;
use crate::engine::block_training::{BlockEvent, BlockTraining, OpenLayer, TrainedLayers};
use crate::engine::blockwise::{Blockwise, LayerInputs, Streams};
use crate::engine::linear_maker::LinearMaker;
use crate::engine::passes::TargetPass;
use crate::engine::progress::Progress;
use crate::layer::finished::Finished;
use crate::layer::top_up::TopUp;
use crate::objective::saliency::Penalty;
use std::ops::Range;

/// Makes the layers of a window: solves its only one, trains that linear by linear, or trains them
/// together. Afterwards the plain stream is at the outputs of the last, the quantized one still at
/// the inputs of the first.
pub(crate) struct LayerMaker<D: Device> {
    layers: Range<usize>,
    /// Number of layers that are finished with this window.
    finishes: usize,
    /// Those that the window before trained already.
    open: Vec<OpenLayer<D>>,
    /// Of the layers after those.
    penalties: Vec<Option<Penalty>>,
    work: Work<D>,
}

enum Work<D: Device> {
    Solve,
    Linears(Box<LinearMaker<D>>),
    /// With the layer, if it is made already.
    Targets(TargetPass<D>, Option<Box<Finished>>),
    Train(Box<BlockTraining<D>>),
}

impl<D: Device<Number = f32>> LayerMaker<D> {
    /// The first layers of the window are `open` already, of the others there are `penalties`.
    pub(crate) fn new(
        blocks: &Blockwise<D>,
        first: usize,
        open: Vec<OpenLayer<D>>,
        penalties: Vec<Option<Penalty>>,
    ) -> Self {
        let layers = first..first + open.len() + penalties.len();
        let finishes = blocks.finished_with(first).len();
        Self { layers, finishes, open, penalties, work: Work::Solve }
    }

    /// One sequence or one optimizer step; a solver's whole work on the layer.
    pub(crate) fn step(
        &mut self,
        blocks: &Blockwise<D>,
        streams: &mut Streams,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Progress<TrainedLayers<D>>> {
        let layer = self.layers.start;
        match &mut self.work {
            Work::Solve if blocks.window.by_linears => {
                let penalty = self.penalties.pop().flatten();
                self.work = Work::Linears(Box::new(LinearMaker::new(blocks, layer, penalty)?));
            }
            Work::Linears(maker) => {
                if let Progress::Done(finished) = maker.step(blocks, streams, tell)? {
                    let pass = TargetPass::new(blocks, self.layers.clone(), layer)?;
                    self.work = Work::Targets(pass, Some(Box::new(finished)));
                }
            }
            Work::Solve => {
                let solved = match &blocks.config.solver {
                    Some(solver) => {
                        let warn = &mut |message: String| tell(BlockEvent::Warning(message));
                        let top_up = TopUp::default();
                        let mut inputs = LayerInputs { blocks, layer, streams, top_up, warn };
                        let experts = inputs.fill_experts()?;
                        let mut solved = solver.solve(&mut inputs)?;
                        solved.record.experts = experts;
                        Some(Box::new(solved))
                    }
                    None => None,
                };
                let new = layer + self.open.len();
                self.work =
                    Work::Targets(TargetPass::new(blocks, self.layers.clone(), new)?, solved);
            }
            Work::Targets(pass, made) => {
                if let Progress::Done(()) = pass.step(blocks, streams)? {
                    if let Some(layer) = made.take() {
                        let (finished, open) = (vec![*layer], vec![]);
                        return Ok(Progress::Done(TrainedLayers { finished, open }));
                    }
                    let mut layers = std::mem::take(&mut self.open);
                    for penalty in std::mem::take(&mut self.penalties) {
                        layers.push(OpenLayer::new(blocks, layer + layers.len(), penalty)?);
                    }
                    self.work = Work::Train(Box::new(BlockTraining::new(layers, self.finishes)));
                }
            }
            Work::Train(training) => return training.step(blocks, streams, tell),
        }
        Ok(Progress::Going)
    }
}

impl<D: Device<Number = f32>> Blockwise<'_, D> {
    /// The whole work of a [`LayerMaker`] on the window that starts at `first`, none of its layers
    /// open yet.
    #[cfg(feature = "train")]
    pub(crate) fn make_window(
        &self,
        first: usize,
        streams: &mut Streams,
        penalties: Vec<Option<Penalty>>,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<TrainedLayers<D>> {
        let mut maker = LayerMaker::new(self, first, vec![], penalties);
        crate::engine::progress::run_to_end(|| maker.step(self, streams, tell))
    }
}
