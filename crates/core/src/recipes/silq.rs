//! `silq`: SiLQ: Simple Large Language Model Quantization-Aware Training (2025, arXiv 2507.16933);
//! the paper has no public code, so details are ours. All weights, norms and scales learn by AdamW
//! from the KL divergence to the unquantized model, end to end; the scales by LSQ (arXiv
//! 1902.08153).
//!
//! Costs the memory of the whole model several times (weights, gradients, two moments of AdamW and
//! the unquantized model, in f32) and time in proportion to `train.tokens`: 50,000 tokens take 9
//! minutes and 3.4 GB (SmolLM2-135M, two cores, docs/lab). For the best model in 4 bits, where the
//! memory is enough.
//!
//! Defaults: the paper finds the first scales from a convex surrogate of the error; ours start from
//! the least squared error, which trained better on both models we measured (docs/lab).

use crate::error::Result;
use crate::recipe::{
    GradientScale, Observer, RangeConfig, Recipe, Stage, StageStart, TrainConfig, Trains,
    WeightSite,
};
use crate::target::{Request, TargetId};
use halfstep_kernels::quant::lsq::EdgeRule;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// SiLQ: weights, norms and scales learn together, end to end, from the outputs of the unquantized
/// model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct SilqConfig {
    /// Where the model will run, which decides the grids it may have: `gguf:q4_0`, `gguf:q8_0` or
    /// `gguf:tq2_0` (files for llama.cpp), or `halfstep` (our own file, any grid). Default
    /// `gguf:q4_0`.
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
    /// Bits of the key/value cache: 2 to 8, 16 or 32; gguf targets have 8, 16 and 32. Default 16.
    pub cache: Option<f64>,
    /// Give each input and each cache one learned scale that is stored in the file, instead of
    /// scales computed while the model runs; target `halfstep` only. Default false.
    pub static_activations: bool,
    /// How the first scale of each group of weights is found: `absmax` (largest magnitude / largest
    /// code), `signedAbsmax` (the same with the sign of that weight, as ggml does), `errorSearch`
    /// (least squared error), `best` (of the last two the one with the smaller squared error, for
    /// each matrix), `convex` (minimum of a convex surrogate of the error) or `lsq` (2 mean|w| /
    /// sqrt(largest code)). Default `best`. At 4 bits per channel `signedAbsmax` can train better
    /// still.
    pub observer: Observer,
    /// Let the scales of the weights learn; false keeps them where `start` puts them. Default true.
    pub learn_scales: bool,
    /// Whether a weight exactly on the edge of the grid counts as `inside` or `outside` of it when
    /// gradients are computed. Default `inside`.
    pub edge: Option<EdgeRuleConfig>,
    /// What the gradient of a scale is divided by, sqrt(N p) with p the largest code and N the
    /// number of weights of the whole matrix (`layer`) or of those that share the scale (`step`).
    /// Default `layer`.
    pub gradient_scale: GradientScale,
    /// Options of the training.
    pub train: TrainConfig,
}

impl Default for SilqConfig {
    fn default() -> Self {
        Self {
            target: TargetId::default(),
            weights: None,
            group_size: None,
            activations: None,
            cache: None,
            static_activations: false,
            observer: Observer::default(),
            learn_scales: true,
            edge: None,
            gradient_scale: GradientScale::default(),
            train: TrainConfig::default(),
        }
    }
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
        let learns = self.learn_scales;
        let range = if learns { RangeConfig::Scale } else { RangeConfig::Frozen };
        let trains = Trains {
            scales: learns,
            rounding: false,
            low_rank: false,
            activation_scales: self.static_activations,
            ..Trains::ALL
        };
        let from = StageStart::Previous;
        let stage = Stage::Model { from, trains, config: self.train.clone() };
        let recipe = sites.recipe("silq", self.target, self.observer, range, vec![stage]);
        let edge = if self.edge == Some(EdgeRuleConfig::Outside) {
            EdgeRule::Outside
        } else {
            EdgeRule::Inside
        };
        let gradient_scale = self.gradient_scale;
        Ok(recipe.with_weight_sites(|site| WeightSite { gradient_scale, edge, ..site }))
    }
}
