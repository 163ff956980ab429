//! `rtn`: round to nearest; nothing is trained and no text is read. `observer` chooses
//! how the scales are found.
//!
//! Costs seconds and the memory of the model. It is the baseline of every table: at 8 bits nothing
//! else is needed, at 4 bits it is usable, at 2 and 3 bits it is not.
//!
//! Defaults: the scales of each matrix are the better of two rules by squared error
//! (docs/decisions/0006-rtn-is-chosen-by-kl.md).

use crate::error::Result;
use crate::recipe::{Defaults, Observer, RangeConfig, Recipe, options};
use crate::target::ZeroPoints;

options! {
    /// Round to nearest: every weight is rounded to the nearest point of the grid, and nothing is
    /// trained.
    RtnConfig {
        /// Give each group of weights a zero point, so that its range need not be centred on 0;
        /// target `halfstep`, where the defaults are then 2 bits and groups of 64, or `gguf:q4_1`,
        /// which always has them. Default false.
        zero_points: bool = false,
        /// How the initial scale of each group of weights is found: `absmax` (largest magnitude /
        /// largest code), `signedAbsmax` (the same with the sign of that weight, as ggml does),
        /// `errorSearch` (least squared error), `best` (for each matrix the one of the last two
        /// with the smaller squared error), `convex` (minimum of a convex surrogate of the error)
        /// or `lsq` (2 mean|w| / sqrt(largest code)). Default `best`.
        observer: Observer,
    }
}

impl RtnConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults::CHANNELS;

    /// Returns the recipe: weights rounded to nearest, and no stage of training.
    ///
    /// Errors: `Config`, an option is out of range; `Target`, the target cannot hold the grid.
    pub fn recipe(&self) -> Result<Recipe> {
        let defaults = if self.zero_points {
            let (target, zero_points) = (Self::DEFAULTS.target, ZeroPoints::Required);
            Defaults { target, zero_points, ..Defaults::GROUPS }
        } else {
            Self::DEFAULTS
        };
        self.common.recipe("rtn", defaults, self.observer, RangeConfig::Frozen, vec![])
    }
}
