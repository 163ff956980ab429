//! `silq`: SiLQ: Simple Large Language Model Quantization-Aware Training (2025, arXiv 2507.16933);
//! the paper has no public code, so details are ours. All weights, norms and scales learn by AdamW
//! from the KL divergence to the unquantized model (the teacher), end to end; the scales by LSQ
//! (arXiv 1902.08153).
//!
//! Costs the memory of the whole model several times (weights, gradients, two moments of AdamW and
//! the teacher, in f32) and time in proportion to `train.tokens`: 50,000 tokens take 9 minutes and
//! 3.4 GB (SmolLM2-135M, two cores, docs/lab). For the best model in 4 bits, if there is enough
//! memory.
//!
//! Defaults: the paper finds the initial scales from a convex surrogate of the error; ours start
//! from the least squared error, which trained better on both models we measured (docs/lab).

use crate::error::Result;
use crate::recipe::{
    Defaults, GradientScale, Observer, RangeConfig, Recipe, Stage, StageStart, TrainConfig, Trains,
    WeightSite, options,
};
use crate::target::Request;
use halfstep_kernels::quant::lsq::EdgeRule;

options! {
    /// SiLQ: weights, norms and scales learn together, end to end, from the outputs of the
    /// unquantized model (the teacher).
    SilqConfig {
        /// Give each linear input and each cache one learned scale that is stored in the file,
        /// instead of scales that are computed while the model runs; target `halfstep` only.
        /// Default false.
        static_activations: bool = false,
        /// How the initial scale of each group of weights is found: `absmax` (largest magnitude /
        /// largest code), `signedAbsmax` (the same with the sign of that weight, as ggml does),
        /// `errorSearch` (least squared error), `best` (for each matrix the one of the last two
        /// with the smaller squared error), `convex` (minimum of a convex surrogate of the error)
        /// or `lsq` (2 mean|w| / sqrt(largest code)). Default `best`. At 4 bits per channel
        /// `signedAbsmax` can train better still.
        observer: Observer,
        /// Let the scales of the weights learn; false keeps those that `observer` finds. Default
        /// true.
        learn_scales: bool = true,
        /// Whether a weight exactly on the edge of the grid counts as `inside` or `outside` of it
        /// when gradients are computed. Default `inside`.
        edge: EdgeRule,
        /// What the gradient of a scale is divided by, sqrt(N p) with p the largest code and N the
        /// number of weights of the whole matrix (`matrix`) or of those that share the scale
        /// (`group`). Default `matrix`.
        gradient_scale: GradientScale,
        /// Options of the training.
        train: TrainConfig,
    }
}

impl SilqConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults::CHANNELS;

    /// Returns the recipe: one stage that trains the whole model.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let (target, static_activations) =
            (self.common.target(Self::DEFAULTS), self.static_activations);
        let request = self.common.request(Self::DEFAULTS);
        let sites = target.sites(&Request { static_activations, learned: true, ..request })?;
        let (scales, activation_scales) = (self.learn_scales, static_activations);
        let range = if scales { RangeConfig::Scale } else { RangeConfig::Frozen };
        let learned = Trains { weights: true, norms: true, ..Trains::NONE };
        let trains = Trains { scales, activation_scales, ..learned };
        let (from, config) = (StageStart::Previous, self.train.checked(trains)?);
        let stages = vec![Stage::Model { from, trains, config }];
        let recipe = sites.recipe("silq", target, self.observer, range, stages);
        let (edge, gradient_scale) = (self.edge, self.gradient_scale);
        Ok(recipe.with_weight_sites(|site| WeightSite { gradient_scale, edge, ..site }))
    }
}
