//! A recipe is data: which quantizer is used at which site, what learns, on which objective and
//! schedule. Nothing here computes.

pub mod block;
pub mod rules;
pub mod site;
pub mod stage;
pub mod train;

pub use crate::quantizer::range::RangeConfig;
pub use crate::quantizer::rounding::RoundingConfig;
pub use block::BlockConfig;
pub use rules::{Rule, Sites};
pub use site::{GradientScale, LowRankConfig, Observer, WeightSite};
pub use stage::{Stage, StageStart, Trains};
pub use train::{Recompute, TrainArithmetic, TrainConfig};

use crate::target::TargetId;
use halfstep_kernels::ActivationSpec;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The whole of a method, as the engine reads it. Recipes (`recipes/*.rs`) are functions from a few
/// options to one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recipe {
    /// Name of the recipe it came from: `silq`, `rtn`.
    pub id: String,
    /// Where the model will run; it refuses quantizers that it cannot hold.
    pub target: TargetId,
    /// Which quantizer is used at which site.
    pub rules: Vec<Rule>,
    /// Where the training text comes from if the run gives none.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub data: RecipeData,
    /// What is trained or solved, one after the other; empty: quantize without training.
    pub stages: Vec<Stage>,
}

/// The text of a recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[ts(optional_fields)]
pub struct RecipeData {
    /// Tokens that the teacher generates to train on, where the run gives no data. None: data must
    /// be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_generated: Option<usize>,
}

impl Recipe {
    /// Tokens of the longest training sequence; None without training.
    pub fn sequence_length(&self) -> Option<usize> {
        self.stages.iter().map(Stage::sequence_length).max()
    }

    pub fn seed(&self) -> Option<u64> {
        self.stages.first().map(Stage::seed)
    }

    /// Before every quantized linear of a layer.
    pub fn activation(&self) -> ActivationSpec {
        rules::activation(&self.rules)
    }

    /// Before the head, when the head is quantized.
    pub fn head_activation(&self) -> ActivationSpec {
        rules::head_activation(&self.rules)
    }

    pub fn cache(&self) -> ActivationSpec {
        rules::cache(&self.rules)
    }

    /// The quantizers that rules give to weights of layers.
    pub fn weight_sites(&self) -> impl Iterator<Item = &WeightSite> {
        self.rules.iter().filter_map(Rule::weight_site)
    }

    /// Whether weights of layers are quantized at all.
    pub fn quantizes_weights(&self) -> bool {
        self.weight_sites().next().is_some()
    }

    /// The largest rank of factors beside weights; None without factors.
    pub fn rank(&self) -> Option<usize> {
        self.weight_sites().filter_map(|site| site.low_rank.map(|low_rank| low_rank.rank)).max()
    }

    /// The same recipe with another quantizer wherever a rule quantizes weights of layers.
    pub fn with_weight_sites(&self, change: impl Fn(WeightSite) -> WeightSite) -> Self {
        let mut recipe = self.clone();
        for rule in &mut recipe.rules {
            if let Rule::Weight { quantizer: Some(site), .. } = rule {
                *site = change(*site);
            }
        }
        recipe
    }

    /// Whether activations or cache have scales that are stored and may learn.
    pub fn has_static_sites(&self) -> bool {
        self.activation().is_static() || self.cache().is_static()
    }
}
