//! `sapr`: Enhancing Ultra-Low-Bit Quantization of Large Language Models Through Saliency-Aware
//! Partial Retraining (2025, arXiv 2504.13932): `apiq` with a penalty on the rounding error of each
//! weight, weighted by the squared gradients of the teacher. Every layer has up to three
//! phases, whose loss is the penalty alone, both, and the output alone. With lambda 0 it is `apiq`.
//!
//! Costs the memory of one layer and, for the gradients, a pass backward through the whole model
//! for each sequence: 10 minutes and 1 GB (SmolLM2-135M, two cores, docs/lab). Only the target
//! `halfstep` stores the factors; with other targets there are none. In our measurements it was not
//! better than `apiq`.
//!
//! Defaults: those of `apiq`, with one phase in which both learn.

use super::apiq::ApiqConfig;
use crate::error::Result;
use crate::recipe::block::{BlockPhase, SaliencyConfig, SaliencyDifference, SaliencyScale};
use crate::recipe::{
    BlockConfig, BlockOptions, Defaults, LayerScope, LowRankOptions, Recipe, Trains, options,
};

options! {
    /// SAPR: ApiQ with the rounding error of each weight penalised by the squared gradient of the
    /// unquantized model.
    SaprConfig {
        /// Rank and alpha of the low-rank factors.
        #[serde(flatten)]
        low_rank: LowRankOptions,
        /// Weight in the loss of the penalty on rounding errors, 0 or more. Default 1: the
        /// scale-free penalty is a weighted mean of squared rounding errors.
        lambda: f64 = 1.0,
        /// How the squared gradients are scaled before lambda multiplies them: `scaleFree` (by
        /// their mean in the layer, so that the same lambda suits any number of texts), `perMatrix`
        /// (by their mean in each matrix) or `raw` (not at all, as in the code of the authors).
        /// Default `scaleFree`.
        saliency_scale: SaliencyScale,
        /// Which difference to the original weights is penalised: `beforeLowRank` (that of the
        /// quantized weights alone) or `afterLowRank` (that of the quantized weights and the
        /// factors together). Default `beforeLowRank`.
        saliency_difference: SaliencyDifference,
        /// Number of sequences whose squared gradients are summed, at least 1. Default 32.
        saliency_samples: usize = 32,
        /// Number of epochs with the penalty alone, before those with penalty and outputs
        /// (`train.epochs`). Default 0.
        penalty_epochs: usize = 0,
        /// Number of epochs with the outputs alone, after those with penalty and outputs. Default
        /// 0.
        output_epochs: usize = 0,
        /// Options of the training, layer by layer.
        train: BlockOptions,
    }
}

impl SaprConfig {
    pub(crate) const DEFAULTS: Defaults = ApiqConfig::DEFAULTS;

    /// Returns the recipe: that of ApiQ with the penalty on rounding errors.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let usual = ApiqConfig::blocks();
        let (lambda, samples) = (self.lambda, self.saliency_samples);
        let (scale, difference) = (self.saliency_scale, self.saliency_difference);
        let sequence_length = self.train.sequence_length.unwrap_or(usual.sequence_length);
        let saliency = SaliencyConfig { lambda, scale, difference, samples, sequence_length };
        let trains = self.low_rank.trains(self.common.target(Self::DEFAULTS), Trains::SCALES);
        let config = self.train.over(trains, BlockConfig { saliency: Some(saliency), ..usual })?;
        let both = BlockPhase { saliency: true, ..config.phases[0] };
        let config = config.with_phases(vec![
            BlockPhase { epochs: self.penalty_epochs, output: false, ..both },
            both,
            BlockPhase { epochs: self.output_epochs, saliency: false, ..both },
        ])?;
        let stage = LayerScope::Block.stage(trains, config);
        ApiqConfig::of("sapr", &self.common, &self.low_rank, stage)
    }
}
