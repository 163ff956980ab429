//! The built-in recipes, one file each: a config of its options, and the [`Recipe`] they make. A
//! new recipe is a file and a line in the list below.

use crate::error::Result;
use crate::recipe::Recipe;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

macro_rules! recipes {
    ($($module:ident $variant:ident($config:ident)),* $(,)?) => {
        $(pub mod $module;)*

        /// What a user writes: a recipe's name and its options.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum RecipeConfig {
            $($variant($module::$config)),*
        }

        impl RecipeConfig {
            /// Every built-in recipe with its defaults, in the order of the list.
            pub fn defaults() -> Vec<RecipeConfig> {
                vec![$(RecipeConfig::$variant(Default::default())),*]
            }

            /// The recipe under its target: defaults filled in, every option checked, grids the
            /// target cannot hold refused.
            pub fn resolve(&self) -> Result<Recipe> {
                match self {
                    $(RecipeConfig::$variant(config) => config.recipe()),*
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
    omniquant Omniquant(OmniquantConfig),
    apiq Apiq(ApiqConfig),
    sapr Sapr(SaprConfig),
    efficientqat Efficientqat(EfficientqatConfig),
}
