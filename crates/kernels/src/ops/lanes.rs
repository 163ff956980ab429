//! Sums in a fixed order: element i goes to lane `i % LANES`, the lanes are folded as a tree. The order depends on the length alone, and the
//! lanes fill the registers of every instruction set.

use crate::Real;

/// Running sums side by side: one register of f32 in AVX-512.
pub const LANES: usize = 16;

/// Sum of the lanes: the upper half onto the lower, until one is left.
#[inline(always)]
pub fn fold<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `sum a b`.
#[inline(always)]
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_blocks.remainder(), b_blocks.remainder());
    for (a, b) in a_blocks.zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
    fold(lanes)
}

/// Largest element (`-inf` bound below by the first); NaN elements are passed over unless first.
#[inline(always)]
pub fn maximum<T: Real>(x: &[T]) -> T {
    let mut lanes = [x[0]; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = block[i].maximum(lanes[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = x.maximum(*lane);
    }
    lanes.into_iter().fold(lanes[0], |m, x| x.maximum(m))
}
