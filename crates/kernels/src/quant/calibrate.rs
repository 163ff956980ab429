//! First steps of a weight: by absmax, ggml's signed rule, error search, the convex surrogate (methods.md 2) and LSQ's rule.
use crate::pack::PackedMatrix;
use crate::{Pool, WeightQuantizer};
use serde::{Deserialize, Serialize};

/// How the first (or, for RTN, the only) scale of a group is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ScaleRule {
    /// Symmetric: max|w| / p. Affine: min-max widened to hold 0.
    Absmax,
    /// ggml's Q4_0 rule: (first entry of largest magnitude, with its sign) / n; the scale may be negative.
    SignedAbsmax,
    /// Least squared error: exact on symmetric grids, 80 shrunken ranges on affine ones.
    ErrorSearch,
    /// The convex surrogate of methods.md section 2.
    Convex,
    /// LSQ's start 2 mean|w| / sqrt(p).
    Lsq,
}

/// Scales (unrounded, f32) and, for affine grids, zero points of `w` `[rows, cols]`.
pub fn find_scales(_pool: &Pool, _w: &[f32], _rows: usize, _cols: usize, _quantizer: WeightQuantizer, _rule: ScaleRule) -> (Vec<f32>, Vec<u8>) {
    todo!()
}

/// Stores the scales by the codec, then codes = clip(nearest-even(w / scale) + z): the clip-round order for symmetric grids, round-clip for affine ones.
pub fn quantize(_pool: &Pool, _w: &[f32], _rows: usize, _cols: usize, _quantizer: WeightQuantizer, _scales: &[f32], _zero_points: &[u8]) -> PackedMatrix {
    todo!()
}

/// One step of a row by the convex surrogate `sum max(s^2/12, max(0, |w| - s p)^2)`, in f64 (golden `calibration`: convex_s). 0 for a row of zeros.
pub fn convex_step(_row: &[f32], _bits: u8) -> f64 {
    todo!()
}

/// The step of least squared error over all s > 0 on the symmetric grid (golden: mse_s).
pub fn error_step(_row: &[f32], _bits: u8) -> f64 {
    todo!()
}
