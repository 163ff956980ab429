//! Activation quantizers: fake-quant for training (value out), codes for the integer path. One rule, two outputs:
//! the value is always exactly `code as T * scale`.
//!
//!     DynamicToken     scale = max(max|x|, 1e-30) / p          code = rnd(x / scale)            per row
//!     DynamicBlock32   id = 127 / max|x| (0 if max|x| = 0)     code = rnd(x * id), scale = f16(max|x| / 127)
//!     Static           scale = the site's step                 code = rnd(clip(x / step, n, p))
//!
//! An input that is not a number makes its whole row or block so: a broken model must not answer with zeros.
use super::lsq::lsq_forward;
use crate::{ActivationQuantizer, IntGrid, Partition, Pool, Real};
use half::f16;

/// Block length of ggml's activation and cache formats.
pub const BLOCK: usize = 32;
/// Rows a task takes hold about this many elements.
const PIECE: usize = 16384;
const LANES: usize = 16;

/// max|x|, or not a number if any x is.
#[inline(always)]
fn largest<T: Real>(x: &[T]) -> T {
    let (mut most, mut broken) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    let mut take = |l: usize, x: T| {
        let a = x.abs();
        most[l] = if a > most[l] { a } else { most[l] };
        broken[l] = if a == a { broken[l] } else { a };
    };
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (l, &x) in x.iter().enumerate() {
            take(l, x);
        }
    }
    for (l, &x) in rest.iter().enumerate() {
        take(l, x);
    }
    let max = most.into_iter().fold(T::ZERO, T::maximum);
    broken.into_iter().fold(max, |m, b| m + b)
}

/// Scale of one token (or head) of `bits` bits.
#[inline(always)]
fn token_scale<T: Real>(x: &[T], bits: u8) -> T {
    let (max, floor) = (largest(x), T::from_f64(1e-30));
    (if max < floor { floor } else { max }) / T::from_f64(IntGrid::symmetric(bits).max() as f64)
}

/// Multiplier and scale of one block of 32.
#[inline(always)]
fn block_scale<T: Real>(x: &[T]) -> (T, T) {
    let (max, p) = (largest(x), T::from_f64(127.0));
    let id = p / max;
    // An all-zero block has id 0. So has one so small that 127 / max overflows: its f16 scale is 0 as well.
    let id = if id > T::from_f64(f32::MAX as f64) { T::ZERO } else { id };
    let scale = max / p;
    (id, if scale == scale { T::from_f64(f16::from_f64(scale.to_f64()).to_f64()) } else { scale })
}

/// A rounded number as a whole one, never -0.
#[inline(always)]
fn whole<T: Real>(u: T) -> T {
    u.round() + T::ZERO
}

/// Fake-quant of x `[M, D]`: y = the values the integer path would use. `step` for static sites (already as stored). Straight-through gradient
/// for the dynamic kinds (nothing is clipped); static sites use [`super::lsq`] for gradients.
pub fn fake_quant<T: Real>(pool: &Pool, quantizer: ActivationQuantizer, x: &[T], cols: usize, step: Option<T>, y: &mut [T]) {
    assert_eq!(x.len(), y.len(), "shapes of fake_quant");
    let rows = (PIECE / cols.max(1)).max(1);
    let row_by_row = |y: &mut [T], row: fn(&[T], u8, &mut [T]), bits: u8| {
        pool.chunks_mut(y, (rows * cols).max(1), |i, y| {
            let x = &x[i * rows * cols..][..y.len()];
            x.chunks(cols).zip(y.chunks_mut(cols)).for_each(|(x, y)| row(x, bits, y));
        })
    };
    match quantizer {
        ActivationQuantizer::None => y.copy_from_slice(x),
        ActivationQuantizer::DynamicToken { bits } => row_by_row(y, fake_token, bits),
        ActivationQuantizer::DynamicBlock32 => row_by_row(y, fake_blocks, 8),
        ActivationQuantizer::Static { bits } => {
            let step = step.expect("a static site has a step");
            lsq_forward(pool, x, 1, x.len(), &[step], Partition::Tensor, IntGrid::symmetric(bits), y, None);
        }
    }
}

fn fake_token<T: Real>(x: &[T], bits: u8, y: &mut [T]) {
    let scale = token_scale(x, bits);
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = whole(x / scale) * scale);
}

fn fake_blocks<T: Real>(x: &[T], _bits: u8, y: &mut [T]) {
    for (x, y) in x.chunks(BLOCK).zip(y.chunks_mut(BLOCK)) {
        let (id, scale) = block_scale(x);
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = whole(x * id) * scale);
    }
}

/// Scales one row of `cols` columns has in [`quantize`]'s result; a static site has one for all rows.
pub fn scales_per_row(quantizer: ActivationQuantizer, cols: usize) -> usize {
    if quantizer == ActivationQuantizer::DynamicBlock32 { cols.div_ceil(BLOCK) } else { 1 }
}

/// Codes `[M, D]` and scales: one per row (token), per 32 columns (block), or one (static). All 8 bits or fewer.
pub fn quantize(quantizer: ActivationQuantizer, x: &[f32], cols: usize, step: Option<f32>, codes: &mut [i8], scales: &mut Vec<f32>) {
    assert_eq!(x.len(), codes.len(), "shapes of quantize");
    let per_row = scales_per_row(quantizer, cols);
    scales.clear();
    if let ActivationQuantizer::Static { .. } = quantizer {
        scales.push(step.expect("a static site has a step"));
        quantize_row(quantizer, x, step, codes, &mut []);
        return;
    }
    scales.resize(x.len().checked_div(cols).unwrap_or(0) * per_row, 0.0);
    for ((x, codes), scales) in x.chunks_exact(cols.max(1)).zip(codes.chunks_exact_mut(cols.max(1))).zip(scales.chunks_exact_mut(per_row)) {
        quantize_row(quantizer, x, step, codes, scales);
    }
}

/// One row of [`quantize`]; `scales` is not written by a static site.
pub fn quantize_row(quantizer: ActivationQuantizer, x: &[f32], step: Option<f32>, codes: &mut [i8], scales: &mut [f32]) {
    match quantizer {
        ActivationQuantizer::None => unreachable!("an unquantized site has no codes"),
        ActivationQuantizer::DynamicToken { bits } => {
            scales[0] = token_scale(x, bits);
            codes.iter_mut().zip(x).for_each(|(c, &x)| *c = whole(x / scales[0]) as i8);
        }
        ActivationQuantizer::DynamicBlock32 => {
            for ((x, codes), scale) in x.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales) {
                let (id, stored) = block_scale(x);
                *scale = stored;
                codes.iter_mut().zip(x).for_each(|(c, &x)| *c = whole(x * id) as i8);
            }
        }
        ActivationQuantizer::Static { bits } => {
            let (n, p) = (IntGrid::symmetric(bits).min() as f32, IntGrid::symmetric(bits).max() as f32);
            match step.expect("a static site has a step") {
                0.0 => codes.fill(0),
                s => codes.iter_mut().zip(x).for_each(|(c, &x)| *c = super::lsq::code(x / s, n, p) as i8),
            }
        }
    }
}
