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
        let whole = self.cols.len() == self.stride;
        whole.then(|| &self.data[self.rows.start * self.stride..self.rows.end * self.stride])
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
