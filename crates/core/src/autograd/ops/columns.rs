//! A range of every piece of `width` columns of x `[M, n width]`: `[M, n range]`. The gradient of
//! the other columns is 0.

use crate::Result;
use crate::autograd::ops::Op;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use std::ops::Range;

pub(crate) struct Columns {
    /// Columns of a piece.
    pub(crate) width: usize,
    /// Those that are taken.
    pub(crate) range: Range<usize>,
}

impl<D: Device> Op<D, 1> for Columns {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "columns"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        let columns = x.cols() / self.width * self.range.len();
        let y = device.columns(x.buffer()?, self.width, self.range.clone())?;
        Tensor::new(y, &[x.rows(), columns])
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let dx = device.columns_backward(dy.buffer()?, self.width, self.range.clone())?;
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}
