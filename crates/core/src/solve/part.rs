//! Some rows and columns of a row-major matrix, as an operand of a product.
use halfstep_kernels::Real;
use halfstep_kernels::ops::gemm::Rows;
use std::ops::Range;

pub(super) struct Part<'a, T> {
    data: &'a [T],
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

impl<'a, T> Part<'a, T> {
    /// Of `data`, whose rows have `stride` entries.
    pub fn new(data: &'a [T], stride: usize, rows: Range<usize>, cols: Range<usize>) -> Self {
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
