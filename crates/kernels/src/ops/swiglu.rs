//! The gated unit of Llama (Shazeer, 2020, arXiv 2002.05202): `y = silu(gate) * up`, `silu(g) = g
//! sigmoid(g)`.
//!
//! `dup = dy g s`, `dgate = dy up s (1 + g (1 - s))` with `s = sigmoid(g) = 1 / (1 + exp(-g))`,
//! which is 0, not NaN, where exp overflows.

use crate::{Pool, Real, dispatch};

const PIECE: usize = 1 << 14;

dispatch! {
    fn forward[T: Real](gate: &[T], up: &[T], y: &mut [T]) {
        let n = y.len();
        let (gate, up) = (&gate[..n], &up[..n]);
        for i in 0..n {
            y[i] = gate[i] * sigmoid(gate[i]) * up[i];
        }
    }

    fn backward[T: Real](gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]) {
        let n = dy.len();
        let (gate, up, dgate, dup) = (&gate[..n], &up[..n], &mut dgate[..n], &mut dup[..n]);
        for i in 0..n {
            let (g, s) = (gate[i], sigmoid(gate[i]));
            dup[i] = dy[i] * (g * s);
            dgate[i] = dy[i] * up[i] * (s * (T::ONE + g * (T::ONE - s)));
        }
    }
}

#[inline(always)]
pub(super) fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// `y = silu(gate) * up`, elementwise.
pub fn swiglu<T: Real>(pool: &Pool, gate: &[T], up: &[T], y: &mut [T]) {
    assert_eq!((gate.len(), up.len()), (y.len(), y.len()), "swiglu: shapes");
    let parts = gate.chunks(PIECE).zip(up.chunks(PIECE)).zip(y.chunks_mut(PIECE)).collect();
    pool.parts(parts, |_, ((gate, up), y)| forward(gate, up, y));
}

/// Gradients of [`swiglu`]; dgate and dup are overwritten.
pub fn swiglu_backward<T: Real>(
    pool: &Pool,
    gate: &[T],
    up: &[T],
    dy: &[T],
    dgate: &mut [T],
    dup: &mut [T],
) {
    let n = dy.len();
    assert_eq!([gate.len(), up.len(), dgate.len(), dup.len()], [n; 4], "swiglu_backward: shapes");
    let inputs = gate.chunks(PIECE).zip(up.chunks(PIECE)).zip(dy.chunks(PIECE));
    let parts = inputs.zip(dgate.chunks_mut(PIECE).zip(dup.chunks_mut(PIECE))).collect();
    pool.parts(parts, |_, (((gate, up), dy), (dgate, dup))| backward(gate, up, dy, dgate, dup));
}
