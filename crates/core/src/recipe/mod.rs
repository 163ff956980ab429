//! A recipe is data: which quantizer is used at which site, what learns, on which objective and
//! schedule. Nothing here computes.

pub mod block;
pub(crate) mod common;
pub mod low_rank_options;
mod on_target;
mod options;
pub(crate) mod rules;
pub mod solver_options;
pub(crate) mod stage;
pub(crate) mod train;
mod transforms;
mod unread;

pub use crate::options;
pub use crate::quantizer::builder::{GradientScale, Trains};
pub use crate::quantizer::low_rank::{LowRankConfig, LowRankPosition};
pub use crate::quantizer::range::RangeConfig;
pub use crate::quantizer::rounding::RoundingConfig;
pub use crate::quantizer::site::WeightSite;
pub use crate::quantizer::transform::TransformConfig;
pub use block::{BlockConfig, BlockOptions, BlockRates};
pub use common::{Common, Defaults};
pub use halfstep_kernels::quant::observer::Observer;
pub use low_rank_options::LowRankOptions;
pub use rules::{LayerRange, Layers, Rule, Sites};
pub use stage::{LayerScope, Stage, StageStart, Window};
pub use train::{Recompute, TrainArithmetic, TrainConfig};

use crate::error::Result;
use crate::target::TargetId;
use halfstep_formats::Architecture;
use halfstep_formats::architecture::ActivationSite;
use halfstep_kernels::ActivationSpec;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A whole method, as the engine reads it. Recipes (`recipes/*.rs`) are functions from a few
/// options to one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recipe {
    /// Name of the recipe that it was made by: `silq`, `rtn`.
    pub id: String,
    /// Where the model will run; it refuses quantizers that it cannot hold.
    pub target: TargetId,
    /// Which quantizer is used at which site.
    pub rules: Vec<Rule>,
    /// The training text if the run has none.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub data: RecipeData,
    /// Stages of training or solving, one after the other; empty: quantize without training.
    pub stages: Vec<Stage>,
}

/// The training text of a recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[ts(optional_fields)]
pub struct RecipeData {
    /// Number of tokens that the unquantized model generates to train on if the run has no data.
    /// Absent: the run must have data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_generated: Option<usize>,
}

impl Recipe {
    /// Number of tokens of the longest training sequence; None without training.
    pub(crate) fn sequence_length(&self) -> Option<usize> {
        self.stages.iter().map(Stage::sequence_length).max()
    }

    pub(crate) fn seed(&self) -> Option<u64> {
        self.stages.first().map(Stage::seed)
    }

    /// The quantizer of every input of a layer's linears, and of all keys and values.
    ///
    /// Errors: `Config` with the path of a rule that matches nothing, or that contradicts another.
    pub(crate) fn activations(
        &self,
        architecture: &Architecture,
    ) -> Result<Vec<(usize, ActivationSite, ActivationSpec)>> {
        rules::activations(&self.rules, architecture)
    }

    /// Whether the inputs of some linears of layers are quantized.
    pub(crate) fn quantizes_activations(&self) -> bool {
        let quantizes = |rule: &Rule| match rule {
            Rule::Activation { quantizer, .. } => *quantizer != ActivationSpec::F32,
            _ => false,
        };
        self.rules.iter().any(quantizes)
    }

    /// Before the head, when the head is quantized.
    pub(crate) fn head_activation(&self) -> ActivationSpec {
        rules::head_activation(&self.rules)
    }

    /// The quantizers that rules give to weights of layers.
    pub(crate) fn weight_sites(&self) -> impl Iterator<Item = &WeightSite> {
        self.rules.iter().filter_map(Rule::weight_site)
    }

    /// Whether weights of layers are quantized at all.
    pub(crate) fn quantizes_weights(&self) -> bool {
        self.weight_sites().next().is_some()
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
    pub(crate) fn has_static_sites(&self) -> bool {
        self.rules.iter().filter_map(Rule::activation).any(ActivationSpec::is_static)
    }
}
