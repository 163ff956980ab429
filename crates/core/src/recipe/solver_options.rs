//! The options that recipes with a solver share, and the recipe they make.

use crate::error::Result;
use crate::recipe::block::{BlockConfig, BlockOptions, BlockRates};
use crate::recipe::common::{Common, Defaults};
use crate::recipe::stage::LayerScope;
use crate::recipe::{Observer, RangeConfig, Recipe, TrainArithmetic, Trains};
use crate::solver::SolverConfig;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Options of the text that a solver sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct SolverOptions {
    /// Number of sequences of the text, at least 1; more is better and slower. Default 32; the
    /// papers use 128.
    pub samples: Option<usize>,
    /// Tokens of each sequence, at least 2. Default 512.
    pub sequence_length: Option<usize>,
    /// What the products of a training step are computed in: `f32`, `bf16`, `f16` or `int8-forward`
    /// (forward by the integer products of the packed model; for targets that quantize
    /// activations). Default: what a probe finds fastest on this machine.
    pub arithmetic: Option<TrainArithmetic>,
}

impl SolverOptions {
    /// The recipe in which `solver` finds the codes of every layer, one after the other, on scales
    /// that stay those of the largest magnitude.
    ///
    /// Errors: `Config` or `Target`, an option is out of range or the target cannot hold it.
    pub(crate) fn recipe(
        &self,
        id: &str,
        common: &Common,
        defaults: Defaults,
        solver: SolverConfig,
    ) -> Result<Recipe> {
        let options = BlockOptions {
            samples: self.samples,
            sequence_length: self.sequence_length,
            arithmetic: self.arithmetic,
            ..BlockOptions::default()
        };
        let usual = BlockConfig::usual(BlockRates::default(), 1.0);
        let (trains, phases) = (Trains::NONE, vec![]);
        let usual = BlockConfig { solver: Some(solver), phases, ..usual };
        let stages = vec![LayerScope::Block.stage(trains, options.over(trains, usual)?)];
        common.recipe(id, defaults, Observer::Absmax, RangeConfig::Frozen, stages)
    }
}
