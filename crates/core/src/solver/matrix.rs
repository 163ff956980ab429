//! What the solvers share of matrices: parts of one as an operand of a product, the error of a
//! difference under a Hessian, and the check that all values are finite.

use crate::{Error, Result};
use halfstep_kernels::ops::gemm::{Dense, Precision, Rows, linear};
use halfstep_kernels::{Pool, Real};
use std::ops::Range;

/// Some rows and columns of a row-major matrix, as an operand of a product.
pub(crate) struct Part<'a, T> {
    data: &'a [T],
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

impl<'a, T> Part<'a, T> {
    /// Of `data`, whose rows have `stride` entries.
    pub(crate) fn new(
        data: &'a [T],
        stride: usize,
        rows: Range<usize>,
        cols: Range<usize>,
    ) -> Self {
        assert!(
            cols.end <= stride && rows.end * stride <= data.len(),
            "a part lies inside its matrix"
        );
        Self { data, stride, rows, cols }
    }
}

impl<T: Real> Rows<T> for Part<'_, T> {
    fn rows(&self) -> usize {
        self.rows.len()
    }
    fn cols(&self) -> usize {
        self.cols.len()
    }
    fn read(&self, row: usize, first: usize, out: &mut [T]) {
        out.copy_from_slice(
            &self.data[(self.rows.start + row) * self.stride + self.cols.start + first..]
                [..out.len()],
        );
    }
    fn dense(&self) -> Option<&[T]> {
        let (data, stride) = self.strided()?;
        (self.cols.len() == stride).then_some(data)
    }
    fn strided(&self) -> Option<(&[T], usize)> {
        let first = self.rows.start * self.stride + self.cols.start;
        // Up to the end of the last row's part.
        let length = match self.rows.len() {
            0 => 0,
            rows => (rows - 1) * self.stride + self.cols.len(),
        };
        Some((&self.data[first..][..length], self.stride))
    }
}

/// Refuses a matrix with an entry that is NaN, naming the first.
pub(crate) fn check_finite(data: &str, values: &[f32], cols: usize) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Data {
            data: data.into(),
            reason: format!(
                "row {}, column {} is {}; every value must be finite",
                at / cols,
                at % cols,
                values[at]
            ),
        }),
    }
}

/// `d_r H d_r^T` of each row of d `[O, I]`, H `[I, I]` symmetric.
pub(crate) fn quadratic_errors(pool: &Pool, d: &[f32], h: &[f32], cols: usize) -> Vec<f64> {
    let mut product = vec![0.0; d.len()];
    linear(pool, Precision::F32, &Dense::new(d, cols), &Dense::new(h, cols), &mut product);
    let rows = d.chunks_exact(cols).zip(product.chunks_exact(cols));
    rows.map(|(d, product)| d.iter().zip(product).map(|(&d, &p)| d as f64 * p as f64).sum())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_kernels::ops::gemm::linear_backward_input;
    use halfstep_kernels::rng::Rng;

    /// Whether a part lies in a matrix or has memory of its own.
    fn parts_equal_their_copies<T: Real>() {
        let (pool, n, mut rng) = (Pool::new(2), 300, Rng::new(5, 0));
        let data: Vec<T> = (0..n * n).map(|_| T::from_f64(rng.normal())).collect();
        let copy = |rows: Range<usize>, cols: Range<usize>| -> Vec<T> {
            rows.flat_map(|row| data[row * n..][cols.clone()].to_vec()).collect()
        };
        for (rows, k, cols) in [(64, 64, 64), (64, 236, 236), (44, 256, 256), (1, 3, 7), (5, 1, 1)]
        {
            let (x, w) =
                (Part::new(&data, n, 9..9 + rows, 0..k), Part::new(&data, n, 0..k, 0..cols));
            let (own_x, own_w) = (copy(9..9 + rows, 0..k), copy(0..k, 0..cols));
            let (own_x, own_w) = (Dense::new(&own_x, k), Dense::new(&own_w, cols));
            let [mut got, mut want] = [0; 2].map(|_| vec![T::ZERO; rows * cols]);
            linear_backward_input(&pool, Precision::F32, &x, &w, &mut got, false);
            linear_backward_input(&pool, Precision::F32, &own_x, &own_w, &mut want, false);
            assert!(got == want, "{rows} {k} {cols}");
            let w = Part::new(&data, n, 20..20 + cols, 0..k);
            let own_w = copy(20..20 + cols, 0..k);
            linear(&pool, Precision::F32, &x, &w, &mut got);
            linear(&pool, Precision::F32, &own_x, &Dense::new(&own_w, k), &mut want);
            assert!(got == want, "{rows} {k} {cols}, transposed");
        }
    }

    #[test]
    fn a_part_multiplies_like_its_copy() {
        parts_equal_their_copies::<f64>();
        parts_equal_their_copies::<f32>();
    }
}
