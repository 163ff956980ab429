//! `awq`: AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration (2023,
//! arXiv 2306.00978): channels that carry much are made larger before rounding, exactly made up for
//! by what produces them; then the groups' ranges are clipped. Forward passes only.

use crate::error::Result;
use crate::recipe::block::SolverOptions;
use crate::recipe::{RangeConfig, Recipe, Stage, StageStart, StartRule, Trains};
use crate::solver::SolverConfig;
use crate::solver::awq::AwqConfig;
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AwqRecipeConfig {
    /// Where the model will run. Default `halfstep`, which holds its grids.
    pub target: TargetId,
    /// Bits of the block linears. Default 3.
    pub weights: Option<f64>,
    /// Columns of a row that share a scale and a zero point. Default 64.
    pub group_size: Option<usize>,
    /// Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
    pub cache: Option<f64>,
    /// Search the groups' clips too. Default true.
    pub clip: bool,
    /// The text that the method sees.
    pub train: SolverOptions,
}

impl Default for AwqRecipeConfig {
    fn default() -> Self {
        Self {
            target: TargetId::Halfstep,
            weights: None,
            group_size: None,
            activations: None,
            cache: None,
            clip: true,
            train: SolverOptions::default(),
        }
    }
}

impl AwqRecipeConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request =
            Request::affine(self.weights, self.group_size, self.activations, self.cache).or_bits(3);
        let config = self.train.config(SolverConfig::Awq(AwqConfig { clip: self.clip }))?;
        Ok(self.target.sites(&request)?.recipe(
            "awq",
            self.target,
            StartRule::Absmax,
            RangeConfig::Frozen,
            vec![Stage::Block { from: StageStart::Original, trains: Trains::NONE, config }],
        ))
    }
}
