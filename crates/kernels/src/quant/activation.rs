//! Activations, and keys and values of the cache (rows of the head width): fake-quant for training
//! (value out), codes for the integer path. One rule, two outputs: the value is always exactly
//! `code as T * scale`.
//!
//!     token, head      scale = max(max|x|, 1e-30) / p          code = rnd(x / scale)
//!     blocks of 32     scale = f16(max|x| / 127)               code = rnd(x * id)
//!                      id = 127 / max|x| (0 if max|x| = 0)
//!     blocks of 256    scale = 1 / id                          code = rnd(x * id)
//!                      id = -127 / m (0 if m = 0), m the x of largest magnitude
//!     static           scale = that of the site                code = rnd(clip(x / scale, n, p))
//!
//! An input that is NaN makes its whole row or block so: a broken model must not answer
//! with zeros.
use super::activation_spec::Rule;
use super::lsq::lsq_forward;
use super::rounding::{clip, nearest_even, nearest_even_bits};
use super::scale::round_f16;
use crate::ops::lanes::LANES;
use crate::{ActivationSpec, Int, Pool, Real, dispatch};

/// Block length of ggml's Q8_0 activations and caches.
const BLOCK: usize = 32;
/// Block length of ggml's Q8_K activations.
const LONG_BLOCK: usize = 256;
/// What [`block`] can answer.
pub const BLOCKS: [Option<usize>; 3] = [None, Some(BLOCK), Some(LONG_BLOCK)];
/// Rows a task takes hold about this many elements.
const PIECE: usize = 16384;

/// max|x|, or NaN if any x is: the order of magnitudes is that of their bits, with the
/// numbers that are none on top.
#[inline(always)]
pub(super) fn largest<T: Real>(x: &[T]) -> T {
    if size_of::<T>() == 4 {
        T::from_f32(f32::from_bits(most(x, |x| (x.to_f32().to_bits() & 0x7fff_ffff) as i32) as u32))
    } else {
        T::from_f64(f64::from_bits(
            most(x, |x| (x.to_f64().to_bits() & (u64::MAX >> 1)) as i64) as u64
        ))
    }
}

/// Largest `key(x)`, 0 at least.
#[inline(always)]
fn most<T: Copy, K: Ord + Copy + Default>(x: &[T], key: impl Fn(T) -> K) -> K {
    let mut lanes = [K::default(); LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for l in 0..LANES {
            lanes[l] = lanes[l].max(key(x[l]));
        }
    }
    let last = rest.iter().fold(K::default(), |m, &x| m.max(key(x)));
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = lanes[l].max(lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0].max(last)
}

/// Scale of one token (or head) of `bits` bits.
#[inline(always)]
fn token_scale<T: Real>(x: &[T], bits: u8) -> T {
    let (max, floor) = (largest(x), T::from_f64(1e-30));
    (if max < floor { floor } else { max }) / T::from_f64(Int::symmetric(bits).max() as f64)
}

/// Multiplier and scale of one block of 32.
#[inline(always)]
fn block_scale<T: Real>(x: &[T]) -> (T, T) {
    let (max, p) = (largest(x), T::from_f64(127.0));
    let id = p / max;
    // An all-zero block has id 0. So has one so small that 127 / max overflows: its f16 scale is 0
    // as well.
    let id = if id > T::from_f64(f32::MAX as f64) { T::ZERO } else { id };
    (id, round_f16(max / p))
}

/// Multiplier and scale of one block of 256: the sign of the largest entry is ggml's, who gives it
/// the code -127.
#[inline(always)]
fn long_block_scale<T: Real>(x: &[T]) -> (T, T) {
    let most = largest(x);
    let mut max = most;
    // The first of several that are as large. If one is NaN, so is `most`, and nothing
    // equals it.
    for i in (0..x.len()).rev() {
        max = if x[i].abs() == most { x[i] } else { max };
    }
    let id = T::from_f64(-127.0) / max;
    // As in `block_scale`.
    if id.abs() > T::from_f64(f32::MAX as f64) { (T::ZERO, T::ZERO) } else { (id, T::ONE / id) }
}

/// Fake-quant of x `[M, D]`: y = the values the integer path would use. `step` for static sites
/// (already as stored). Straight-through gradient for the dynamic kinds (nothing is clipped);
/// static sites use [`super::lsq`] for gradients.
pub fn fake_quant<T: Real>(
    pool: &Pool,
    spec: ActivationSpec,
    x: &[T],
    cols: usize,
    step: Option<T>,
    y: &mut [T],
) {
    assert_eq!(x.len(), y.len(), "shapes of fake_quant");
    let rows = (PIECE / cols.max(1)).max(1);
    let piece = |i: usize, len: usize| &x[i * rows * cols..][..len];
    match rule(spec) {
        Rule::F32 => y.copy_from_slice(x),
        Rule::F16 => pool.chunks_mut(y, PIECE, |i, y| halves(&x[i * PIECE..], y)),
        Rule::Row { bits } => {
            pool.chunks_mut(y, rows * cols, |i, y| fake_rows(piece(i, y.len()), cols, bits, y));
        }
        Rule::Block32 => {
            pool.chunks_mut(y, rows * cols, |i, y| fake_blocks(piece(i, y.len()), cols, y));
        }
        Rule::Block256 => {
            pool.chunks_mut(y, rows * cols, |i, y| fake_long_blocks(piece(i, y.len()), cols, y));
        }
        Rule::Static { .. } => {
            let step = step.expect("a static site has a step");
            let spec = spec.static_spec().expect("a static site");
            lsq_forward(pool, x, 1, x.len(), &[step], spec, y, None);
        }
    }
}

/// How a spec that was checked is computed.
fn rule(spec: ActivationSpec) -> Rule {
    spec.rule().expect("an activation spec that was checked")
}

dispatch! {
    fn halves[T: Real](x: &[T], y: &mut [T]) {
        let x = &x[..y.len()];
        for i in 0..y.len() {
            y[i] = round_f16(x[i]);
        }
    }

    fn fake_rows[T: Real](x: &[T], cols: usize, bits: u8, y: &mut [T]) {
        for (x, y) in x.chunks(cols).zip(y.chunks_mut(cols)) {
            let scale = token_scale(x, bits);
            map(x, y, |x| nearest_even(x / scale) * scale);
        }
    }

    fn fake_blocks[T: Real](x: &[T], cols: usize, y: &mut [T]) {
        for (x, y) in x.chunks(cols).zip(y.chunks_mut(cols)) {
            for (x, y) in x.chunks(BLOCK).zip(y.chunks_mut(BLOCK)) {
                let (id, scale) = block_scale(x);
                map(x, y, |x| nearest_even(x * id) * scale);
            }
        }
    }

    fn fake_long_blocks[T: Real](x: &[T], cols: usize, y: &mut [T]) {
        for (x, y) in x.chunks(cols).zip(y.chunks_mut(cols)) {
            for (x, y) in x.chunks(LONG_BLOCK).zip(y.chunks_mut(LONG_BLOCK)) {
                let (id, scale) = long_block_scale(x);
                map(x, y, |x| nearest_even(x * id) * scale);
            }
        }
    }

    fn row_codes(x: &[f32], bits: u8, codes: &mut [i8]) -> f32 {
        let scale = token_scale(x, bits);
        map(x, codes, |x| nearest_even_bits(x / scale) as i8);
        scale
    }

    fn block_codes(x: &[f32], codes: &mut [i8], scales: &mut [f32]) {
        for ((x, codes), scale) in x.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales) {
            let (id, stored) = block_scale(x);
            *scale = stored;
            map(x, codes, |x| nearest_even_bits(x * id) as i8);
        }
    }

    fn long_block_codes(x: &[f32], codes: &mut [i8], scales: &mut [f32]) {
        for ((x, codes), scale) in
            x.chunks(LONG_BLOCK).zip(codes.chunks_mut(LONG_BLOCK)).zip(scales)
        {
            let (id, stored) = long_block_scale(x);
            *scale = stored;
            map(x, codes, |x| nearest_even_bits(x * id) as i8);
        }
    }

    /// False if an x is NaN.
    fn static_codes(x: &[f32], bits: u8, step: f32, codes: &mut [i8]) -> bool {
        let (n, p) = (Int::symmetric(bits).min() as f32, Int::symmetric(bits).max() as f32);
        if step == 0.0 {
            codes.fill(0);
        } else {
            map(x, codes, |x| nearest_even_bits(clip(x / step, n, p)) as i8);
        }
        !largest(x).is_nan()
    }
}

/// y = f(x). A loop over indices: iterators are not always inlined into a function with more
/// instruction sets than their own.
#[inline(always)]
fn map<X: Copy, Y>(x: &[X], y: &mut [Y], f: impl Fn(X) -> Y) {
    let n = x.len().min(y.len());
    let (x, y) = (&x[..n], &mut y[..n]);
    for i in 0..n {
        y[i] = f(x[i]);
    }
}

/// Columns that share a scale, of a spec with blocks; None where a whole row or site does.
pub fn block(spec: ActivationSpec) -> Option<usize> {
    match rule(spec) {
        Rule::Block32 => Some(BLOCK),
        Rule::Block256 => Some(LONG_BLOCK),
        _ => None,
    }
}

/// Scales one row of `cols` columns has in [`quantize`]'s result; a static site has one for all
/// rows.
pub fn scales_per_row(spec: ActivationSpec, cols: usize) -> usize {
    block(spec).map_or(1, |block| cols.div_ceil(block))
}

/// Codes `[M, D]` and scales: one per row (token), per block of columns, or one (static). All 8
/// bits or fewer.
pub fn quantize(
    spec: ActivationSpec,
    x: &[f32],
    cols: usize,
    step: Option<f32>,
    codes: &mut [i8],
    scales: &mut Vec<f32>,
) {
    assert_eq!(x.len(), codes.len(), "shapes of quantize");
    let (cols, per_row) = (cols.max(1), scales_per_row(spec, cols));
    let rows = x.chunks(cols).zip(codes.chunks_mut(cols));
    scales.clear();
    if spec.is_static() {
        scales.push(step.expect("a static site has a step"));
        for (x, codes) in rows {
            let mut scale = [0.0];
            quantize_row(spec, x, step, codes, &mut scale);
            scales[0] = if scale[0].is_nan() { f32::NAN } else { scales[0] };
        }
        return;
    }
    scales.resize(x.len() / cols * per_row, 0.0);
    for ((x, codes), scales) in rows.zip(scales.chunks_mut(per_row)) {
        quantize_row(spec, x, step, codes, scales);
    }
}

/// One row of [`quantize`]: its codes and its scales (a static site's step; NaN if an x is).
pub fn quantize_row(
    spec: ActivationSpec,
    x: &[f32],
    step: Option<f32>,
    codes: &mut [i8],
    scales: &mut [f32],
) {
    match rule(spec) {
        Rule::F32 | Rule::F16 => panic!("floats have no codes"),
        Rule::Row { bits } => scales[0] = row_codes(x, bits, codes),
        Rule::Block32 => block_codes(x, codes, scales),
        Rule::Block256 => long_block_codes(x, codes, scales),
        Rule::Static { bits } => {
            let step = step.expect("a static site has a step");
            scales[0] = if static_codes(x, bits, step, codes) { step } else { f32::NAN };
        }
    }
}
