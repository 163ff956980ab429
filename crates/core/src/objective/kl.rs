//! Distillation: the divergence KL(teacher || student) of the distributions of the next token, both
//! at a temperature, as a mean over all positions (Distilling the Knowledge in a Neural Network,
//! 2015, arXiv 1503.02531). The head computes it chunk by chunk (`objective/head.rs`).

use super::{Tap, Term};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Divergence from the teacher's distribution of the next token (arXiv 1503.02531).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct KlConfig {
    /// Temperature of both distributions, above 0. Default 1.
    pub temperature: f64,
}

impl Default for KlConfig {
    fn default() -> Self {
        Self { temperature: 1.0 }
    }
}

impl Term for KlConfig {
    const TAP: Tap = Tap::Logits;

    fn check(&self) -> Result<()> {
        if self.temperature.is_finite() && self.temperature > 0.0 {
            return Ok(());
        }
        let reason = format!("must be above 0, got {}", self.temperature);
        Err(Error::config("temperature", reason))
    }
}
