//! `awq`: AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration (2023,
//! arXiv 2306.00978): input channels that carry much are made larger before rounding, which the
//! layer before makes up for exactly; then the ranges of the groups are clipped.
//!
//! Costs forward passes only: 5 minutes and 1.4 GB (SmolLM2-135M, two cores, docs/lab). Good at 3
//! and 4 bits, and less dependent on the text than `gptq`; not for 2 bits.
//!
//! Defaults: magnitudes are means over 32 sequences of 512 tokens; errors are compared on four of
//! them.

use crate::error::Result;
use crate::recipe::block::SolverOptions;
use crate::recipe::{Observer, RangeConfig, Recipe, Stage, StageStart, Trains};
use crate::solver::SolverConfig;
use crate::solver::awq::AwqConfig;
use crate::target::{Request, TargetId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// AWQ: input channels that carry much are made larger before rounding, then the ranges are
/// clipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct AwqRecipeConfig {
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
    /// Search for the best clipping of each group of weights too. Default true.
    pub clip: bool,
    /// Options of the text that the method sees.
    pub train: SolverOptions,
}

impl Default for AwqRecipeConfig {
    fn default() -> Self {
        Self {
            target: TargetId::Halfstep,
            weights: None,
            group_size: None,
            activations: None,
            cache: None,
            clip: true,
            train: SolverOptions::default(),
        }
    }
}

impl AwqRecipeConfig {
    pub fn recipe(&self) -> Result<Recipe> {
        let request =
            Request::affine(self.weights, self.group_size, self.activations, self.cache).or_bits(3);
        let config = self.train.config(SolverConfig::Awq(AwqConfig { clip: self.clip }))?;
        Ok(self.target.sites(&request)?.recipe(
            "awq",
            self.target,
            Observer::Absmax,
            RangeConfig::Frozen,
            vec![Stage::Block { from: StageStart::Original, trains: Trains::NONE, config }],
        ))
    }
}
