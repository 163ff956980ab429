//! `llm-qat`: LLM-QAT: Data-Free Quantization Aware Training for Large Language Models (2023, arXiv
//! 2305.17888): all weights and norms learn from the outputs of the unquantized model (the
//! teacher), on text that it generated itself. Scales are computed anew in every step, as the
//! largest magnitude of the current weights / the largest code: nothing is clipped and no range
//! learns.
//!
//! Costs the memory of the whole model several times, as `silq` does, and also the time to generate
//! the text. For models whose training text is not available.
//!
//! Defaults and differences: the gradient of a weight goes straight through (the code of the
//! authors zeroes it where |w| >= 2, though nothing is clipped there); scales without their added
//! 1e-6; keys are quantized after RoPE and by head, as the runtime stores them.

use crate::error::Result;
use crate::recipe::{
    Defaults, Observer, RangeConfig, Recipe, RecipeData, Stage, StageStart, TrainConfig, Trains,
    options,
};
use crate::target::TargetId;

options! {
    /// LLM-QAT: all weights learn on text that the unquantized model generates itself, so that no
    /// data are needed.
    LlmQatConfig {
        /// Options of the training. Unless the run has data, the model generates `tokens` first.
        /// Unlike in other recipes there is no warm-up and the learning rate falls to 0; its peak,
        /// 2e-4, is for small budgets: the authors use 2e-5 for 200 million tokens.
        train: TrainConfig = TrainConfig { warmup: 0.0, min_ratio: 0.0, ..TrainConfig::default() },
    }
}

impl LlmQatConfig {
    pub(crate) const DEFAULTS: Defaults =
        Defaults { target: TargetId::Halfstep, cache: 8, ..Defaults::CHANNELS };

    /// Returns the recipe: one stage that trains the whole model on text of its own.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let trains = Trains { weights: true, norms: true, ..Trains::NONE };
        let (from, config) = (StageStart::Previous, self.train.checked(trains)?);
        let stages = vec![Stage::Model { from, trains, config }];
        let (observer, range) = (Observer::Absmax, RangeConfig::Absmax);
        let recipe = self.common.recipe("llm-qat", Self::DEFAULTS, observer, range, stages)?;
        Ok(Recipe { data: RecipeData { self_generated: Some(self.train.tokens) }, ..recipe })
    }
}
