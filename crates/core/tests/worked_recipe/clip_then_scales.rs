//! `clip-then-scales`: clips learn block by block (OmniQuant, arXiv 2308.13137), then the codes
//! stay and their scales learn end to end (E2E-QP of EfficientQAT, arXiv 2407.11062), here from the
//! unquantized model's answers instead of the next token.

use crate::error::Result;
use crate::recipe::block::{BlockOptions, BlockRates};
use crate::recipe::{BlockConfig, Learns, RangeLearning, Recipe, Stage, StartRule, TrainConfig};
use crate::targets::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ClipThenScalesConfig {
    /// Bits of the block linears. Default 2.
    pub weights: Option<f64>,
    /// The blocks' part.
    pub train: BlockOptions,
    /// The part end to end.
    pub end: TrainConfig,
}

impl ClipThenScalesConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let target = TargetId::Halfstep;
        let sites =
            target.sites(&Request { weights: self.weights, affine: true, ..Request::default() })?;
        let blocks = self
            .train
            .over(BlockConfig::usual(BlockRates { ranges: 1e-2, ..BlockRates::default() }, 1.0))?;
        self.end.validate()?;
        let stages = vec![
            Stage::Block { config: blocks },
            Stage::Model { learns: Learns::Scales, config: self.end.clone() },
        ];
        Ok(sites.recipe("clip-then-scales", target, StartRule::Absmax, RangeLearning::Clip, stages))
    }
}
