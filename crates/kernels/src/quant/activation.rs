//! Activation quantizers: fake-quant for training (value out), codes for the integer path. One rule, two outputs.
use crate::{ActivationQuantizer, Pool, Real};

/// Fake-quant of x `[M, D]`: y = the values the integer path would use. `step` for static sites (already as stored). Straight-through gradient
/// for the dynamic kinds (nothing is clipped); static sites use [`super::lsq`] for gradients.
pub fn fake_quant<T: Real>(_pool: &Pool, _quantizer: ActivationQuantizer, _x: &[T], _cols: usize, _step: Option<T>, _y: &mut [T]) {
    todo!()
}

/// Codes `[M, D]` and scales: one per row (token), per 32 columns (block), or one (static). All 8 bits or fewer.
pub fn quantize(_quantizer: ActivationQuantizer, _x: &[f32], _cols: usize, _step: Option<f32>, _codes: &mut [i8], _scales: &mut Vec<f32>) {
    todo!()
}
