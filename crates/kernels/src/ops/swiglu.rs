use crate::{Pool, Real};

/// `y = silu(gate) * up`, elementwise.
pub fn swiglu<T: Real>(_pool: &Pool, _gate: &[T], _up: &[T], _y: &mut [T]) {
    todo!()
}

/// Gradients of [`swiglu`]; dgate and dup are overwritten.
pub fn swiglu_backward<T: Real>(_pool: &Pool, _gate: &[T], _up: &[T], _dy: &[T], _dgate: &mut [T], _dup: &mut [T]) {
    todo!()
}
