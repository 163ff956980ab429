//! Rotary position embedding of `[M, H * D]`, row m at position m % period. The gradient is the
//! rotation back.

use crate::Result;
use crate::autograd::ops::Op;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use halfstep_kernels::ops::rope::RopeTable;
use std::sync::Arc;

pub(crate) struct Rope {
    pub(crate) table: Arc<RopeTable>,
    pub(crate) heads: usize,
    /// Tokens of a sequence.
    pub(crate) period: usize,
}

impl Rope {
    fn rotate<D: Device>(&self, device: &D, x: &Tensor<D>, inverse: bool) -> Result<Tensor<D>> {
        let y = device.rope(&self.table, x.buffer()?, self.heads, self.period, inverse)?;
        Tensor::new(y, x.shape())
    }
}

impl<D: Device> Op<D, 1> for Rope {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "rope"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        self.rotate(device, x, false)
    }

    fn backward(
        &self,
        device: &D,
        _: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        Ok([Some(self.rotate(device, dy, true)?)])
    }
}
