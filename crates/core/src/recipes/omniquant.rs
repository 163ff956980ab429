//! `omniquant`: OmniQuant: Omnidirectionally Calibrated Quantization for Large Language Models
//! (2023, arXiv 2308.13137), its learned weight clipping: two numbers for each group shrink its
//! range; they learn, layer by layer, from the outputs of the unquantized layer. Weights are
//! frozen.
//!
//! Costs the memory of one layer: 6 minutes and 0.6 GB (SmolLM2-135M, two cores, docs/lab). For 2
//! and 3 bits where memory is short; `efficientqat` is better in the same time and memory.
//!
//! Defaults: the authors begin with open ranges and a learning rate of 1e-2, for 2,560 steps and
//! more; ours begin with the ranges of least squared error and a rate for the 160 steps that a
//! layer has by default (docs/decisions/0010-ranges-start-from-least-error.md).

use crate::error::Result;
use crate::recipe::{
    BlockConfig, BlockOptions, BlockRates, Defaults, LayerScope, Observer, RangeConfig, Recipe,
    Trains, options,
};

options! {
    /// OmniQuant: the clipping of each group of weights learns, layer by layer; the weights are
    /// frozen.
    OmniquantConfig {
        /// Options of the training, layer by layer.
        train: BlockOptions,
    }
}

impl OmniquantConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults::GROUPS;

    /// Returns the recipe: learned clips, trained layer by layer.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let rates = BlockRates { ranges: 0.2, ..BlockRates::default() };
        let config = self.train.over(Trains::SCALES, BlockConfig::usual(rates, 1.0))?;
        let stages = vec![LayerScope::Block.stage(Trains::SCALES, config)];
        let (observer, range) = (Observer::ErrorSearch, RangeConfig::Clip);
        self.common.recipe("omniquant", Self::DEFAULTS, observer, range, stages)
    }
}
