//! Block Hadamard with signs, an orthogonal map of the columns of x:
//!
//!     R = (Id (x) H_n / sqrt n) diag(signs)        H_1 = [1], H_2n = [[H_n, H_n], [H_n, -H_n]]
//!
//! It multiplies by the signs and then mixes every block of n columns by itself, in n log2 n
//! additions, whose order depends on n alone.

use crate::rng::Rng;
use crate::{Pool, Real, dispatch};

/// Elements that a task takes, about.
const PIECE: usize = 1 << 14;

/// Signs by counter: -1 where the number of the stream is odd, else 1.
pub fn signs(seed: u64, stream: u64, count: usize) -> Vec<f32> {
    let rng = Rng::new(seed, stream);
    (0..count as u64).map(|i| if rng.at(i) & 1 == 1 { -1.0 } else { 1.0 }).collect()
}

/// `x <- R x` for every row of x `[M, D]`: `signs` `[D]`, `size` a power of two that divides D.
pub fn block_hadamard<T: Real>(pool: &Pool, x: &mut [T], signs: &[f32], size: usize) {
    blocks(pool, x, signs, size, |x| {
        multiply(x, signs);
        mix(x, size);
    });
}

/// `x <- R^T x`, which undoes [`block_hadamard`] and is its gradient.
pub fn block_hadamard_transposed<T: Real>(pool: &Pool, x: &mut [T], signs: &[f32], size: usize) {
    blocks(pool, x, signs, size, |x| {
        mix(x, size);
        multiply(x, signs);
    });
}

/// Whole rows, some to a task.
fn blocks<T: Real>(
    pool: &Pool,
    x: &mut [T],
    signs: &[f32],
    size: usize,
    rows: impl Fn(&mut [T]) + Sync,
) {
    let width = signs.len();
    assert!(size.is_power_of_two() && width.is_multiple_of(size), "blocks of a row");
    assert!(width > 0 && x.len().is_multiple_of(width), "whole rows");
    pool.chunks_mut(x, PIECE.div_ceil(width) * width, |_, x| rows(x));
}

dispatch! {
    fn multiply[T: Real](x: &mut [T], signs: &[f32]) {
        for x in x.chunks_exact_mut(signs.len()) {
            for i in 0..signs.len() {
                x[i] *= T::from_f32(signs[i]);
            }
        }
    }

    fn mix[T: Real](x: &mut [T], size: usize) {
        let factor = T::from_f64(1.0 / (size as f64).sqrt());
        for x in x.chunks_exact_mut(size) {
            let mut half = 1;
            while half < size {
                for pair in x.chunks_exact_mut(2 * half) {
                    let (low, high) = pair.split_at_mut(half);
                    for i in 0..half {
                        (low[i], high[i]) = (low[i] + high[i], low[i] - high[i]);
                    }
                }
                half *= 2;
            }
            for i in 0..size {
                x[i] *= factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entry of Sylvester's matrix: the parity of the bits that both indices have.
    fn entry(i: usize, j: usize) -> f64 {
        if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
    }

    #[test]
    fn the_map_is_its_definition_and_any_number_of_threads_gives_the_same_bytes() {
        for (rows, width, size) in [(3, 48, 16), (2, 64, 64), (5, 6, 2), (4, 7, 1), (300, 128, 32)]
        {
            let mut rng = Rng::new(9, width as u64);
            let x: Vec<f32> = (0..rows * width).map(|_| rng.normal() as f32).collect();
            let signs = signs(3, 1, width);
            let (mut serial, mut parallel) = (x.clone(), x.clone());
            block_hadamard(&Pool::serial(), &mut serial, &signs, size);
            block_hadamard(&Pool::new(2), &mut parallel, &signs, size);
            assert_eq!(serial, parallel);
            for (x, y) in x.chunks(width).zip(serial.chunks(width)) {
                for (i, y) in y.iter().enumerate() {
                    let block = i / size * size..(i / size + 1) * size;
                    let terms = block
                        .map(|j| entry(i % size, j % size) * f64::from(signs[j]) * f64::from(x[j]));
                    let want = terms.sum::<f64>() / (size as f64).sqrt();
                    assert!((f64::from(*y) - want).abs() < 1e-5, "{y} {want}");
                }
            }
        }
    }

    #[test]
    fn the_transposed_map_undoes_the_map() {
        let (signs, mut rng) = (signs(3, 1, 96), Rng::new(9, 96));
        let x: Vec<f64> = (0..5 * 96).map(|_| rng.normal()).collect();
        let mut back = x.clone();
        block_hadamard(&Pool::new(2), &mut back, &signs, 32);
        assert!(back.iter().zip(&x).any(|(b, x)| (b - x).abs() > 0.1), "something was mapped");
        block_hadamard_transposed(&Pool::new(2), &mut back, &signs, 32);
        assert!(back.iter().zip(&x).all(|(b, x)| (b - x).abs() < 1e-12));
    }

    #[test]
    fn signs_are_balanced_and_depend_on_seed_and_stream() {
        let of = |seed, stream| signs(seed, stream, 4096);
        assert!(of(1, 2).iter().sum::<f32>().abs() < 4.0 * 64.0);
        assert!(of(1, 2) != of(1, 3) && of(1, 2) != of(2, 2));
        assert_eq!(of(1, 2)[..100], signs(1, 2, 100));
    }
}
