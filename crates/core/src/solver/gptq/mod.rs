//! GPTQ in a block (arXiv 2210.17323, "true sequential"): queries, keys and values first, then the
//! output projection, gate and up, down; what each reads is collected anew from the quantized
//! stream with those before it rounded already.

pub mod matrix;

use crate::device::Device;
use crate::layer::finished::Finished;
use crate::solver::calibration::{Calibration, InputStream, LayerPass};
use crate::solver::gptq::matrix::{GptqOptions, gptq};
use crate::solver::open_block::OpenBlock;
use crate::solver::{Solver, named};
use crate::statistics::{AtSite, Hessian, collect};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// GPTQ (arXiv 2210.17323).
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
        Err(Error::config("damping", format!("must be 0 to 10, got {}", self.damping)))
    }

    fn solve<D: Device<Number = f32>>(
        &self,
        layer: &mut dyn Calibration<D>,
    ) -> Result<Finished> {
        let (mut block, pool) = (OpenBlock::new(layer)?, layer.pool());
        let options = GptqOptions {
            damping: self.damping,
            act_order: self.act_order,
            ..GptqOptions::default()
        };
        for (site, linears) in block.sites() {
            let mut hessian = Hessian::new(block.shape(linears[0]).1);
            let weights = block.weights(layer.device())?;
            let stream = InputStream::Quantized;
            let pass = &mut LayerPass { layer: &mut *layer, stream, weights: &weights };
            collect(pool, pass, &mut [&mut AtSite { site, of: &mut hessian }])
                .map_err(|e| named(e, block.name(linears[0])))?;
            // What the products were prepared with is not needed beside the factors.
            drop(weights);
            for linear in linears {
                let (rows, cols) = block.shape(linear);
                let Some(site) = layer.site(block.name(linear)) else { continue };
                let values = &block.values[&linear];
                let solved = gptq(pool, values, rows, cols, site.spec, &hessian, options)
                    .map_err(|e| named(e, block.name(linear)))?;
                if solved.damping > self.damping {
                    let name = block.name(linear);
                    layer.warn(format!(
                        "{name}: its inputs span too little; damping raised from {} to {}",
                        self.damping, solved.damping
                    ));
                }
                block.close(linear, solved.packed, pool);
            }
        }
        block.finish()
    }
}
