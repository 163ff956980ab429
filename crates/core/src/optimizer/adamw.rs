//! AdamW (Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101):
//!
//!     p = p - lr wd p;   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2
//!     p = p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

use super::{Rule, Update, check_decay};
use crate::device::Device;
use crate::{Error, Result};
use halfstep_kernels::ops::adamw::AdamW;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// AdamW (arXiv 1711.05101).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct AdamWConfig {
    /// Decay of the mean of the gradients, 0 up to 1. Default 0.9.
    pub beta1: f64,
    /// Decay of the mean of the squared gradients, 0 up to 1. Default 0.999.
    pub beta2: f64,
    /// Number that is added to the denominator, above 0. Default 1e-8.
    pub eps: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }
}

impl Rule for AdamWConfig {
    const STATE: &'static [&'static str] = &["m", "v"];

    fn check(&self) -> Result<()> {
        if !(self.eps.is_finite() && self.eps > 0.0) {
            let reason = format!("must be above 0, got {}", self.eps);
            return Err(Error::config("eps", reason));
        }
        check_decay("beta1", self.beta1)?;
        check_decay("beta2", self.beta2)
    }

    fn update<D: Device>(
        &self,
        device: &D,
        step: Update,
        value: &mut D::Buffer,
        gradient: &D::Buffer,
        state: &mut [D::Buffer],
    ) -> Result<()> {
        let Update { learning_rate, weight_decay, step, gradient_scale } = step;
        let Self { beta1, beta2, eps } = *self;
        let kernel = AdamW { learning_rate, beta1, beta2, eps, weight_decay, step, gradient_scale };
        let [m, v] = state else { unreachable!("two moments") };
        device.adamw(&kernel, value, gradient, m, v)
    }
}
