//! `clip-then-scales`: clips learn block by block (OmniQuant, arXiv 2308.13137), then the codes
//! stay and their scales learn end to end (E2E-QP of EfficientQAT, arXiv 2407.11062), here from the
//! teacher's output instead of the next token.

use crate::error::Result;
use crate::recipe::block::{BlockOptions, BlockRates};
use crate::recipe::{
    BlockConfig, Observer, RangeConfig, Recipe, Stage, StageStart, TrainConfig, Trains,
};
use crate::target::{Request, TargetId};
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
        let sites = target.sites(&Request::affine(self.weights, None, None, None))?;
        let blocks = self
            .train
            .over(BlockConfig::usual(BlockRates { ranges: 1e-2, ..BlockRates::default() }, 1.0))?;
        self.end.validate()?;
        let stages = vec![
            Stage::Block { from: StageStart::Original, trains: Trains::SCALES, config: blocks },
            Stage::Model {
                from: StageStart::Previous,
                trains: Trains::SCALES,
                config: self.end.clone(),
            },
        ];
        Ok(sites.recipe("clip-then-scales", target, Observer::Absmax, RangeConfig::Clip, stages))
    }
}
