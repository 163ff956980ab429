//! `comq`: COMQ: A Backpropagation-Free Algorithm for Post-Training Quantization (2024, arXiv
//! 2403.07134): coordinate descent on the error of each output of a linear layer. One weight after
//! the other gets the code that is best for the codes that the other weights have now.
//!
//! Costs forward passes over the text and, in every pass over a linear layer, as many operations as
//! its rows times the square of its columns: no inverse, but more than `gptq` where layers are wide.
//! The demo model takes seconds; no larger model has been measured.
//!
//! Defaults: three passes and the greedy order of the paper; the damping of `gptq`.

use crate::error::Result;
use crate::recipe::{
    Common, Defaults, Observer, RangeConfig, Recipe, SolverOptions, Stage, StageStart, Trains,
};
use crate::solver::SolverConfig;
use crate::solver::comq::ComqConfig;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// COMQ: coordinate descent on the error of the outputs, one weight after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ComqRecipeConfig {
    #[serde(flatten)]
    pub common: Common,
    /// Number of visits of every weight, 1 to 100. Default 3.
    pub passes: usize,
    /// Visit the weights with the largest products of weight and inputs first, instead of from left
    /// to right. Default true.
    pub greedy: bool,
    /// Compare with the outputs of the unquantized model, instead of with those of the unquantized
    /// layer for the inputs that the quantized layers before it give. Default false.
    pub two_streams: bool,
    /// Damping that is added to the diagonal of the products of the inputs, as a share of its mean;
    /// 0 to 10. Default 0.01.
    pub damping: f64,
    /// Find the best scale of each group for its codes after every pass, instead of keeping those
    /// of the unquantized weights. Default false, as in the program of the authors.
    pub update_scales: bool,
    /// Options of the calibration text.
    pub train: SolverOptions,
}

impl Default for ComqRecipeConfig {
    fn default() -> Self {
        let (common, train) = Default::default();
        let (greedy, two_streams, update_scales) = (true, false, false);
        Self { common, passes: 3, greedy, two_streams, damping: 0.01, update_scales, train }
    }
}

impl ComqRecipeConfig {
    pub const DEFAULTS: Defaults = Defaults { weights: 3, ..Defaults::GROUPS };

    pub fn recipe(&self) -> Result<Recipe> {
        let Self { passes, greedy, two_streams, damping, update_scales, .. } = *self;
        let from_nearest = false;
        let config =
            ComqConfig { passes, greedy, from_nearest, two_streams, damping, update_scales };
        let (from, config) = (StageStart::Original, self.train.config(SolverConfig::Comq(config))?);
        let stages = vec![Stage::Block { from, trains: Trains::NONE, config }];
        let (observer, range) = (Observer::Absmax, RangeConfig::Frozen);
        self.common.recipe("comq", Self::DEFAULTS, observer, range, stages)
    }
}
