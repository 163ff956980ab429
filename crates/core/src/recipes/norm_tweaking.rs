//! `norm-tweaking`: Norm Tweaking: High-performance Low-bit Quantization of Large Language Models
//! (2023, arXiv 2309.02784): after weights are rounded to nearest, the norms of each layer learn to
//! give every channel of its output the mean and the variance that the unquantized layer gives it.
//!
//! Costs the memory of one layer and one pass over the text in each, some seconds for the demo
//! model. It changes no code and adds no byte; what it recovers is little compared with recipes
//! that train more, and no larger model has been measured.
//!
//! Defaults: one pass, since more of them overfit, as the authors say, and a rate that grows with
//! the depth of the layer, `r (1 + gamma i / L)`; the paper names no gamma.

use crate::error::Result;
use crate::objective::channel_moments::ChannelMomentsConfig;
use crate::objective::{TermConfig, Weight, WeightedTerm};
use crate::recipe::block::BlockPhase;
use crate::recipe::{
    BlockConfig, BlockOptions, BlockRates, Defaults, LayerScope, Observer, RangeConfig, Recipe,
    Trains, options,
};

options! {
    /// Norm tweaking: weights are rounded to nearest, then the norms learn, layer by layer, from
    /// the means and variances of the channels of the unquantized layer.
    NormTweakingConfig {
        /// Growth of the learning rate with depth, 0 or more: layer i of n learns at 1 + growth *
        /// i / n times the rate of the first. Default 1.
        rate_growth: f64 = 1.0,
        /// Options of the training, layer by layer.
        train: BlockOptions,
    }
}

impl NormTweakingConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults { weights: 3, ..Defaults::GROUPS };

    /// Returns the recipe: weights rounded to nearest, norms trained layer by layer.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let usual = BlockConfig::usual(BlockRates { weights: 1e-3, ..BlockRates::default() }, 1.0);
        let phases = vec![BlockPhase { epochs: 1, output: false, ..usual.phases[0] }];
        let term = TermConfig::ChannelMoments(ChannelMomentsConfig::default());
        let terms = vec![WeightedTerm { term, weight: Weight::Constant(1.0) }];
        let trains = Trains { norms: true, ..Trains::NONE };
        let usual = BlockConfig { phases, terms, rate_growth: self.rate_growth, ..usual };
        let config = self.train.over(trains, usual)?;
        let stages = vec![LayerScope::Block.stage(trains, config)];
        let (observer, range) = (Observer::Best, RangeConfig::Frozen);
        self.common.recipe("norm-tweaking", Self::DEFAULTS, observer, range, stages)
    }
}
