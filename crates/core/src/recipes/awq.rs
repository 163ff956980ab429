//! `awq`: AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration (2023,
//! arXiv 2306.00978): the weights of input channels with large activations are scaled up before
//! rounding, and the operation before them is scaled down to compensate exactly; then the ranges of
//! the groups are clipped.
//!
//! Costs forward passes only: 5 minutes and 1.4 GB (SmolLM2-135M, two cores, docs/lab). Good at 3
//! and 4 bits, and less dependent on the text than `gptq`; not for 2 bits.
//!
//! Defaults: magnitudes are means over 32 sequences of 512 tokens; errors are compared on four of
//! them.

use crate::error::Result;
use crate::recipe::{
    Common, Defaults, Observer, RangeConfig, Recipe, SolverOptions, Stage, StageStart, Trains,
};
use crate::solver::SolverConfig;
use crate::solver::awq::AwqConfig;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// AWQ: the weights of input channels with large activations are scaled up before rounding, then
/// the ranges are clipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AwqRecipeConfig {
    #[serde(flatten)]
    pub common: Common,
    /// Also search for the best clipping of each group of weights. Default true.
    pub clip: bool,
    /// Options of the calibration text.
    pub train: SolverOptions,
}

impl Default for AwqRecipeConfig {
    fn default() -> Self {
        let (common, train) = Default::default();
        Self { common, clip: true, train }
    }
}

impl AwqRecipeConfig {
    pub const DEFAULTS: Defaults = Defaults { weights: 3, ..Defaults::GROUPS };

    pub fn recipe(&self) -> Result<Recipe> {
        let solver = SolverConfig::Awq(AwqConfig { clip: self.clip });
        let (from, config) = (StageStart::Original, self.train.config(solver)?);
        let stages = vec![Stage::Block { from, trains: Trains::NONE, config }];
        let (observer, range) = (Observer::Absmax, RangeConfig::Frozen);
        self.common.recipe("awq", Self::DEFAULTS, observer, range, stages)
    }
}
