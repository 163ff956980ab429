//! `rtn`: round to nearest; nothing is trained and no text is read. By another `start` also the
//! search for the best scales without training.
//!
//! Costs seconds and the memory of the model. It is the baseline of every table: at 8 bits nothing
//! else is needed, at 4 bits it is usable, at 2 and 3 bits it is not.
//!
//! Defaults: the scales of each matrix are the better of two rules by squared error
//! (docs/decisions/0006-rtn-is-chosen-by-kl.md).

use crate::error::Result;
use crate::recipe::{Observer, RangeConfig, Recipe};
use crate::target::{Request, TargetId, ZeroPoints};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Round to nearest: every weight goes to the nearest point of the grid, and nothing is trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct RtnConfig {
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
    /// Give each group of weights a zero point, so that its range need not be centred on 0; target
    /// `halfstep` only. Default false.
    pub zero_points: bool,
    /// How the first scale of each group of weights is found: `absmax` (largest magnitude / largest
    /// code), `signedAbsmax` (the same with the sign of that weight, as ggml does), `errorSearch`
    /// (least squared error), `best` (of the last two the one with the smaller squared error, for
    /// each matrix), `convex` (minimum of a convex surrogate of the error) or `lsq` (2 mean|w| /
    /// sqrt(largest code)). Default `best`.
    pub observer: Observer,
}

impl RtnConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request = Request {
            weights: self.weights,
            group_size: self.group_size,
            activations: self.activations,
            cache: self.cache,
            zero_points: if self.zero_points { ZeroPoints::Required } else { ZeroPoints::No },
            ..Request::default()
        };
        let sites = self.target.sites(&request)?;
        Ok(sites.recipe("rtn", self.target, self.observer, RangeConfig::Frozen, vec![]))
    }
}
