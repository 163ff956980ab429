//! GPTQ in a block (arXiv 2210.17323, "true sequential"): queries, keys and values first, then the
//! output projection, gate and up, down; what each reads is collected anew from the quantized
//! stream with those before it rounded already.

pub mod matrix;

use crate::engine::block_loop::{Blockwise, Streams};
use crate::engine::block_training::BlockEvent;
use crate::engine::student::Finished;
use crate::solver::Solver;
use crate::solver::gptq::matrix::{GptqOptions, gptq};
use crate::solver::open_block::OpenBlock;
use crate::statistics::hessian::Hessian;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GptqConfig {
    /// Added to the Hessian's diagonal, as a share of its mean.
    pub damping: f64,
    /// Columns by falling diagonal of the Hessian.
    pub act_order: bool,
}

impl Solver for GptqConfig {
    fn check(&self) -> Result<()> {
        if (0.0..=10.0).contains(&self.damping) {
            return Ok(());
        }
        Err(Error::config("damping", format!("{} is not possible; 0 to 10", self.damping)))
    }

    fn solve(
        &self,
        blocks: &Blockwise,
        layer: usize,
        streams: &mut Streams,
        tell: &mut dyn FnMut(BlockEvent),
    ) -> Result<Finished> {
        let mut block = OpenBlock::new(blocks, layer)?;
        let options = GptqOptions {
            damping: self.damping,
            act_order: self.act_order,
            ..GptqOptions::default()
        };
        for (site, linears) in block.sites() {
            let mut hessian = Hessian::new(block.shape(linears[0]).1);
            let weights = block.weights();
            for sample in 0..blocks.config.samples {
                let x = streams.quantized.read(sample, 1)?;
                let add = &mut |x: &[f32]| hessian.add(blocks.pool, x);
                blocks
                    .seen(&blocks.quantized, &weights, site, x, add)
                    .map_err(|e| named(e, block.name(linears[0])))?;
            }
            for linear in linears {
                let (rows, cols) = block.shape(linear);
                let Some(site) = blocks.sites.by_name(block.name(linear)) else { continue };
                let solved = gptq(
                    blocks.pool,
                    &block.values[&linear],
                    rows,
                    cols,
                    site.spec,
                    &hessian,
                    options,
                )
                .map_err(|e| named(e, block.name(linear)))?;
                if solved.damping > self.damping {
                    let name = block.name(linear);
                    let message = format!(
                        "{name}: its inputs span too little; damping raised from {} to {}",
                        self.damping, solved.damping
                    );
                    tell(BlockEvent::Warning(message));
                }
                block.close(linear, solved.packed, blocks.pool);
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
