//! `gptq`: GPTQ: Accurate Post-training Compression for Generative Pretrained Transformers (2022,
//! arXiv 2210.17323): columns are rounded one after the other, and the columns that are not rounded
//! yet are adjusted to compensate each error. Scales are those of the original groups (static), so
//! that any order of columns can be stored.
//!
//! Costs forward passes over the text and one inverse per linear layer: 2.5 minutes and 1.3 GB
//! (SmolLM2-135M, two cores, docs/lab). Good at 3 and 4 bits; at 2 bits block training is much
//! better.
//!
//! Defaults: the damping of the authors; 32 sequences of 512 tokens instead of 128 of 2048.

use crate::error::Result;
use crate::recipe::{
    Common, Defaults, Observer, RangeConfig, Recipe, SolverOptions, Stage, StageStart, Trains,
};
use crate::solver::SolverConfig;
use crate::solver::gptq::GptqConfig;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// GPTQ: columns are rounded one after the other, and the columns that are not rounded yet
/// compensate each error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct GptqRecipeConfig {
    #[serde(flatten)]
    pub common: Common,
    /// Damping that is added to the diagonal of the Hessian, as a share of its mean, so that it can
    /// be inverted; 0 to 10. It is raised, with a warning, where it is too small. Default 0.01.
    pub damping: f64,
    /// Round the columns with the largest diagonal entries of the Hessian first, instead of from
    /// left to right. Default true.
    pub act_order: bool,
    /// Options of the calibration text.
    pub train: SolverOptions,
}

impl Default for GptqRecipeConfig {
    fn default() -> Self {
        let (common, train) = Default::default();
        Self { common, damping: 0.01, act_order: true, train }
    }
}

impl GptqRecipeConfig {
    pub const DEFAULTS: Defaults = Defaults { weights: 3, ..Defaults::GROUPS };

    pub fn recipe(&self) -> Result<Recipe> {
        let (damping, act_order) = (self.damping, self.act_order);
        let solver = SolverConfig::Gptq(GptqConfig { damping, act_order });
        let (from, config) = (StageStart::Original, self.train.config(solver)?);
        let stages = vec![Stage::Block { from, trains: Trains::NONE, config }];
        let (observer, range) = (Observer::Absmax, RangeConfig::Frozen);
        self.common.recipe("gptq", Self::DEFAULTS, observer, range, stages)
    }
}
