//! `y = x + b`, b `[D]` added to every row of x `[M, D]`. dL/dx = dL/dy; dL/db, the sum of dL/dy
//! over the rows, goes into the sink.

use crate::Result;
use crate::autograd::ops::{Op, Sink};
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceBuffer};
use std::sync::Arc;

pub(crate) struct AddBias<D: Device> {
    pub(crate) bias: Arc<D::Buffer>,
    pub(crate) sink: Option<Sink<D>>,
}

impl<D: Device> Op<D, 1> for AddBias<D> {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        Tensor::new(device.add_bias(x.buffer()?, &self.bias)?, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        _: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        if let Some(sink) = &self.sink {
            let db = device.add_bias_backward(dy.buffer()?, self.bias.len())?;
            sink.add_buffer(device, db)?;
        }
        Ok([Some(dy.clone())])
    }
}
