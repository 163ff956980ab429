//! GPTQ in a block (arXiv 2210.17323, "true sequential"): queries, keys and values first, then the
//! output projection, gate and up, down; what each reads is collected anew from the quantized
//! stream with those before it rounded already.

pub mod matrix;

use crate::engine::block_loop::{Blockwise, Streams};
use crate::engine::block_training::Told;
use crate::engine::student::Finished;
use crate::recipe::block::GptqConfig;
use crate::solver::gptq::matrix::{GptqOptions, gptq};
use crate::solver::open_block::OpenBlock;
use crate::statistics::hessian::Hessian;
use crate::{Error, Result};

impl Blockwise<'_> {
    pub(crate) fn solve_gptq(
        &self,
        layer: usize,
        config: &GptqConfig,
        streams: &mut Streams,
        tell: &mut dyn FnMut(Told),
    ) -> Result<Finished> {
        let mut block = OpenBlock::new(self.model, layer, self.pool)?;
        let options = GptqOptions {
            damping: config.damping,
            act_order: config.act_order,
            ..GptqOptions::default()
        };
        for (site, linears) in block.sites() {
            let mut hessian = Hessian::new(block.shape(linears[0]).1);
            let weights = block.weights();
            for sample in 0..self.config.samples {
                let x = streams.quantized.read(sample, 1)?;
                let add = &mut |x: &[f32]| hessian.add(self.pool, x);
                self.seen(&self.quantized, &weights, site, x, add)
                    .map_err(|e| named(e, block.name(linears[0])))?;
            }
            for linear in linears {
                let (rows, cols) = block.shape(linear);
                let solved = gptq(
                    self.pool,
                    &block.values[&linear],
                    rows,
                    cols,
                    self.site.quantizer,
                    &hessian,
                    options,
                )
                .map_err(|e| named(e, block.name(linear)))?;
                if solved.damping > config.damping {
                    let name = block.name(linear);
                    let message = format!(
                        "{name}: its inputs span too little; damping raised from {} to {}",
                        config.damping, solved.damping
                    );
                    tell(Told::Warning(message));
                }
                block.close(linear, solved.packed, self.pool);
            }
        }
        block.finish()
    }
}

/// A solver's error with the weight it is about.
pub(crate) fn named(e: Error, weight: &str) -> Error {
    match e {
        Error::Data { data, reason } => Error::Data { data: format!("{weight}: {data}"), reason },
        e => e,
    }
}
