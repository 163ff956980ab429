//! The trainer's matrix products, on the `gemm` crate. Split into pieces by shape alone, each piece single-threaded,
//! so the thread count cannot change a byte. Not for the runtime, whose order may not depend on M.
use crate::{Pool, Real};

/// `y = x w^T`: x `[M, I]`, w `[O, I]`, y `[M, O]` (overwritten).
pub fn linear<T: Real>(_pool: &Pool, _x: &[T], _w: &[T], _y: &mut [T], _m: usize, _o: usize, _i: usize) {
    todo!()
}

/// `dx = dy w`: dy `[M, O]`, w `[O, I]`, dx `[M, I]`; added to dx if `accumulate`.
#[allow(clippy::too_many_arguments)]
pub fn linear_backward_input<T: Real>(_pool: &Pool, _dy: &[T], _w: &[T], _dx: &mut [T], _m: usize, _o: usize, _i: usize, _accumulate: bool) {
    todo!()
}

/// `dw = dy^T x`: dw `[O, I]`; added to dw if `accumulate`.
#[allow(clippy::too_many_arguments)]
pub fn linear_backward_weight<T: Real>(_pool: &Pool, _dy: &[T], _x: &[T], _dw: &mut [T], _m: usize, _o: usize, _i: usize, _accumulate: bool) {
    todo!()
}
