//! Norms over pieces of the last dimension: the whole of it, or every head by itself
//! ([`crate::device::Norm`]). The weight's gradient goes into the sink.

use crate::Result;
use crate::autograd::ops::{Op, Sink};
use crate::autograd::tensor::Tensor;
use crate::device::{Device, Norm};
use std::sync::Arc;

pub(crate) struct Normalize<D: Device> {
    pub(crate) norm: Norm,
    pub(crate) weight: Arc<D::Buffer>,
    pub(crate) sink: Option<Sink<D>>,
}

impl<D: Device> Op<D, 1> for Normalize<D> {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        Tensor::new(device.norm(self.norm, x.buffer()?, &self.weight)?, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let [dx, dweight] =
            device.norm_backward(self.norm, x.buffer()?, &self.weight, dy.buffer()?)?;
        if let Some(sink) = &self.sink {
            sink.add_buffer(device, dweight)?;
        }
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}
