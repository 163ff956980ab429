//! `apiq`: ApiQ: Finetuning of 2-Bit Quantized Large Language Model (2024, arXiv 2402.05147), layer
//! by layer: `omniquant` with low-rank factors that learn beside the quantized weights and are kept
//! beside them in the file. With rank 0 it is `omniquant` at the learning rates of ApiQ.
//!
//! Costs the memory of one layer: 7 minutes and 0.6 GB (SmolLM2-135M, two cores, docs/lab). The
//! factors make the file larger, by 0.37 bits per weight at rank 8 on that model. Only the target
//! `halfstep` stores them; for the others there are none.
//!
//! Defaults: weight decay and the second target are those of the authors; the learning rates, the
//! cosine along which they fall and the first ranges are for the 160 steps that a layer has by
//! default (docs/lab).

use crate::error::Result;
use crate::recipe::block::{BlockOptions, BlockRates};
use crate::recipe::{
    BlockConfig, LowRankConfig, Observer, RangeConfig, Recipe, Stage, StageStart, Trains,
    WeightSite,
};
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

const RANK: usize = 8;
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
    rank: Option<usize>,
    alpha: f64,
    config: BlockConfig,
) -> Result<Recipe> {
    let rank = rank.unwrap_or(if target.target().holds_low_rank() { RANK } else { 0 });
    let low_rank = (rank > 0).then_some(LowRankConfig { rank, alpha });
    let trains = Trains { low_rank: low_rank.is_some(), ..Trains::SCALES };
    let stages = vec![Stage::Block { from: StageStart::Original, trains, config }];
    let (start, range) = (Observer::ErrorSearch, RangeConfig::Clip);
    let recipe = target.sites(request)?.recipe(id, target, start, range, stages);
    Ok(recipe.with_weight_sites(|site| WeightSite { low_rank, ..site }))
}

/// ApiQ: clipping and low-rank factors, which stay beside the weights in the file, learn layer by
/// layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ApiqConfig {
    /// Where the model will run, which decides the grids it may have: `gguf:q4_0`, `gguf:q8_0` or
    /// `gguf:tq2_0` (files for llama.cpp), or `halfstep` (our own file, any grid). Default
    /// `halfstep`.
    pub target: TargetId,
    /// Bits of each weight in the linear layers of the transformer blocks, 2 to 8. Default: what a
    /// gguf target holds, otherwise 2.
    pub weights: Option<f64>,
    /// Columns of a weight row that share a scale and, if the target holds them, a zero point; 0 is
    /// the whole row. Default: what a gguf target holds, otherwise 64.
    pub group_size: Option<usize>,
    /// Bits of the inputs of the linear layers, 2 to 8, or 16 to leave them in floating point.
    /// Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 2 to 8, 16 or 32; gguf targets have 8, 16 and 32. Default 16.
    pub cache: Option<f64>,
    /// Rank of the low-rank factors beside each linear layer; 0 for none. Default 8 where the
    /// target stores them, otherwise 0: at 64, as in the paper, the factors of a small model take
    /// more bytes than its weights.
    pub rank: Option<usize>,
    /// Number above 0; the product of the low-rank factors is multiplied by alpha / rank. Default
    /// 16.
    pub alpha: f64,
    /// Options of the training, layer by layer.
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
            rank: None,
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
