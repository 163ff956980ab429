//! The scales and zero points that a matrix begins with, found from its values alone.

use crate::{Error, Result};
use halfstep_kernels::quant::calibrate::{ScaleRule, quantize_by, quantize_rtn};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Pool, QuantSpec};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// How the first scales of a weight are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Observer {
    /// Per matrix the better of ggml's signed rule and error search, by squared error with the
    /// scale as stored. As whole models the other can be the better one, so "RTN" in a table is the
    /// better of the two by KL.
    #[default]
    Best,
    /// max|w| / p.
    Absmax,
    /// ggml's Q4_0 rule: (entry of largest magnitude, with its sign) / n.
    SignedAbsmax,
    /// Least squared error.
    ErrorSearch,
    /// The convex surrogate.
    Convex,
    /// LSQ's 2 mean|w| / sqrt(p).
    Lsq,
}

impl Observer {
    /// The kernel's rule; None for [`Observer::Best`], which chooses between two.
    pub fn rule(self) -> Option<ScaleRule> {
        match self {
            Observer::Best => None,
            Observer::Absmax => Some(ScaleRule::Absmax),
            Observer::SignedAbsmax => Some(ScaleRule::SignedAbsmax),
            Observer::ErrorSearch => Some(ScaleRule::ErrorSearch),
            Observer::Convex => Some(ScaleRule::Convex),
            Observer::Lsq => Some(ScaleRule::Lsq),
        }
    }
}

/// Quantizes a matrix `[rows, cols]` by a start rule.
pub fn quantize_matrix(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    quantizer: QuantSpec,
    observer: Observer,
) -> QuantTensor {
    match observer.rule() {
        Some(rule) => quantize_by(pool, w, rows, cols, quantizer, rule),
        None => quantize_rtn(pool, w, rows, cols, quantizer),
    }
}

/// Refuses scales that are NaN or infinite: the weights are, or they are too large for the scale's
/// type.
pub fn check_scales(packed: &QuantTensor, name: &str) -> Result<()> {
    match packed.scales.iter().position(|s| !s.is_finite()) {
        Some(at) => Err(Error::Format(halfstep_formats::Error::Unencodable {
            format: name.into(),
            row: at * packed.rows / packed.scales.len(),
            reason: "its weights are not finite, or too large for the scale's type".into(),
        })),
        None => Ok(()),
    }
}
