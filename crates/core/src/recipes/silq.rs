//! `silq`: SiLQ: Simple Large Language Model Quantization-Aware Training (2025, arXiv 2507.16933);
//! a SiLQ-class recipe, since the paper has no public code. All weights, norms and steps learn by
//! AdamW from the KL to the unquantized model; steps by LSQ (arXiv 1902.08153). The paper starts
//! the steps from a convex surrogate; ours start from the least squared error, which trained better
//! on both models we measured (docs/lab).

use crate::error::Result;
use crate::recipe::{
    GradientScale, RangeConfig, Recipe, Stage, StageStart, StartRule, TrainConfig, Trains,
    WeightSite,
};
use crate::target::{Request, TargetId};
use halfstep_kernels::quant::lsq::EdgeRule;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct SilqConfig {
    /// Where the model will run: training simulates exactly its grids. Default `gguf:q4_0`.
    pub target: TargetId,
    /// Bits of the block linears. Default: what the target holds.
    pub weights: Option<f64>,
    /// Columns of a row that share a step; 0 is the whole row. Default: what the target holds.
    pub group_size: Option<usize>,
    /// Bits of the linears' inputs: 8, or 16 to leave them alone. Default: what the target uses.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 4 or 8, 16, 32. Default: what the target uses.
    pub cache: Option<f64>,
    /// One learned step per activation and cache site instead of dynamic scales (target `halfstep`
    /// only). Default false.
    pub static_activations: bool,
    /// How the first weight steps are found. Default `best`. At 4 bit per channel `signedAbsmax`
    /// can train better still.
    pub start: StartRule,
    /// Learn the weight steps; false freezes them at `start`. Default true.
    pub learn_steps: Option<bool>,
    /// Whether a weight exactly on the edge of the grid counts as inside. Default `inside`.
    pub edge: Option<EdgeRuleConfig>,
    /// N of LSQ's gradient scale. Default `layer`.
    pub gradient_scale: GradientScale,
    /// Everything about the training run.
    pub train: TrainConfig,
}

/// LSQ's edge rule, as a config value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum EdgeRuleConfig {
    Inside,
    Outside,
}

impl SilqConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request = Request {
            weights: self.weights,
            group_size: self.group_size,
            activations: self.activations,
            cache: self.cache,
            static_activations: self.static_activations,
            learned: true,
            ..Request::default()
        };
        let sites = self.target.sites(&request)?;
        self.train.validate()?;
        let learns = self.learn_steps.unwrap_or(true);
        let range = if learns { RangeConfig::Step } else { RangeConfig::Frozen };
        let trains = Trains {
            scales: learns,
            low_rank: false,
            activation_scales: self.static_activations,
            ..Trains::ALL
        };
        let from = StageStart::Previous;
        let stage = Stage::Model { from, trains, config: self.train.clone() };
        let recipe = sites.recipe("silq", self.target, self.start, range, vec![stage]);
        let edge = if self.edge == Some(EdgeRuleConfig::Outside) {
            EdgeRule::Outside
        } else {
            EdgeRule::Inside
        };
        let gradient_scale = self.gradient_scale;
        Ok(recipe.with_weight_sites(|site| WeightSite { gradient_scale, edge, ..site }))
    }
}
