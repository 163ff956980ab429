//! The built-in recipes, one file each. [`RecipeConfig`] is their list: a new recipe is a file and a line here.

pub mod rtn;
pub mod silq;

use crate::error::Result;
use crate::recipe::Recipe;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What a user writes: a recipe's name and its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum RecipeConfig {
    Silq(silq::SilqConfig),
    Rtn(rtn::RtnConfig),
}

impl RecipeConfig {
    /// The recipe under its target: defaults filled in, every option checked, grids the target cannot hold refused.
    pub fn resolve(&self) -> Result<Recipe> {
        match self {
            RecipeConfig::Silq(c) => c.recipe(),
            RecipeConfig::Rtn(c) => c.recipe(),
        }
    }
}
