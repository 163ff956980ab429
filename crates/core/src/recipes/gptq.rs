//! `gptq`: GPTQ: Accurate Post-training Compression for Generative Pretrained Transformers (2022,
//! arXiv 2210.17323): columns are rounded one after the other, those still free making up for each
//! error. Scales are those of the original groups (static), so that any order of columns can be
//! stored.

use crate::error::Result;
use crate::recipe::block::SolverOptions;
use crate::recipe::{RangeConfig, Recipe, Stage, StageStart, StartRule, Trains};
use crate::solver::SolverConfig;
use crate::solver::gptq::GptqConfig;
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct GptqRecipeConfig {
    /// Where the model will run. Default `halfstep`, which holds its grids.
    pub target: TargetId,
    /// Bits of the block linears. Default 3.
    pub weights: Option<f64>,
    /// Columns of a row that share a scale and a zero point. Default 64.
    pub group_size: Option<usize>,
    /// Bits of the linears' inputs: 8, or 16 to leave them alone. Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 4 or 8, 16, 32. Default 16.
    pub cache: Option<f64>,
    /// Added to the Hessian's diagonal, in parts of its mean; raised, with a warning, where that is
    /// too little. Default 0.01.
    pub damping: f64,
    /// Take the columns by falling diagonal of the Hessian. Default true.
    pub act_order: bool,
    /// The text that the method sees.
    pub train: SolverOptions,
}

impl Default for GptqRecipeConfig {
    fn default() -> Self {
        Self {
            target: TargetId::Halfstep,
            weights: None,
            group_size: None,
            activations: None,
            cache: None,
            damping: 0.01,
            act_order: true,
            train: SolverOptions::default(),
        }
    }
}

impl GptqRecipeConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request =
            Request::affine(self.weights, self.group_size, self.activations, self.cache).or_bits(3);
        let config = self.train.config(SolverConfig::Gptq(GptqConfig {
            damping: self.damping,
            act_order: self.act_order,
        }))?;
        Ok(self.target.sites(&request)?.recipe(
            "gptq",
            self.target,
            StartRule::Absmax,
            RangeConfig::Frozen,
            vec![Stage::Block { from: StageStart::Original, trains: Trains::NONE, config }],
        ))
    }
}
