//! Layer normalisation (Ba et al., 2016, arXiv 1607.06450): `y = (x - mean) / sqrt(variance + eps)`
//! over every row, in [`affine_layer_norm`] times a weight and plus a bias.
//!
//! With `r = 1 / sqrt(variance + eps)`, `h = (x - mean) r` and `g = dy * weight`: `dx = r (g -
//! mean(g) - h mean(g h))`, `dweight = sum over rows of dy h`.

use super::lanes::{dot, sum};
use crate::{Pool, Real, dispatch};

/// What is added to the variance.
pub const EPS: f64 = 1e-5;
/// Elements that a task takes, about.
const PIECE: usize = 1 << 14;

/// Normalizes every row of x `[M, D]` in place. Mean and variance are summed in f64, column by
/// column.
pub fn layer_norm(pool: &Pool, x: &mut [f32], width: usize) {
    assert!(width > 0 && x.len().is_multiple_of(width), "whole rows");
    pool.chunks_mut(x, PIECE.div_ceil(width) * width, |_, x| {
        for x in x.chunks_exact_mut(width) {
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
            let square = |&x: &f32| (f64::from(x) - mean) * (f64::from(x) - mean);
            let variance = x.iter().map(square).sum::<f64>() / width as f64;
            let factor = 1.0 / (variance + EPS).sqrt();
            x.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * factor) as f32);
        }
    });
}

/// Elements of a task, about. With `[heads, width]` weights a task takes whole rows of all heads.
const AFFINE_PIECE: usize = 1 << 13;

dispatch! {
    fn forward[T: Real](
        x: &[T],
        width: usize,
        weight: &[T],
        bias: Option<&[T]>,
        eps: T,
        y: &mut [T],
    ) {
        let (heads, count) = (weight.len() / width, T::from_f64(width as f64));
        for row in 0..y.len() / width {
            let (x, y) = (&x[row * width..][..width], &mut y[row * width..][..width]);
            let weight = &weight[row % heads * width..][..width];
            let mean = sum(x) / count;
            for i in 0..width {
                y[i] = x[i] - mean;
            }
            let r = T::ONE / (dot(y, y) / count + eps).sqrt();
            for i in 0..width {
                y[i] = y[i] * r * weight[i];
            }
            if let Some(bias) = bias {
                let bias = &bias[row % heads * width..][..width];
                for i in 0..width {
                    y[i] += bias[i];
                }
            }
        }
    }
}

dispatch! {
    fn backward[T: Real](
        x: &[T],
        width: usize,
        weight: &[T],
        eps: T,
        dy: &[T],
        dx: &mut [T],
        dweight: &mut [T],
    ) {
        let (heads, count) = (weight.len() / width, T::from_f64(width as f64));
        dweight.fill(T::ZERO);
        let mut h = vec![T::ZERO; width];
        for row in 0..dx.len() / width {
            let at = row * width..(row + 1) * width;
            let own = row % heads * width..(row % heads + 1) * width;
            let (x, dy, dx) = (&x[at.clone()], &dy[at.clone()], &mut dx[at]);
            let (weight, dweight) = (&weight[own.clone()], &mut dweight[own]);
            let mean = sum(x) / count;
            for i in 0..width {
                h[i] = x[i] - mean;
            }
            let r = T::ONE / (dot(&h, &h) / count + eps).sqrt();
            for i in 0..width {
                h[i] *= r;
                dx[i] = dy[i] * weight[i];
                dweight[i] += dy[i] * h[i];
            }
            let (level, along) = (sum(dx) / count, dot(dx, &h) / count);
            for i in 0..width {
                dx[i] = r * (dx[i] - level - h[i] * along);
            }
        }
    }
}

/// Pieces of weights that the backward of a task sums; fixed, since it decides the order of sums.
const BACKWARD_ROWS: usize = 32;

/// Gradients of [`affine_layer_norm`] by x and weight, which are overwritten; that of the bias is the
/// sum of dy over the rows.
#[allow(clippy::too_many_arguments)]
pub fn affine_layer_norm_backward<T: Real>(
    pool: &Pool,
    x: &[T],
    width: usize,
    weight: &[T],
    eps: f64,
    dy: &[T],
    dx: &mut [T],
    dweight: &mut [T],
) {
    let all = weight.len();
    assert_eq!(
        [x.len(), dy.len(), x.len() % all, all % width, dweight.len()],
        [dx.len(), dx.len(), 0, 0, all],
        "affine_layer_norm_backward: shapes"
    );
    let block = BACKWARD_ROWS * all;
    let mut partial = vec![T::ZERO; x.len().div_ceil(block) * all];
    let parts = x
        .chunks(block)
        .zip(dy.chunks(block))
        .zip(dx.chunks_mut(block).zip(partial.chunks_mut(all)))
        .collect();
    pool.parts(parts, |_, ((x, dy), (dx, dw))| {
        backward(x, width, weight, T::from_f64(eps), dy, dx, dw)
    });
    dweight.fill(T::ZERO);
    for part in partial.chunks_exact(all) {
        for i in 0..all {
            dweight[i] += part[i];
        }
    }
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` over every piece of `width` elements. x,
/// y `[M, H, width]`, weight and bias `[H, width]`: H is 1 but for heads with weights of their own.
pub fn affine_layer_norm<T: Real>(
    pool: &Pool,
    x: &[T],
    width: usize,
    weight: &[T],
    bias: Option<&[T]>,
    eps: f64,
    y: &mut [T],
) {
    assert_eq!(
        (x.len(), x.len() % weight.len(), weight.len() % width),
        (y.len(), 0, 0),
        "affine_layer_norm: shapes"
    );
    let block = AFFINE_PIECE.div_ceil(weight.len()) * weight.len();
    pool.chunks_mut(y, block, |i, y| {
        forward(&x[i * block..][..y.len()], width, weight, bias, T::from_f64(eps), y)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_mean_0_and_variance_1_and_a_constant_row_is_0() {
        let mut x: Vec<f32> = (0..64).map(|i| ((i * 37) % 64) as f32 - 7.5).collect();
        x.extend([3.25; 64]);
        layer_norm(&Pool::new(2), &mut x, 64);
        let (first, second) = x.split_at(64);
        let mean = |f: &dyn Fn(f64) -> f64| first.iter().map(|&x| f(x.into())).sum::<f64>() / 64.0;
        assert!(mean(&|x| x).abs() < 1e-6 && (mean(&|x| x * x) - 1.0).abs() < 1e-6);
        assert_eq!(second, [0.0; 64]);
    }

    #[test]
    fn weights_and_biases_are_those_of_the_heads() {
        let (width, heads, rows) = (24, 3, 1000);
        let x: Vec<f64> = (0..rows * heads * width).map(|i| ((i * 37) % 91) as f64 / 7.0).collect();
        let weight: Vec<f64> = (0..heads * width).map(|i| 0.5 + i as f64 / 50.0).collect();
        let bias: Vec<f64> = weight.iter().map(|w| 1.0 - w).collect();
        let mut y = vec![0.0; x.len()];
        affine_layer_norm(&Pool::new(2), &x, width, &weight, Some(&bias), 1e-3, &mut y);
        for (i, (x, y)) in x.chunks(width).zip(y.chunks(width)).enumerate() {
            let mean = x.iter().sum::<f64>() / width as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            for j in 0..width {
                let at = i % heads * width + j;
                let want = (x[j] - mean) / (variance + 1e-3).sqrt() * weight[at] + bias[at];
                assert!((y[j] - want).abs() < 1e-12, "{i} {j}");
            }
        }
    }
}
