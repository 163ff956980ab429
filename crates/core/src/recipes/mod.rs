//! The built-in recipes, one file each: a config of its options, and the [`Recipe`] they make. A
//! new recipe is a file and a line in the list below.

use crate::error::Result;
use crate::recipe::{Defaults, Recipe};
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use ts_rs::TS;

macro_rules! recipes {
    ($($module:ident $variant:ident($config:ident)),* $(,)?) => {
        $(pub mod $module;)*

        /// What a user writes: a recipe's name and its options.
        #[derive(Clone, Debug, PartialEq, Serialize, TS)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum RecipeConfig {
            $($variant($module::$config)),*
        }

        impl RecipeConfig {
            /// Every built-in recipe with its defaults, in the order of the list.
            pub fn defaults() -> Vec<RecipeConfig> {
                vec![$(RecipeConfig::$variant(Default::default())),*]
            }

            /// What the recipe gives to common options that are left out.
            pub fn common_defaults(&self) -> Defaults {
                match self {
                    $(RecipeConfig::$variant(_) => $module::$config::DEFAULTS),*
                }
            }

            /// The recipe under its target: defaults filled in, every option checked, grids the
            /// target cannot hold refused.
            pub fn resolve(&self) -> Result<Recipe> {
                match self {
                    $(RecipeConfig::$variant(config) => config.recipe()),*
                }
            }

            /// The recipe of the same name with all of its options.
            fn with(&self, options: Value) -> serde_json::Result<RecipeConfig> {
                match self {
                    $(RecipeConfig::$variant(_) => {
                        serde_json::from_value(options).map(RecipeConfig::$variant)
                    }),*
                }
            }
        }
    };
}

recipes! {
    silq Silq(SilqConfig),
    rtn Rtn(RtnConfig),
    llm_qat LlmQat(LlmQatConfig),
    gptq Gptq(GptqRecipeConfig),
    awq Awq(AwqRecipeConfig),
    comq Comq(ComqRecipeConfig),
    norm_tweaking NormTweaking(NormTweakingConfig),
    omniquant Omniquant(OmniquantConfig),
    apiq Apiq(ApiqConfig),
    sapr Sapr(SaprConfig),
    efficientqat Efficientqat(EfficientqatConfig),
}

/// Reads the options over the recipe's defaults, so that what is left out of `train` is the
/// recipe's too. Refuses unknown options in serde's words, since serde reads past them where some
/// options are flattened.
impl<'de> Deserialize<'de> for RecipeConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let mut given = Map::deserialize(from)?;
        let kind = match given.remove("kind") {
            Some(Value::String(kind)) => kind,
            Some(Value::Null) => return Err(D::Error::invalid_type(Unexpected::Unit, &"a name")),
            Some(other) => return Err(D::Error::custom(format!("unknown variant `{other}`"))),
            None => return Err(D::Error::missing_field("kind")),
        };
        let mut kinds = vec![];
        for config in RecipeConfig::defaults() {
            let mut options = serde_json::to_value(&config).map_err(D::Error::custom)?;
            let Some(fields) = options.as_object_mut() else { continue };
            let name = fields.remove("kind");
            let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
            if name != kind {
                kinds.push(name.to_owned());
                continue;
            }
            if let Some(name) = given.keys().find(|name| !fields.contains_key(*name)) {
                let known = quoted(fields.keys());
                let message = format!("unknown field `{name}`, expected one of {known}");
                return Err(D::Error::custom(message));
            }
            lay_over(fields, given);
            return config.with(options).map_err(D::Error::custom);
        }
        let known = quoted(kinds.iter());
        Err(D::Error::custom(format!("unknown variant `{kind}`, expected one of {known}")))
    }
}

/// Names as serde lists them.
fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Replaces fields by those that are given, at any depth.
fn lay_over(fields: &mut Map<String, Value>, given: Map<String, Value>) {
    for (name, value) in given {
        match (fields.get_mut(&name), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => lay_over(inner, value),
            (_, value) => {
                fields.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_config;

    #[test]
    fn what_is_left_out_of_the_training_is_the_recipe_s_default() {
        let train = |json: &str| match parse_config::<RecipeConfig>(json) {
            Ok(RecipeConfig::LlmQat(config)) => {
                (config.train.warmup, config.train.min_ratio, config.train.tokens)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(train(r#"{"kind":"llm-qat"}"#), (0.0, 0.0, 50_000));
        assert_eq!(train(r#"{"kind":"llm-qat","train":{"tokens":9}}"#), (0.0, 0.0, 9));
        assert_eq!(train(r#"{"kind":"llm-qat","train":{"warmup":0.2}}"#), (0.2, 0.0, 50_000));
    }

    #[test]
    fn every_recipe_is_read_again_as_it_was_written() {
        for config in RecipeConfig::defaults() {
            let json = serde_json::to_string(&config).expect("data");
            assert!(json.starts_with(r#"{"kind":""#), "{json}");
            assert_eq!(parse_config::<RecipeConfig>(&json).expect("its own text"), config);
        }
    }

    #[test]
    fn common_options_that_are_left_out_are_the_recipe_s_defaults() {
        for config in RecipeConfig::defaults() {
            let mut json = serde_json::to_value(&config).expect("data");
            let recipe = config.resolve().expect("its defaults fit together");
            let defaults = config.common_defaults();
            assert_eq!(recipe.target, defaults.target, "{}", recipe.id);
            json["target"] = "halfstep".into();
            let left_out = parse_config::<RecipeConfig>(&json.to_string()).expect("a target");
            json["weights"] = defaults.weights.into();
            json["groupSize"] = defaults.group_size.into();
            json["cache"] = defaults.cache.into();
            let stated = parse_config::<RecipeConfig>(&json.to_string()).expect("all of them");
            assert_eq!(left_out.resolve().unwrap(), stated.resolve().unwrap(), "{}", recipe.id);
        }
    }

    #[test]
    fn an_unknown_or_wrong_option_is_named_by_its_path() {
        for (json, start, words) in [
            (
                r#"{"kind":"llm-qat","train":{"leaningRate":1}}"#,
                "train.leaningRate: ",
                "did you mean learningRate?",
            ),
            (r#"{"kind":"llm-qat","train":3}"#, "train: ", "3"),
            (r#"{"kind":"apiq","rnak":3}"#, "rnak: ", "did you mean rank?"),
            (r#"{"kind":"apiq","rank":-3}"#, "rank: ", "a whole number"),
            (r#"{"kind":"silq","target":"gguf:q40"}"#, "target: ", "did you mean gguf:q4_0?"),
            (r#"{"kind":3}"#, "kind: ", "3 is not known"),
            (r#"{"kind":null}"#, "kind: ", "must be a name"),
        ] {
            let error = parse_config::<RecipeConfig>(json).expect_err(json).to_string();
            assert!(error.starts_with(start) && error.contains(words), "{json}: {error}");
        }
    }
}
