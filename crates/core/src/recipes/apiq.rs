//! `apiq`: ApiQ: Finetuning of 2-Bit Quantized Large Language Model (2024, arXiv 2402.05147), block
//! by block: `omniquant` with low-rank factors that learn beside the quantized weights and are kept
//! beside them in the file. With rank 0 it is `omniquant` under ApiQ's rates.

use crate::error::Result;
use crate::recipe::block::{BlockOptions, BlockRates};
use crate::recipe::{
    BlockConfig, LowRankConfig, RangeConfig, Recipe, Stage, StageStart, StartRule, Trains,
    WeightSite,
};
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

pub(super) const RANK: usize = 8;
pub(super) const ALPHA: f64 = 16.0;

/// Authors' decay and second target. The rates, the cosine that they fall
/// along and the start of the ranges are for the 160 steps that a block has by default
/// (docs/lab); the authors begin with open ranges and keep a twentieth and an eighth of
/// these rates for 2,560 steps.
pub(super) fn blocks() -> BlockConfig {
    let usual = BlockConfig::usual(BlockRates { ranges: 0.1, low_rank: 4e-3, weights: 0.0 }, 0.05);
    BlockConfig { second_target: true, weight_decay: 0.1, ..usual }
}

/// `apiq` and its variants: learned clips, and factors of `rank` beside every weight.
pub(super) fn clips_and_factors(
    id: &str,
    target: TargetId,
    request: &Request,
    rank: usize,
    alpha: f64,
    config: BlockConfig,
) -> Result<Recipe> {
    let low_rank = (rank > 0).then_some(LowRankConfig { rank, alpha });
    let trains = Trains { low_rank: low_rank.is_some(), ..Trains::SCALES };
    let stages = vec![Stage::Block { from: StageStart::Original, trains, config }];
    let (start, range) = (StartRule::ErrorSearch, RangeConfig::Clip);
    let recipe = target.sites(request)?.recipe(id, target, start, range, stages);
    Ok(recipe.with_weight_sites(|site| WeightSite { low_rank, ..site }))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ApiqConfig {
    /// Where the model will run. Default `halfstep`, which holds its grids.
    pub target: TargetId,
    /// Bits of the block linears. Default 2.
    pub weights: Option<f64>,
    /// Columns of a row that share a scale and a zero point. Default 64.
    pub group_size: Option<usize>,
    /// Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
    pub cache: Option<f64>,
    /// Rank of the factors beside each linear; 0 for none. Default 8: at 64, as in the paper, they
    /// outweigh a small model's weights.
    pub rank: usize,
    /// The factors' product is multiplied by alpha / rank. Default 16.
    pub alpha: f64,
    /// Everything about the training run.
    pub train: BlockOptions,
}

impl Default for ApiqConfig {
    fn default() -> Self {
        Self {
            target: TargetId::Halfstep,
            weights: None,
            group_size: None,
            activations: None,
            cache: None,
            rank: RANK,
            alpha: ALPHA,
            train: BlockOptions::default(),
        }
    }
}

impl ApiqConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request = Request::affine(self.weights, self.group_size, self.activations, self.cache);
        let config = self.train.over(blocks())?;
        clips_and_factors("apiq", self.target, &request, self.rank, self.alpha, config)
    }
}
