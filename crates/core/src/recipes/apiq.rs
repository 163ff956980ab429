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
    BlockConfig, BlockOptions, BlockRates, Common, Defaults, LowRankConfig, Observer, RangeConfig,
    Recipe, Stage, StageStart, Trains, WeightSite, options,
};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

options! {
    /// ApiQ: clipping, and low-rank factors that are added to the quantized weights, learn layer by
    /// layer.
    ApiqConfig {
        #[serde(flatten)]
        low_rank: LowRankOptions,
        /// Options of the training, layer by layer.
        train: BlockOptions,
    }
}

/// Options of `apiq` and its variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct LowRankOptions {
    /// Rank of the low-rank factors of each linear layer; 0 for none. Default 8 where the target
    /// stores them, otherwise 0: at 64, as in the paper, the factors of a small model take more
    /// bytes than its weights.
    pub rank: Option<usize>,
    /// Number above 0; the product of the low-rank factors is multiplied by alpha / rank. Default
    /// 16.
    pub alpha: f64,
}

impl Default for LowRankOptions {
    fn default() -> Self {
        Self { rank: None, alpha: 16.0 }
    }
}

impl ApiqConfig {
    pub const DEFAULTS: Defaults = Defaults::GROUPS;

    /// Weight decay and the second target are the authors'; the rates and their cosine are for the
    /// 160 steps that a layer has by default. The authors keep a twentieth and an eighth of these
    /// rates for 2,560 steps.
    pub(super) fn blocks() -> BlockConfig {
        let rates = BlockRates { ranges: 0.1, low_rank: 4e-3, weights: 0.0 };
        BlockConfig { second_target: true, weight_decay: 0.1, ..BlockConfig::usual(rates, 0.05) }
    }

    pub fn recipe(&self) -> Result<Recipe> {
        let config = self.train.over(Self::blocks())?;
        self.low_rank.recipe("apiq", &self.common, config)
    }
}

impl LowRankOptions {
    /// Learned clips, and low-rank factors for every weight.
    pub(super) fn recipe(&self, id: &str, common: &Common, config: BlockConfig) -> Result<Recipe> {
        let stored = common.target(ApiqConfig::DEFAULTS).target().holds_low_rank();
        let rank = self.rank.unwrap_or(if stored { 8 } else { 0 });
        let low_rank = (rank > 0).then_some(LowRankConfig::outside(rank, self.alpha));
        let trains = Trains { low_rank: low_rank.is_some(), ..Trains::SCALES };
        let stages = vec![Stage::Block { from: StageStart::Original, trains, config }];
        let (observer, range) = (Observer::ErrorSearch, RangeConfig::Clip);
        let recipe = common.recipe(id, ApiqConfig::DEFAULTS, observer, range, stages)?;
        Ok(recipe.with_weight_sites(|site| WeightSite { low_rank, ..site }))
    }
}
