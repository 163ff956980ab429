//! `clip-then-scales`: clips learn block by block (OmniQuant, arXiv 2308.13137), then the codes
//! stay and their scales learn end to end (E2E-QP of EfficientQAT, arXiv 2407.11062), here from the
//! teacher's output instead of the next token.

use crate::error::Result;
use crate::recipe::{
    BlockConfig, BlockOptions, BlockRates, Defaults, Observer, RangeConfig, Recipe, Stage,
    StageStart, TrainConfig, Trains, options,
};

options! {
    ClipThenScalesConfig {
        /// Options of the first stage, layer by layer.
        train: BlockOptions,
        /// Options of the second stage, end to end.
        end: TrainConfig,
    }
}

impl ClipThenScalesConfig {
    pub(crate) const DEFAULTS: Defaults = Defaults::GROUPS;

    /// Returns the recipe: learned clips layer by layer, then their scales end to end.
    pub fn recipe(&self) -> Result<Recipe> {
        let rates = BlockRates { ranges: 1e-2, ..BlockRates::default() };
        let trains = Trains::SCALES;
        let layers = self.train.over(trains, BlockConfig::usual(rates, 1.0))?;
        let end = self.end.checked(trains)?;
        let stages = vec![
            Stage::Block { from: StageStart::Original, trains, config: layers },
            Stage::Model { from: StageStart::Previous, trains, config: end },
        ];
        let (observer, range) = (Observer::Absmax, RangeConfig::Clip);
        self.common.recipe("clip-then-scales", Self::DEFAULTS, observer, range, stages)
    }
}
