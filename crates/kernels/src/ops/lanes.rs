//! Sums in a fixed order: element i goes to lane `i % LANES`, the lanes are folded as a tree. The
//! order depends on the length alone, and the lanes fill the registers of every instruction set.
//!
//! Here and in all dispatched bodies the loops run over indices of slices cut to one length: `zip`
//! and its kind are not always inlined into a function with more instruction sets than their own,
//! and then nothing vectorises. A short last block is padded with zeros, so that the lanes are
//! indexed by constants alone and stay in registers.

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

/// A short block, filled up.
#[inline(always)]
pub fn padded<T: Real>(rest: &[T], filler: T) -> [T; LANES] {
    let mut block = [filler; LANES];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// `sum a b`.
#[inline(always)]
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b[..a.len()].as_chunks::<LANES>());
    let mut lanes = [T::ZERO; LANES];
    for block in 0..a.len().min(b.len()) {
        for i in 0..LANES {
            lanes[i] += a[block][i] * b[block][i];
        }
    }
    if !a_rest.is_empty() {
        let (a, b) = (padded(a_rest, T::ZERO), padded(b_rest, T::ZERO));
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    fold(lanes)
}

/// `sum x`.
#[inline(always)]
pub fn sum<T: Real>(x: &[T]) -> T {
    let (x, rest) = x.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for block in 0..x.len() {
        for i in 0..LANES {
            lanes[i] += x[block][i];
        }
    }
    if !rest.is_empty() {
        let x = padded(rest, T::ZERO);
        for i in 0..LANES {
            lanes[i] += x[i];
        }
    }
    fold(lanes)
}

/// The lanes plus x, widened to f64. Between calls `x` must be a multiple of [`LANES`] long for the
/// order to be that of one sum.
#[inline(always)]
pub fn add_wide<T: Real>(mut lanes: [f64; LANES], x: &[T]) -> [f64; LANES] {
    let (x, rest) = x.as_chunks::<LANES>();
    for block in 0..x.len() {
        for i in 0..LANES {
            lanes[i] += x[block][i].to_f64();
        }
    }
    if !rest.is_empty() {
        let x = padded(rest, T::ZERO);
        for i in 0..LANES {
            lanes[i] += x[i].to_f64();
        }
    }
    lanes
}

/// The lanes plus `a b`, multiplied in f64; see [`add_wide`].
#[inline(always)]
pub fn add_product_wide<T: Real>(mut lanes: [f64; LANES], a: &[T], b: &[T]) -> [f64; LANES] {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b[..a.len()].as_chunks::<LANES>());
    for block in 0..a.len().min(b.len()) {
        for i in 0..LANES {
            lanes[i] += a[block][i].to_f64() * b[block][i].to_f64();
        }
    }
    if !a_rest.is_empty() {
        let (a, b) = (padded(a_rest, T::ZERO), padded(b_rest, T::ZERO));
        for i in 0..LANES {
            lanes[i] += a[i].to_f64() * b[i].to_f64();
        }
    }
    lanes
}

/// Largest element; NaN elements after the first are passed over.
#[inline(always)]
pub fn maximum<T: Real>(x: &[T]) -> T {
    let first = x[0];
    let (x, rest) = x.as_chunks::<LANES>();
    let mut lanes = [first; LANES];
    for block in 0..x.len() {
        for i in 0..LANES {
            lanes[i] = x[block][i].maximum(lanes[i]);
        }
    }
    if !rest.is_empty() {
        let x = padded(rest, first);
        for i in 0..LANES {
            lanes[i] = x[i].maximum(lanes[i]);
        }
    }
    let mut most = lanes[0];
    for i in 1..LANES {
        most = lanes[i].maximum(most);
    }
    most
}
