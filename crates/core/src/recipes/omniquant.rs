//! `omniquant`: OmniQuant: Omnidirectionally Calibrated Quantization for Large Language Models
//! (2023, arXiv 2308.13137), its learned weight clipping: per group two numbers shrink the range,
//! block by block, towards the unquantized block's output. Weights stay. The authors begin with
//! open ranges and a rate of 1e-2, for 2,560 steps and more; ours begin with the shrunken ranges of
//! least squared error, at a rate for the 160 steps that a block has by default
//! (docs/decisions/0010-ranges-start-from-least-error.md).

use crate::error::Result;
use crate::recipe::block::{BlockOptions, BlockRates};
use crate::recipe::{BlockConfig, RangeConfig, Recipe, Stage, StageStart, StartRule, Trains};
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct OmniquantConfig {
    /// Where the model will run. Default `halfstep`, which holds its grids.
    pub target: TargetId,
    /// Bits of the block linears. Default 2.
    pub weights: Option<f64>,
    /// Columns of a row that share a scale and a zero point. Default 64.
    pub group_size: Option<usize>,
    /// Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
    pub cache: Option<f64>,
    /// Everything about the training run.
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
            StartRule::ErrorSearch,
            RangeConfig::Clip,
            vec![Stage::Block { from: StageStart::Original, trains: Trains::SCALES, config }],
        ))
    }
}
