//! `gptq`: GPTQ: Accurate Post-training Compression for Generative Pretrained Transformers (2022,
//! arXiv 2210.17323): columns are rounded one after the other, and those still free make up for
//! each error. Scales are those of the original groups (static), so that any order of columns can
//! be stored.
//!
//! Costs forward passes over the text and one inverse per linear layer: 2.5 minutes and 1.3 GB
//! (SmolLM2-135M, two cores, docs/lab). Good at 3 and 4 bits; at 2 bits block training is much
//! better.
//!
//! Defaults: the damping of the authors; 32 sequences of 512 tokens instead of 128 of 2048.

use crate::error::Result;
use crate::recipe::block::SolverOptions;
use crate::recipe::{Observer, RangeConfig, Recipe, Stage, StageStart, Trains};
use crate::solver::SolverConfig;
use crate::solver::gptq::GptqConfig;
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// GPTQ: columns are rounded one after the other, and the columns still free make up for each
/// error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct GptqRecipeConfig {
    /// Where the model will run, which decides the grids it may have: `gguf:q4_0`, `gguf:q8_0` or
    /// `gguf:tq2_0` (files for llama.cpp), or `halfstep` (our own file, any grid). Default
    /// `halfstep`.
    pub target: TargetId,
    /// Bits of each weight in the linear layers of the transformer blocks, 2 to 8. Default: what a
    /// gguf target holds, otherwise 3.
    pub weights: Option<f64>,
    /// Columns of a weight row that share a scale and, if the target holds them, a zero point; 0 is
    /// the whole row. Default: what a gguf target holds, otherwise 64.
    pub group_size: Option<usize>,
    /// Bits of the inputs of the linear layers, 2 to 8, or 16 to leave them in floating point.
    /// Default 8.
    pub activations: Option<f64>,
    /// Bits of the key/value cache: 2 to 8, 16 or 32; gguf targets have 8, 16 and 32. Default 16.
    pub cache: Option<f64>,
    /// Number that is added to the diagonal of the Hessian, as a share of its mean, so that it can
    /// be inverted; 0 to 10. It is raised, with a warning, where that is too little. Default 0.01.
    pub damping: f64,
    /// Round the columns with the largest diagonal entries of the Hessian first, instead of from
    /// left to right. Default true.
    pub act_order: bool,
    /// Options of the text that the method sees.
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
            Observer::Absmax,
            RangeConfig::Frozen,
            vec![Stage::Block { from: StageStart::Original, trains: Trains::NONE, config }],
        ))
    }
}
