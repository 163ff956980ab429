//! The options that every built-in recipe has.

use super::{Observer, RangeConfig, Recipe, Stage};
use crate::error::Result;
use crate::target::{Request, TargetId, ZeroPoints};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Options that every recipe has. What the user leaves out is the recipe's default; what the
/// recipe leaves open is decided by the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct Common {
    /// Where the model will run, which decides the grids it may have: `gguf:q4_0`, `gguf:q4_1`,
    /// `gguf:q8_0` or `gguf:tq2_0` (files for llama.cpp), or `halfstep` (our own file, any grid).
    /// Default: given by the recipe.
    pub target: Option<TargetId>,
    /// Bits of each weight in the linear layers of the transformer blocks, 2 to 8. Default: what a
    /// gguf target holds, otherwise given by the recipe.
    pub weights: Option<f64>,
    /// Columns of a weight row that share a scale and, if the grid has one, a zero point; 0 is the
    /// whole row. Default: what a gguf target holds, otherwise given by the recipe.
    pub group_size: Option<usize>,
    /// Bits of the inputs of the linear layers, 2 to 8, or 16 to leave them in floating point.
    /// Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 2 to 8, 16 or 32; gguf targets have 8, 16 and 32. Default: 16
    /// with a gguf target, otherwise given by the recipe.
    pub cache: Option<f64>,
}

/// The values of common options that the user leaves out. All but the target are for the target
/// `halfstep`; the others hold one grid each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// The target.
    pub target: TargetId,
    /// Bits of the weights.
    pub weights: u8,
    /// Columns of a weight row that share a scale; 0 is the whole row.
    pub group_size: usize,
    /// Bits of the cache.
    pub cache: u8,
    pub(crate) zero_points: ZeroPoints,
}

impl Defaults {
    /// 4 bits and a scale per row, for llama.cpp.
    pub(crate) const CHANNELS: Self = Self {
        target: TargetId::GgufQ4_0,
        weights: 4,
        group_size: 0,
        cache: 16,
        zero_points: ZeroPoints::No,
    };

    /// 2 bits and a zero point in groups of 64, in our own file.
    pub const GROUPS: Self = Self {
        target: TargetId::Halfstep,
        weights: 2,
        group_size: 64,
        cache: 16,
        zero_points: ZeroPoints::Preferred,
    };
}

impl Common {
    /// The options of a recipe that is left as it is but for its target.
    pub fn of(target: TargetId) -> Self {
        Self { target: Some(target), ..Self::default() }
    }

    pub(crate) fn target(&self, defaults: Defaults) -> TargetId {
        self.target.unwrap_or(defaults.target)
    }

    /// The request of the recipe to its target.
    pub(crate) fn request(&self, defaults: Defaults) -> Request {
        let halfstep = self.target(defaults) == TargetId::Halfstep;
        Request {
            weights: self.weights,
            group_size: self.group_size,
            activations: self.activations,
            cache: self.cache.or(halfstep.then_some(f64::from(defaults.cache))),
            zero_points: defaults.zero_points,
            default_weights: Some(defaults.weights),
            default_group_size: Some(defaults.group_size),
            ..Request::default()
        }
    }

    /// Bits of the weights of layers.
    ///
    /// Errors: `Config` or `Target`, an option is out of range or the target cannot hold it.
    pub fn weight_bits(&self, defaults: Defaults) -> Result<u8> {
        Ok(self.target(defaults).sites(&self.request(defaults))?.weights.bits())
    }

    /// The recipe with these options and one quantizer for all weights of layers.
    ///
    /// Errors: `Config` or `Target`, an option is out of range or the target cannot hold it.
    pub fn recipe(
        &self,
        id: &str,
        defaults: Defaults,
        observer: Observer,
        range: RangeConfig,
        stages: Vec<Stage>,
    ) -> Result<Recipe> {
        let target = self.target(defaults);
        let sites = target.sites(&self.request(defaults))?;
        Ok(sites.recipe(id, target, observer, range, stages))
    }
}
