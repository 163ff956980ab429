//! `y = x / sqrt(mean(x^2) + eps) * weight` over pieces of the last dimension as wide as the
//! weight: the whole of it, or every head by itself. The weight's gradient goes into the sink.

use crate::Result;
use crate::autograd::ops::{Op, Sink};
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use std::sync::Arc;

pub(crate) struct RmsNorm<D: Device> {
    pub(crate) weight: Arc<D::Buffer>,
    pub(crate) eps: f64,
    pub(crate) sink: Option<Sink<D>>,
}

impl<D: Device> Op<D, 1> for RmsNorm<D> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        Tensor::new(device.rms_norm(x.buffer()?, &self.weight, self.eps)?, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let [dx, dweight] =
            device.rms_norm_backward(x.buffer()?, &self.weight, self.eps, dy.buffer()?)?;
        if let Some(sink) = &self.sink {
            sink.add_buffer(device, dweight)?;
        }
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}
