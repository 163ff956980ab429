//! `apiq`: ApiQ: Finetuning of 2-Bit Quantized Large Language Model (2024, arXiv 2402.05147), layer
//! by layer: `omniquant` with low-rank factors that are added to the quantized weights, learn with
//! them and are stored in the file. With rank 0 it is `omniquant` at the learning rates of ApiQ.
//!
//! Costs the memory of one layer: 7 minutes and 0.6 GB (SmolLM2-135M, two cores, docs/lab). The
//! factors make the file larger, by 0.37 bits per weight at rank 8 on that model. Only the target
//! `halfstep` stores them; with other targets there are none.
//!
//! Defaults: weight decay and the second target are those of the authors; the learning rates, their
//! cosine schedule and the initial ranges are for the 160 steps that a layer has by default
//! (docs/lab).

use crate::error::Result;
use crate::recipe::{
    BlockConfig, BlockOptions, BlockRates, Common, Defaults, LayerScope, LowRankOptions, Observer,
    RangeConfig, Recipe, Stage, Trains, WeightSite, options,
};

options! {
    /// ApiQ: clipping, and low-rank factors that are added to the quantized weights, learn layer by
    /// layer.
    ApiqConfig {
        /// Rank and alpha of the low-rank factors.
        #[serde(flatten)]
        low_rank: LowRankOptions,
        /// What is trained at a time: `block` (all linears of a layer, on the outputs of the layer;
        /// ApiQ-bw in the paper) or `linear` (one linear after the other, each on its own outputs;
        /// ApiQ-lw), which then has the epochs of a layer. Default `block`.
        scope: LayerScope,
        /// Options of the training, layer by layer.
        train: BlockOptions,
    }
}

impl ApiqConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults::GROUPS;

    /// Weight decay and the second target are the authors'; the rates and their cosine are for the
    /// 160 steps that a layer has by default. The authors keep a twentieth and an eighth of these
    /// rates for 2,560 steps.
    pub(super) fn blocks() -> BlockConfig {
        let rates = BlockRates { ranges: 0.1, low_rank: 4e-3, weights: 0.0 };
        BlockConfig { second_target: true, weight_decay: 0.1, ..BlockConfig::usual(rates, 0.05) }
    }

    /// Returns the recipe: learned clips and low-rank factors, trained layer by layer.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let trains = self.low_rank.trains(self.common.target(Self::DEFAULTS), Trains::SCALES);
        let config = self.train.over(trains, Self::blocks())?;
        Self::of("apiq", &self.common, &self.low_rank, self.scope.stage(trains, config))
    }

    /// Learned clips, and low-rank factors for every weight.
    pub(super) fn of(
        id: &str,
        common: &Common,
        low_rank: &LowRankOptions,
        stage: Stage,
    ) -> Result<Recipe> {
        let (observer, range) = (Observer::ErrorSearch, RangeConfig::Clip);
        let recipe = common.recipe(id, Self::DEFAULTS, observer, range, vec![stage])?;
        let low_rank = low_rank.factors(recipe.target);
        Ok(recipe.with_weight_sites(|site| WeightSite { low_rank, ..site }))
    }
}
