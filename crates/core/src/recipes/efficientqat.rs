//! `efficientqat`: EfficientQAT: Efficient Quantization-Aware Training for Large Language Models
//! (2024, arXiv 2407.11062). Phase 1 (Block-AP): weights, norms, scales and zero points learn layer
//! by layer. Phase 2 (E2E-QP): the codes are frozen and the scales learn end to end.
//!
//! Costs the memory of one layer in phase 1 and of the whole model in phase 2: 6 minutes and 0.6
//! GB, then 4.5 minutes and 1.9 GB (SmolLM2-135M, two cores, docs/lab). The best recipe at 2 and 3
//! bits; where memory is short, `endTokens: 0` leaves phase 2 out.
//!
//! Defaults: phase 2 learns from the outputs of the unquantized model (the teacher), which leaves a
//! lower KL divergence than the next token that the authors train on (docs/lab; `endCeWeight: 1,
//! endKlWeight: 0` for theirs). Scales and zero points start from the least squared error
//! (docs/decisions/0010-ranges-start-from-least-error.md), those of the authors from the widest
//! range; weights are pulled back to their initial values
//! (docs/decisions/0011-weights-are-held.md), those of the authors are not. As in their code
//! weights learn twice as fast at 2 bits (0.02) as at 3 and 4 (0.01). Learning rates are relative
//! and for some hundred steps; the absolute ones of the authors (1e-4 and 2e-5 in phase 1, 2e-5 in
//! phase 2) are for thousands on weights of about 0.02.

use crate::error::Result;
use crate::recipe::{
    BlockConfig, BlockOptions, BlockRates, Defaults, LayerScope, Observer, RangeConfig, Recipe,
    Stage, StageStart, TrainConfig, Trains, options,
};

options! {
    /// EfficientQAT: weights, scales and zero points learn layer by layer, then the scales alone
    /// learn end to end.
    EfficientqatConfig {
        /// Options of phase 1, layer by layer.
        train: BlockOptions,
        /// Number of tokens to train on in phase 2, end to end; 0 leaves the phase out. Default
        /// 32,768.
        end_tokens: usize = 32_768,
        /// Learning rate of the scales in phase 2, as a share of the initial root mean square of
        /// the scales of each matrix. Default 5e-3; 1e-3 suits the next-token loss.
        end_learning_rate: f64 = 5e-3,
        /// Weight in the loss of phase 2 of the KL divergence to the unquantized model (the
        /// teacher), 0 or more. Default 1.
        end_kl_weight: f64 = 1.0,
        /// Weight in the loss of phase 2 of the cross-entropy of the next token, 0 or more. Default
        /// 0.
        end_ce_weight: f64 = 0.0,
    }
}

impl EfficientqatConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults::GROUPS;

    /// Returns the recipe: Block-AP layer by layer, then E2E-QP unless it has no tokens.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        // As in the authors' code weights at 2 bits learn twice as fast as at 3 and 4.
        let weights = if self.common.weight_bits(Self::DEFAULTS)? <= 2 { 2e-2 } else { 1e-2 };
        let usual = BlockConfig::usual(BlockRates { ranges: 5e-3, low_rank: 0.0, weights }, 0.05);
        let trains = Trains { weights: true, norms: true, ..Trains::SCALES };
        let config = self.train.over(trains, BlockConfig { anchor: 1.0, ..usual })?;
        let end = TrainConfig {
            tokens: self.end_tokens,
            batch: 1,
            learning_rate: Some(self.end_learning_rate),
            max_norm: 0.3,
            kl_weight: self.end_kl_weight,
            ce_weight: self.end_ce_weight,
            ..TrainConfig::after(&config)
        };
        let mut stages = vec![LayerScope::Block.stage(trains, config)];
        if self.end_tokens > 0 {
            let (from, trains) = (StageStart::Previous, Trains::SCALES);
            stages.push(Stage::Model { from, trains, config: end.checked(trains)? });
        }
        let (observer, range) = (Observer::ErrorSearch, RangeConfig::ScaleZero);
        self.common.recipe("efficientqat", Self::DEFAULTS, observer, range, stages)
    }
}
