//! The options that recipes with low-rank factors share.

use crate::quantizer::builder::Trains;
use crate::quantizer::low_rank::LowRankConfig;
use crate::target::TargetId;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Options of low-rank factors that are added to the quantized weights.
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

impl LowRankOptions {
    /// The factors of every weight; None where there are none.
    pub fn factors(&self, target: TargetId) -> Option<LowRankConfig> {
        let usual = if target.target().holds_low_rank() { 8 } else { 0 };
        let rank = self.rank.unwrap_or(usual);
        (rank > 0).then_some(LowRankConfig::outside(rank, self.alpha))
    }

    /// What `trains` says, and the factors if there are some.
    pub fn trains(&self, target: TargetId, trains: Trains) -> Trains {
        Trains { low_rank: self.factors(target).is_some(), ..trains }
    }
}
