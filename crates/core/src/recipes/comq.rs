//! `comq`: COMQ: A Backpropagation-Free Algorithm for Post-Training Quantization (2024, arXiv
//! 2403.07134): coordinate descent on the error of each output of a linear layer. One weight after
//! the other gets the code that is best for the codes that the other weights have now.
//!
//! Costs forward passes over the text and, in every pass over a linear layer, as many operations as
//! its rows times the square of its columns: no inverse, but more than `gptq` where layers are wide.
//! The demo model takes seconds; no larger model has been measured.
//!
//! Defaults: three passes and the greedy order of the paper; the damping of `gptq`.

use crate::error::Result;
use crate::recipe::solver_options::SolverOptions;
use crate::recipe::{Defaults, Recipe, options};
use crate::solver::SolverConfig;
use crate::solver::comq::ComqConfig;

options! {
    /// COMQ: coordinate descent on the error of the outputs, one weight after the other.
    ComqRecipeConfig {
        /// Number of visits of every weight, 1 to 100. Default 3.
        passes: usize = 3,
        /// Visit the weights with the largest products of weight and inputs first, instead of from
        /// left to right. Default true.
        greedy: bool = true,
        /// Compare with the outputs of the unquantized model, instead of with those of the
        /// unquantized layer for the inputs that the quantized layers before it give. Default
        /// false.
        two_streams: bool = false,
        /// Damping that is added to the diagonal of the products of the inputs, as a share of its
        /// mean; 0 to 10. Default 0.01.
        damping: f64 = 0.01,
        /// Find the best scale of each group for its codes after every pass, instead of keeping
        /// those of the unquantized weights. Default false, as in the program of the authors.
        update_scales: bool = false,
        /// Options of the calibration text.
        train: SolverOptions,
    }
}

impl ComqRecipeConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults { weights: 3, ..Defaults::GROUPS };

    /// Returns the recipe: weights of linears solved layer by layer by COMQ.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let Self { passes, greedy, two_streams, damping, update_scales, .. } = *self;
        let from_nearest = false;
        let config =
            ComqConfig { passes, greedy, from_nearest, two_streams, damping, update_scales };
        self.train.recipe("comq", &self.common, Self::DEFAULTS, SolverConfig::Comq(config))
    }
}
