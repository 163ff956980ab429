//! A soft bound on scores or logits (Gemma 2, 2024, arXiv 2408.00118): `x = c tanh(x / c)`.

use crate::{Pool, Real, dispatch};

const PIECE: usize = 1 << 13;

dispatch! {
    /// `x = c tanh(x / c)` of each element, on the calling thread.
    pub(super) fn cap[T: Real](c: T, x: &mut [T]) {
        for i in 0..x.len() {
            x[i] = (x[i] / c).tanh() * c;
        }
    }
}

/// `x = c tanh(x / c)`, elementwise and in place.
pub fn softcap<T: Real>(pool: &Pool, c: f64, x: &mut [T]) {
    pool.chunks_mut(x, PIECE, |_, x| cap(T::from_f64(c), x));
}
