//! `clip-then-scales`: clips learn block by block (OmniQuant, arXiv 2308.13137), then the codes
//! stay and their scales learn end to end (E2E-QP of EfficientQAT, arXiv 2407.11062), here from the
//! teacher's output instead of the next token.

use crate::error::Result;
use crate::recipe::{
    BlockConfig, BlockOptions, BlockRates, Common, Defaults, Observer, RangeConfig, Recipe, Stage,
    StageStart, TrainConfig, Trains,
};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct ClipThenScalesConfig {
    #[serde(flatten)]
    pub common: Common,
    /// Options of the first stage, layer by layer.
    pub train: BlockOptions,
    /// Options of the second stage, end to end.
    pub end: TrainConfig,
}

impl ClipThenScalesConfig {
    pub const DEFAULTS: Defaults = Defaults::GROUPS;

    pub fn recipe(&self) -> Result<Recipe> {
        let rates = BlockRates { ranges: 1e-2, ..BlockRates::default() };
        let layers = self.train.over(BlockConfig::usual(rates, 1.0))?;
        self.end.validate()?;
        let trains = Trains::SCALES;
        let stages = vec![
            Stage::Block { from: StageStart::Original, trains, config: layers },
            Stage::Model { from: StageStart::Previous, trains, config: self.end.clone() },
        ];
        let (observer, range) = (Observer::Absmax, RangeConfig::Clip);
        self.common.recipe("clip-then-scales", Self::DEFAULTS, observer, range, stages)
    }
}
