//! `sapr`: Enhancing Ultra-Low-Bit Quantization of Large Language Models Through Saliency-Aware
//! Partial Retraining (2025, arXiv 2504.13932): `apiq` with a penalty on each weight's rounding
//! error, weighted by the squared gradients of the unquantized model. Up to three phases for every
//! block: the penalty alone, both, the output alone. With lambda 0 it is `apiq`.

use super::apiq::{ALPHA, RANK, blocks, clips_and_factors};
use crate::error::{Error, Result};
use crate::recipe::block::{
    BlockOptions, BlockPhase, SaliencyConfig, SaliencyPlace, SaliencyScale,
};
use crate::recipe::{BlockConfig, Recipe};
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct SaprConfig {
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
    /// Weight of the penalty. Default 1 (the scale-free penalty is a weighted mean of squared
    /// rounding errors).
    pub lambda: f64,
    /// What lambda multiplies. Default `scaleFree`.
    pub saliency_scale: SaliencyScale,
    /// Whether the penalised difference holds the factors. Default `beforeLowRank`.
    pub saliency_place: SaliencyPlace,
    /// Sequences whose gradients are squared. Default 32.
    pub saliency_samples: usize,
    /// Epochs with the penalty alone, before those with both (`train.epochs`). Default 0.
    pub penalty_epochs: usize,
    /// Epochs with the outputs alone, after them. Default 0.
    pub output_epochs: usize,
    /// Everything about the training run.
    pub train: BlockOptions,
}

impl Default for SaprConfig {
    fn default() -> Self {
        Self {
            target: TargetId::Halfstep,
            weights: None,
            group_size: None,
            activations: None,
            cache: None,
            rank: RANK,
            alpha: ALPHA,
            lambda: 1.0,
            saliency_scale: SaliencyScale::default(),
            saliency_place: SaliencyPlace::default(),
            saliency_samples: 32,
            penalty_epochs: 0,
            output_epochs: 0,
            train: BlockOptions::default(),
        }
    }
}

impl SaprConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request = Request::affine(self.weights, self.group_size, self.activations, self.cache);
        let usual = blocks();
        let window = self.train.window.unwrap_or(usual.window);
        let mut config = self.train.over(BlockConfig {
            saliency: Some(SaliencyConfig {
                lambda: self.lambda,
                scale: self.saliency_scale,
                place: self.saliency_place,
                samples: self.saliency_samples,
                window,
            }),
            ..usual
        })?;
        let both = BlockPhase { saliency: true, ..config.phases[0] };
        config.phases = vec![
            BlockPhase { epochs: self.penalty_epochs, output: false, ..both },
            both,
            BlockPhase { epochs: self.output_epochs, saliency: false, ..both },
        ];
        config.phases.retain(|phase| phase.epochs > 0);
        if config.phases.is_empty() {
            return Err(Error::config(
                "train.epochs",
                "no phase has an epoch: nothing would train",
            ));
        }
        clips_and_factors("sapr", self.target, &request, self.rank, self.alpha, config)
    }
}
