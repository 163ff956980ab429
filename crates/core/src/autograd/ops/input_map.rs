//! What the input of a linear goes through before it is quantized: `y = h . x` for every row, and the
//! block Hadamard `y = R x`, whose gradient is `R^T dL/dy`.

use crate::Result;
use crate::autograd::ops::{Op, Sink};
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceBuffer};
use std::sync::Arc;

/// `y = h . x`, h `[D]` multiplying every row of x `[M, D]`.
pub(crate) struct ScaleChannels<D: Device> {
    /// h.
    pub(crate) vector: Arc<D::Buffer>,
    /// Where dL/dh goes.
    pub(crate) sink: Option<Sink<D>>,
}

impl<D: Device> Clone for ScaleChannels<D> {
    fn clone(&self) -> Self {
        Self { vector: self.vector.clone(), sink: self.sink.clone() }
    }
}

impl<D: Device> Op<D, 1> for ScaleChannels<D> {
    fn name(&self) -> &'static str {
        "scale_channels"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        Tensor::new(device.scale_channels(x.buffer()?, &self.vector)?, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let dy = dy.buffer()?;
        if let Some(sink) = &self.sink {
            let cols = self.vector.len();
            sink.add_buffer(device, device.scale_channels_backward(x.buffer()?, dy, cols)?)?;
        }
        let dx = device.scale_channels(dy, &self.vector)?;
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}

/// `y = R x` for every row of x `[M, D]` ([`halfstep_kernels::ops::hadamard`]).
#[derive(Clone)]
pub(crate) struct BlockHadamard {
    /// Channels of a block.
    pub(crate) size: usize,
    /// `[D]`.
    pub(crate) signs: Arc<[f32]>,
}

impl BlockHadamard {
    fn map<D: Device>(&self, device: &D, x: &Tensor<D>, transposed: bool) -> Result<Tensor<D>> {
        let y = device.block_hadamard(x.buffer()?, &self.signs, self.size, transposed)?;
        Tensor::new(y, x.shape())
    }
}

impl<D: Device> Op<D, 1> for BlockHadamard {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "block_hadamard"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        self.map(device, x, false)
    }

    fn backward(
        &self,
        device: &D,
        _: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        Ok([Some(self.map(device, dy, true)?)])
    }
}
