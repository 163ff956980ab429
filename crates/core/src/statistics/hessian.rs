//! What a linear's inputs look like to second order: `H = (2/T) sum_t x_t x_t^T` (GPTQ, arXiv
//! 2210.17323, section 3.1).

use super::InputStatistic;
use crate::solver::{Part, check_finite};
use crate::{Error, Result};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::gemm::{Precision, linear_backward_weight};

/// Tokens whose products are summed in f32; such sums are added up in f64.
const TOKENS: usize = 1024;
/// Columns of one product. H is symmetric, so each goes no further than the diagonal.
const COLUMNS: usize = 256;

/// Collects H of one input of I columns, piece by piece. Linears that read the same input share it.
#[derive(Clone, Debug)]
pub struct Hessian {
    cols: usize,
    tokens: u64,
    /// `sum x x^T`, the lower triangle: rows of [`COLUMNS`] at a time, as long as the last of them
    /// reaches.
    sums: Vec<Vec<f64>>,
}

impl Hessian {
    /// Returns the statistic of an input of `cols` columns, before its first token.
    pub fn new(cols: usize) -> Self {
        assert!(cols > 0, "an input has columns");
        let sums = strips(cols).map(|(first, end)| vec![0.0; (end - first) * end]).collect();
        Self { cols, tokens: 0, sums }
    }

    /// Adds the tokens x `[T, I]`.
    ///
    /// Errors: `Data` naming the first value that is not finite, or a column whose squares overflow
    /// (nothing may be added after that).
    pub fn add(&mut self, pool: &Pool, x: &[f32]) -> Result<()> {
        let cols = self.cols;
        assert!(x.len().is_multiple_of(cols), "shape of an input");
        check_finite("calibration input", x, cols)?;
        // Each product of a chunk is larger than the one before.
        let mut products = Vec::with_capacity(COLUMNS.min(cols) * cols);
        for x in x.chunks(TOKENS * cols) {
            let tokens = x.len() / cols;
            for ((first, end), sums) in strips(cols).zip(&mut self.sums) {
                products.resize((end - first) * end, 0.0);
                let (left, right) = (
                    Part::new(x, cols, 0..tokens, first..end),
                    Part::new(x, cols, 0..tokens, 0..end),
                );
                linear_backward_weight(pool, Precision::F32, &left, &right, &mut products, false);
                pool.chunks_mut(sums, 16 * end, |i, sums| {
                    let products = &products[16 * i * end..];
                    sums.iter_mut().zip(products).for_each(|(sum, &p)| *sum += p as f64);
                });
            }
            self.tokens += tokens as u64;
        }
        // A sum of products is never larger than the two sums of squares, so the diagonal speaks
        // for all.
        match (0..cols).find(|&j| !self.sum(j, j).is_finite()) {
            None => Ok(()),
            Some(j) => Err(Error::Data {
                data: "calibration input".into(),
                reason: format!("the squares of column {j} are too large for f32"),
            }),
        }
    }

    /// Number of columns, I.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Tokens seen (T).
    pub fn tokens(&self) -> u64 {
        self.tokens
    }
    /// Entry (i, j) of H; 0 before the first token.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        2.0 / self.tokens.max(1) as f64 * self.sum(i, j)
    }
    /// The diagonal of H `[I]`. A column that was 0 at every token ("dead") has exactly 0.
    pub fn diagonal(&self) -> Vec<f64> {
        (0..self.cols).map(|j| self.at(j, j)).collect()
    }
    fn sum(&self, i: usize, j: usize) -> f64 {
        let (row, column) = (i.max(j), i.min(j));
        let strip = row / COLUMNS;
        let end = self.cols.min((strip + 1) * COLUMNS);
        self.sums[strip][row % COLUMNS * end + column]
    }
}

/// First and last row (exclusive) of the pieces that a Hessian of `cols` columns is kept in.
fn strips(cols: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..cols).step_by(COLUMNS).map(move |first| (first, cols.min(first + COLUMNS)))
}

impl InputStatistic for Hessian {
    fn add(&mut self, pool: &Pool, x: &[f32]) -> Result<()> {
        Hessian::add(self, pool, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_kernels::rng::Rng;

    fn input(tokens: usize, cols: usize) -> Vec<f32> {
        let mut rng = Rng::new(1, cols as u64);
        (0..tokens * cols).map(|_| rng.normal() as f32).collect()
    }

    #[test]
    fn equals_the_sum_of_outer_products() {
        for (tokens, cols) in [(1, 1), (7, 5), (30, 300), (2100, 20)] {
            let x = input(tokens, cols);
            let (mut h, pool) = (Hessian::new(cols), Pool::new(2));
            let (early, late) = x.split_at(tokens / 3 * cols);
            h.add(&pool, early).unwrap();
            h.add(&pool, late).unwrap();
            assert_eq!((h.tokens(), h.cols()), (tokens as u64, cols));
            for i in 0..cols {
                for j in 0..cols {
                    let want: f64 = x.chunks(cols).map(|x| x[i] as f64 * x[j] as f64).sum::<f64>()
                        * 2.0
                        / tokens as f64;
                    assert!(
                        (h.at(i, j) - want).abs() < 3e-6,
                        "{tokens} {cols} ({i}, {j}): {} {want}",
                        h.at(i, j)
                    );
                }
            }
            assert_eq!(h.diagonal()[cols - 1], h.at(cols - 1, cols - 1));
        }
    }

    #[test]
    fn threads_do_not_change_a_byte() {
        let x = input(1500, 600);
        let [one, two, five] = [1, 2, 5].map(|threads| {
            let mut h = Hessian::new(600);
            h.add(&Pool::new(threads), &x).unwrap();
            h.sums
        });
        assert!(one == two && one == five);
    }

    #[test]
    fn values_that_are_not_finite_are_named() {
        let (mut h, pool) = (Hessian::new(4), Pool::serial());
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0; 12];
            x[6] = bad;
            let message = h.add(&pool, &x).unwrap_err().to_string();
            assert!(message.starts_with("calibration input: row 1, column 2 is"), "{message}");
            assert_eq!(h.tokens(), 0, "nothing was added");
        }
        let message = h.add(&pool, &[0.0, 0.0, 0.0, 1e20]).unwrap_err().to_string();
        assert_eq!(message, "calibration input: the squares of column 3 are too large for f32");
    }
}
