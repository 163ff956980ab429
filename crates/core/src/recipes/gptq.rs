//! `gptq`: GPTQ: Accurate Post-training Compression for Generative Pretrained Transformers (2022,
//! arXiv 2210.17323): columns are rounded one after the other, and the columns that are not rounded
//! yet are adjusted to compensate each error. Scales are those of the original groups (static), so
//! that any order of columns can be stored.
//!
//! Costs forward passes over the text and one inverse per linear layer: 2.5 minutes and 1.3 GB
//! (SmolLM2-135M, two cores, docs/lab). Good at 3 and 4 bits; at 2 bits block training is much
//! better.
//!
//! Defaults: the damping of the authors; 32 sequences of 512 tokens instead of 128 of 2048.

use crate::error::Result;
use crate::recipe::solver_options::SolverOptions;
use crate::recipe::{Defaults, Recipe, options};
use crate::solver::SolverConfig;
use crate::solver::gptq::GptqConfig;

options! {
    /// GPTQ: columns are rounded one after the other, and the columns that are not rounded yet
    /// compensate each error.
    GptqRecipeConfig {
        /// Damping that is added to the diagonal of the Hessian, as a share of its mean, so that it
        /// can be inverted; 0 to 10. It is raised, with a warning, where it is too small. Default
        /// 0.01.
        damping: f64 = 0.01,
        /// Round the columns with the largest diagonal entries of the Hessian first, instead of
        /// from left to right. Default true.
        act_order: bool = true,
        /// Options of the calibration text.
        train: SolverOptions,
    }
}

impl GptqRecipeConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults { weights: 3, ..Defaults::GROUPS };

    /// Returns the recipe: weights of linears solved layer by layer by GPTQ.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let (damping, act_order) = (self.damping, self.act_order);
        let solver = SolverConfig::Gptq(GptqConfig { damping, act_order });
        self.train.recipe("gptq", &self.common, Self::DEFAULTS, solver)
    }
}
