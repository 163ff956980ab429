//! `awq`: AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration (2023,
//! arXiv 2306.00978): the weights of input channels with large activations are scaled up before
//! rounding, and the operation before them is scaled down to compensate exactly; then the ranges of
//! the groups are clipped.
//!
//! Costs forward passes only: 5 minutes and 1.4 GB (SmolLM2-135M, two cores, docs/lab). Good at 3
//! and 4 bits, and less dependent on the text than `gptq`; not for 2 bits.
//!
//! Defaults: magnitudes are means over 32 sequences of 512 tokens; errors are compared on four of
//! them.

use crate::error::Result;
use crate::recipe::solver_options::SolverOptions;
use crate::recipe::{Defaults, Recipe, options};
use crate::solver::SolverConfig;
use crate::solver::awq::AwqConfig;

options! {
    /// AWQ: the weights of input channels with large activations are scaled up before rounding,
    /// then the ranges are clipped.
    AwqRecipeConfig {
        /// Also search for the best clipping of each group of weights. Default true.
        clip: bool = true,
        /// Options of the calibration text.
        train: SolverOptions,
    }
}

impl AwqRecipeConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults { weights: 3, ..Defaults::GROUPS };

    /// Returns the recipe: weights of linears solved layer by layer by AWQ.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let solver = SolverConfig::Awq(AwqConfig { clip: self.clip });
        self.train.recipe("awq", &self.common, Self::DEFAULTS, solver)
    }
}
