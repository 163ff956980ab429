//! The runtime's linear layers: float, and integer codes times integer activations.
use crate::pack::PackedMatrix;
use crate::{ActivationQuantizer, Pool};

/// `y = x w^T` in f32, in an order that depends on I alone (16 lanes, then a fixed tree; no fused multiply-add).
pub fn linear_ordered(_pool: &Pool, _x: &[f32], _w: &[f32], _y: &mut [f32], _m: usize, _o: usize, _i: usize) {
    todo!()
}

/// `y = Qa(x) Wq^T`: x `[M, I]`, y `[M, O]`. Activations are quantized as `activation` says (`step` is the stored step of a static site).
/// Integer sums per segment (the smaller of weight group and activation block), then
/// `y += f32(sum) * (weight_scale * activation_scale)`, segment by segment in order: multiply, then add.
/// With `ActivationQuantizer::None` the weights are decoded row by row and multiplied as [`linear_ordered`] does.
pub fn linear_packed(_pool: &Pool, _x: &[f32], _w: &PackedMatrix, _activation: ActivationQuantizer, _step: Option<f32>, _y: &mut [f32], _m: usize) {
    todo!()
}

/// The integer sums of [`linear_packed`], `[M, O, segments]`, by the plain scalar loop: what the parity gate compares.
pub fn integer_sums(_x: &[f32], _w: &PackedMatrix, _activation: ActivationQuantizer, _step: Option<f32>, _m: usize) -> Vec<i32> {
    todo!()
}
