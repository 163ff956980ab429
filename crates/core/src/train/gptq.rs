//! GPTQ in a block (arXiv 2210.17323, "true sequential"): queries, keys and values first, then the output projection, gate and up, down; what each reads
//! is collected anew from the quantized stream with those before it rounded already.

use super::block::{Block, BlockSinks};
use super::blockwise::{Blockwise, Streams, Told};
use super::open_block::{OpenBlock, SITES, place};
use super::student::Finished;
use super::tape::Tape;
use crate::ops::tensor;
use crate::recipe::block::GptqConfig;
use crate::solve::gptq::{GptqOptions, gptq};
use crate::solve::hessian::Hessian;
use crate::{Error, Result};
use halfstep_formats::architecture::ActivationSite;

impl Blockwise<'_> {
    pub(super) fn solve_gptq(&self, layer: usize, config: &GptqConfig, streams: &mut Streams, tell: &mut dyn FnMut(Told)) -> Result<Finished> {
        let mut block = OpenBlock::new(self.model, layer, self.pool)?;
        let options = GptqOptions { damping: config.damping, act_order: config.act_order, ..GptqOptions::default() };
        for (site, linears) in SITES {
            let mut hessian = Hessian::new(block.shape(linears[0]).1);
            self.inputs(&block, site, streams, self.config.samples, &mut |x| hessian.add(self.pool, x))
                .map_err(|e| named(e, &block.specs[place(linears[0])].name))?;
            for &linear in linears {
                let ((rows, cols), i) = (block.shape(linear), place(linear));
                let solved =
                    gptq(self.pool, &block.values[i], rows, cols, self.site.quantizer, &hessian, options).map_err(|e| named(e, &block.specs[i].name))?;
                if solved.damping > config.damping {
                    let name = &block.specs[i].name;
                    let message = format!("{name}: its inputs span too little; damping raised from {} to {}", config.damping, solved.damping);
                    tell(Told::Warning(message));
                }
                block.close(linear, solved.packed, self.pool);
            }
        }
        block.finish()
    }

    /// What the linears at `site` read, sequence after sequence of the quantized stream, the first `samples`.
    pub(super) fn inputs(
        &self,
        block: &OpenBlock,
        site: ActivationSite,
        streams: &mut Streams,
        samples: usize,
        see: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let weights = block.weights();
        for sample in 0..samples {
            self.check_cancelled()?;
            let x = tensor(streams.quantized.read(sample, 1)?, &[self.config.window, self.model.architecture.hidden_size])?;
            let mut seen = Ok(());
            let mut observe = |at: ActivationSite, x: &[f32]| {
                if at == site && seen.is_ok() {
                    seen = see(x);
                }
            };
            Block { context: &self.quantized, weights: &weights, sinks: &BlockSinks::none(), observer: Some(&mut observe) }.forward(&mut Tape::off(), &x)?;
            seen?;
        }
        Ok(())
    }
}

/// A solver's error with the weight it is about.
pub(super) fn named(e: Error, weight: &str) -> Error {
    match e {
        Error::Data { data, reason } => Error::Data { data: format!("{weight}: {data}"), reason },
        e => e,
    }
}
