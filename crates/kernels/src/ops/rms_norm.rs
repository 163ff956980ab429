use crate::{Pool, Real};

/// `y = x / sqrt(mean(x^2) + eps) * weight`. x, y `[M, D]`, weight `[D]`.
pub fn rms_norm<T: Real>(_pool: &Pool, _x: &[T], _weight: &[T], _eps: f64, _y: &mut [T]) {
    todo!()
}

/// Gradients of [`rms_norm`]: dx `[M, D]` and dweight `[D]` are overwritten.
pub fn rms_norm_backward<T: Real>(_pool: &Pool, _x: &[T], _weight: &[T], _eps: f64, _dy: &[T], _dx: &mut [T], _dweight: &mut [T]) {
    todo!()
}
