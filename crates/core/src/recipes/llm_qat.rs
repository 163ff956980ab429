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
    Observer, RangeConfig, Recipe, RecipeData, Stage, StageStart, TrainConfig, Trains,
};
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// LLM-QAT: all weights learn on text that the unquantized model generates itself, so no data are
/// needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct LlmQatConfig {
    /// Where the model will run, which decides the grids it may have: `gguf:q4_0`, `gguf:q8_0` or
    /// `gguf:tq2_0` (files for llama.cpp), or `halfstep` (our own file, any grid). Default
    /// `halfstep`.
    pub target: TargetId,
    /// Bits of each weight in the linear layers of the transformer blocks, 2 to 8. Default: what a
    /// gguf target holds, otherwise 4.
    pub weights: Option<f64>,
    /// Columns of a weight row that share a scale; 0 is the whole row. Default: what a gguf target
    /// holds, otherwise 0.
    pub group_size: Option<usize>,
    /// Bits of the inputs of the linear layers, 2 to 8, or 16 to leave them in floating point.
    /// Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 2 to 8, 16 or 32; gguf targets have 8, 16 and 32. Default 8 for
    /// `halfstep`, otherwise 16.
    pub cache: Option<f64>,
    /// Options of the training. Unless the run is given data, the model generates `tokens` first.
    /// Compared with other recipes there is no warm-up and the learning rate falls to 0; its peak,
    /// 2e-4, is for small budgets: the authors take 2e-5 for 200 million tokens.
    #[serde(with = "over_defaults")]
    #[ts(as = "TrainConfig")]
    pub train: TrainConfig,
}

impl Default for LlmQatConfig {
    fn default() -> Self {
        let train = TrainConfig { warmup: 0.0, min_ratio: 0.0, ..TrainConfig::default() };
        Self {
            target: TargetId::Halfstep,
            weights: None,
            group_size: None,
            activations: None,
            cache: None,
            train,
        }
    }
}

/// A training config whose absent fields have this recipe's defaults.
mod over_defaults {
    use super::{LlmQatConfig, TrainConfig};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Map;

    pub fn serialize<S: Serializer>(config: &TrainConfig, to: S) -> Result<S::Ok, S::Error> {
        config.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(given: D) -> Result<TrainConfig, D::Error> {
        let mut all =
            serde_json::to_value(LlmQatConfig::default().train).map_err(D::Error::custom)?;
        for (name, value) in Map::deserialize(given)? {
            all[name] = value;
        }
        TrainConfig::deserialize(all).map_err(D::Error::custom)
    }
}

impl LlmQatConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request = Request {
            weights: self.weights,
            group_size: self.group_size,
            activations: self.activations,
            cache: self.cache.or((self.target == TargetId::Halfstep).then_some(8.0)),
            ..Request::default()
        };
        let sites = self.target.sites(&request)?;
        self.train.validate()?;
        let trains = Trains { weights: true, norms: true, ..Trains::NONE };
        let from = StageStart::Previous;
        let stage = Stage::Model { from, trains, config: self.train.clone() };
        let recipe = sites.recipe(
            "llm-qat",
            self.target,
            Observer::Absmax,
            RangeConfig::Absmax,
            vec![stage],
        );
        let data = RecipeData { self_generated: Some(self.train.tokens) };
        Ok(Recipe { data, ..recipe })
    }
}

#[cfg(test)]
mod tests {
    use crate::recipes::RecipeConfig;
    use crate::run::parse_config;

    #[test]
    fn what_is_not_said_of_the_training_has_this_recipe_s_defaults() {
        let train = |json: &str| match parse_config::<RecipeConfig>(json) {
            Ok(RecipeConfig::LlmQat(config)) => {
                (config.train.warmup, config.train.min_ratio, config.train.tokens)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(train(r#"{"kind":"llm-qat"}"#), (0.0, 0.0, 50_000));
        assert_eq!(train(r#"{"kind":"llm-qat","train":{"tokens":9}}"#), (0.0, 0.0, 9));
        assert_eq!(train(r#"{"kind":"llm-qat","train":{"warmup":0.2}}"#), (0.2, 0.0, 50_000));
        let error = parse_config::<RecipeConfig>(r#"{"kind":"llm-qat","train":{"leaningRate":1}}"#)
            .expect_err("unknown")
            .to_string();
        assert!(
            error.starts_with("train.leaningRate: ")
                && error.contains("did you mean learningRate?"),
            "{error}"
        );
        let error = parse_config::<RecipeConfig>(r#"{"kind":"llm-qat","train":3}"#)
            .expect_err("no object")
            .to_string();
        assert!(error.starts_with("train: "), "{error}");
        let round =
            serde_json::to_string(&parse_config::<RecipeConfig>(r#"{"kind":"llm-qat"}"#).unwrap())
                .unwrap();
        assert!(round.starts_with(r#"{"kind":"llm-qat""#), "{round}");
    }
}
