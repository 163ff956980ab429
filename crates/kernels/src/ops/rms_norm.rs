//! Root mean square normalisation (Zhang and Sennrich, 2019, arXiv 1910.07467): `y = x /
//! sqrt(mean(x^2) + eps) * weight`.
//!
//! With `r = 1 / sqrt(mean(x^2) + eps)` and `g = dy * weight`: `dx = r g - x r^3 mean(g x)`,
//! `dweight = sum over rows of dy x r`.

use super::lanes::dot;
use crate::{Pool, Real, dispatch};

/// Rows of one task. dweight is summed within these blocks and then over them, so this number
/// decides its float order.
const ROWS: usize = 32;

dispatch! {
    fn forward[T: Real](x: &[T], weight: &[T], eps: T, y: &mut [T]) {
        let width = weight.len();
        for row in 0..y.len() / width {
            let (x, y) = (&x[row * width..][..width], &mut y[row * width..][..width]);
            let r = inverse_rms(x, eps);
            for i in 0..width {
                y[i] = x[i] * r * weight[i];
            }
        }
    }

    fn backward[T: Real](x: &[T], weight: &[T], eps: T, dy: &[T], dx: &mut [T], dweight: &mut [T]) {
        let width = weight.len();
        dweight.fill(T::ZERO);
        let dweight = &mut dweight[..width];
        for row in 0..dx.len() / width {
            let at = row * width..(row + 1) * width;
            let (x, dy, dx) = (&x[at.clone()], &dy[at.clone()], &mut dx[at]);
            let r = inverse_rms(x, eps);
            for i in 0..width {
                dx[i] = dy[i] * weight[i];
                dweight[i] += dy[i] * (x[i] * r);
            }
            let along = dot(dx, x) / T::from_f64(width as f64) * r * r;
            for i in 0..width {
                dx[i] = r * (dx[i] - x[i] * along);
            }
        }
    }
}

#[inline(always)]
fn inverse_rms<T: Real>(x: &[T], eps: T) -> T {
    T::ONE / (dot(x, x) / T::from_f64(x.len() as f64) + eps).sqrt()
}

/// `y = x / sqrt(mean(x^2) + eps) * weight`. x, y `[M, D]`, weight `[D]`.
pub fn rms_norm<T: Real>(pool: &Pool, x: &[T], weight: &[T], eps: f64, y: &mut [T]) {
    assert_eq!((x.len(), x.len() % weight.len()), (y.len(), 0), "rms_norm: shapes");
    let block = ROWS * weight.len();
    pool.chunks_mut(y, block, |i, y| {
        forward(&x[i * block..i * block + y.len()], weight, T::from_f64(eps), y)
    });
}

/// Gradients of [`rms_norm`]: dx `[M, D]` and dweight `[D]` are overwritten.
pub fn rms_norm_backward<T: Real>(
    pool: &Pool,
    x: &[T],
    weight: &[T],
    eps: f64,
    dy: &[T],
    dx: &mut [T],
    dweight: &mut [T],
) {
    let width = weight.len();
    assert_eq!(
        (x.len(), dy.len(), dweight.len()),
        (dx.len(), dx.len(), width),
        "rms_norm_backward: shapes"
    );
    let block = ROWS * width;
    let mut partial = vec![T::ZERO; x.len().div_ceil(block) * width];
    let parts = x
        .chunks(block)
        .zip(dy.chunks(block))
        .zip(dx.chunks_mut(block).zip(partial.chunks_mut(width)))
        .collect();
    pool.parts(parts, |_, ((x, dy), (dx, dw))| backward(x, weight, T::from_f64(eps), dy, dx, dw));
    dweight.fill(T::ZERO);
    for part in partial.chunks_exact(width) {
        for i in 0..width {
            dweight[i] += part[i];
        }
    }
}
