//! `rtn`: round to nearest, nothing trains. Also the step search without training, by another
//! `start`.

use crate::error::Result;
use crate::recipe::{RangeConfig, Recipe, StartRule};
use crate::target::{Request, TargetId, ZeroPoints};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct RtnConfig {
    /// Where the model will run. Default `gguf:q4_0`.
    pub target: TargetId,
    /// Bits of the block linears. Default: what the target holds.
    pub weights: Option<f64>,
    /// Columns of a row that share a scale; 0 is the whole row. Default: what the target holds.
    pub group_size: Option<usize>,
    /// Bits of the linears' inputs: 8, or 16 to leave them alone. Default: what the target uses.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 4 or 8, 16, 32. Default: what the target uses.
    pub cache: Option<f64>,
    /// A zero point per group (target `halfstep`). Default false.
    pub zero_points: bool,
    /// How scales are found. Default `best`.
    pub start: StartRule,
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
        Ok(sites.recipe("rtn", self.target, self.start, RangeConfig::Frozen, vec![]))
    }
}
