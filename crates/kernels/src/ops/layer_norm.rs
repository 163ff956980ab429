//! Layer normalisation without parameters (Ba et al., 2016, arXiv 1607.06450): `y = (x - mean) /
//! sqrt(variance + eps)` over every row.

use crate::Pool;

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
}
