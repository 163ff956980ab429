//! `omniquant`: OmniQuant: Omnidirectionally Calibrated Quantization for Large Language Models
//! (2023, arXiv 2308.13137), its learned weight clipping: two numbers for each group shrink its
//! range, layer by layer, towards the output of the unquantized layer. Weights stay.
//!
//! Costs the memory of one layer: 6 minutes and 0.6 GB (SmolLM2-135M, two cores, docs/lab). For 2
//! and 3 bits where memory is short; `efficientqat` is better in the same time and memory.
//!
//! Defaults: the authors begin with open ranges and a learning rate of 1e-2, for 2,560 steps and
//! more; ours begin with the ranges of least squared error, at a rate for the 160 steps that a
//! layer has by default (docs/decisions/0010-ranges-start-from-least-error.md).

use crate::error::Result;
use crate::recipe::block::{BlockOptions, BlockRates};
use crate::recipe::{BlockConfig, Observer, RangeConfig, Recipe, Stage, StageStart, Trains};
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// OmniQuant: the clipping of each group of weights learns, layer by layer; the weights stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct OmniquantConfig {
    /// Where the model will run, which decides the grids it may have: `gguf:q4_0`, `gguf:q8_0` or
    /// `gguf:tq2_0` (files for llama.cpp), or `halfstep` (our own file, any grid). Default
    /// `halfstep`.
    pub target: TargetId,
    /// Bits of each weight in the linear layers of the transformer blocks, 2 to 8. Default: what a
    /// gguf target holds, otherwise 2.
    pub weights: Option<f64>,
    /// Columns of a weight row that share a scale and, if the target holds them, a zero point; 0 is
    /// the whole row. Default: what a gguf target holds, otherwise 64.
    pub group_size: Option<usize>,
    /// Bits of the inputs of the linear layers, 2 to 8, or 16 to leave them in floating point.
    /// Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 2 to 8, 16 or 32; gguf targets have 8, 16 and 32. Default 16.
    pub cache: Option<f64>,
    /// Options of the training, layer by layer.
    pub train: BlockOptions,
}

impl Default for OmniquantConfig {
    fn default() -> Self {
        Self {
            target: TargetId::Halfstep,
            weights: None,
            group_size: None,
            activations: None,
            cache: None,
            train: BlockOptions::default(),
        }
    }
}

impl OmniquantConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request = Request::affine(self.weights, self.group_size, self.activations, self.cache);
        let config = self
            .train
            .over(BlockConfig::usual(BlockRates { ranges: 0.2, ..BlockRates::default() }, 1.0))?;
        Ok(self.target.sites(&request)?.recipe(
            "omniquant",
            self.target,
            Observer::ErrorSearch,
            RangeConfig::Clip,
            vec![Stage::Block { from: StageStart::Original, trains: Trains::SCALES, config }],
        ))
    }
}
