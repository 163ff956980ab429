//! `llm-qat`: LLM-QAT: Data-Free Quantization Aware Training for Large Language Models (2023, arXiv
//! 2305.17888): all weights and norms learn from the outputs of the unquantized model, on text that
//! it generated itself. Scales are the largest magnitude / the largest code of the weights as they
//! are, found anew in every step: nothing is clipped and no range learns.
//!
//! Costs the memory of the whole model several times, as `silq` does, and the time to generate the
//! text besides. For models whose training text nobody has.
//!
//! Defaults and differences: the gradient of a weight goes straight through (the code of the
//! authors zeroes it where |w| >= 2, though nothing is clipped there); scales without their added
//! 1e-6; keys are quantized after RoPE and by head, as the runtime stores them.

use crate::error::Result;
use crate::recipe::{
    Common, Defaults, Observer, RangeConfig, Recipe, RecipeData, Stage, StageStart, TrainConfig,
    Trains,
};
use crate::target::TargetId;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// LLM-QAT: all weights learn on text that the unquantized model generates itself, so no data are
/// needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct LlmQatConfig {
    #[serde(flatten)]
    pub common: Common,
    /// Options of the training. Unless the run is given data, the model generates `tokens` first.
    /// Compared with other recipes there is no warm-up and the learning rate falls to 0; its peak,
    /// 2e-4, is for small budgets: the authors take 2e-5 for 200 million tokens.
    pub train: TrainConfig,
}

impl Default for LlmQatConfig {
    fn default() -> Self {
        let train = TrainConfig { warmup: 0.0, min_ratio: 0.0, ..TrainConfig::default() };
        Self { common: Common::default(), train }
    }
}

impl LlmQatConfig {
    pub const DEFAULTS: Defaults =
        Defaults { target: TargetId::Halfstep, cache: 8, ..Defaults::CHANNELS };

    pub fn recipe(&self) -> Result<Recipe> {
        self.train.validate()?;
        let trains = Trains { weights: true, norms: true, ..Trains::NONE };
        let (from, config) = (StageStart::Previous, self.train.clone());
        let stages = vec![Stage::Model { from, trains, config }];
        let (observer, range) = (Observer::Absmax, RangeConfig::Absmax);
        let recipe = self.common.recipe("llm-qat", Self::DEFAULTS, observer, range, stages)?;
        Ok(Recipe { data: RecipeData { self_generated: Some(self.train.tokens) }, ..recipe })
    }
}
