//! One layer in the making: its codes by whatever the recipe says.

use crate::Result;
use crate::engine::block_training::{BlockEvent, BlockTraining};
use crate::engine::blockwise::{Blockwise, LayerInputs, Streams};
use crate::engine::passes::TargetPass;
use crate::engine::progress::Progress;
use crate::layer::finished::Finished;
use crate::objective::saliency::Penalty;

/// Makes one layer: solves it, or trains it. Afterwards the plain stream is at its outputs, the
/// quantized one still at its inputs.
pub(crate) struct LayerMaker {
    layer: usize,
    penalty: Option<Penalty>,
    work: Work,
}

enum Work {
    Solve,
    /// With the layer, if it is solved.
    Targets(TargetPass, Option<Box<Finished>>),
    Train(Box<BlockTraining>),
}

impl LayerMaker {
    pub fn new(layer: usize, penalty: Option<Penalty>) -> Self {
        Self { layer, penalty, work: Work::Solve }
    }

    /// One sequence or one optimizer step; a solver's whole work on the layer.
    pub fn step(
        &mut self,
        blocks: &Blockwise,
        streams: &mut Streams,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Progress<Finished>> {
        let layer = self.layer;
        match &mut self.work {
            Work::Solve => {
                let solved = match &blocks.config.solver {
                    Some(solver) => {
                        let warn = &mut |message: String| tell(BlockEvent::Warning(message));
                        let mut inputs = LayerInputs { blocks, layer, streams, warn };
                        Some(Box::new(solver.solver().solve(&mut inputs)?))
                    }
                    None => None,
                };
                self.work = Work::Targets(TargetPass::new(blocks, layer)?, solved);
            }
            Work::Targets(pass, solved) => {
                if let Progress::Done(()) = pass.step(blocks, streams)? {
                    if let Some(block) = solved.take() {
                        return Ok(Progress::Done(*block));
                    }
                    let training = BlockTraining::new(blocks, layer, self.penalty.take())?;
                    self.work = Work::Train(Box::new(training));
                }
            }
            Work::Train(training) => return training.step(blocks, streams, tell),
        }
        Ok(Progress::Going)
    }
}

impl Blockwise<'_> {
    /// The whole work of a [`LayerMaker`].
    #[cfg(feature = "train")]
    pub(crate) fn make_block(
        &self,
        layer: usize,
        streams: &mut Streams,
        penalty: Option<Penalty>,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Finished> {
        let mut maker = LayerMaker::new(layer, penalty);
        crate::engine::progress::run_to_end(|| maker.step(self, streams, tell))
    }
}
