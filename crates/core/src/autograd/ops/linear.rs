//! `y = x Wq^T`, and the same with a residual added: `y = r + x Wq^T`.
//!
//! dL/dx = dL/dy Wq, dL/dWq = dL/dy^T x (into the sink), dL/dr = dL/dy. x `[M, I]`, Wq `[O, I]`, y
//! and r `[M, O]`.

use crate::Result;
use crate::autograd::ops::{Op, Sink};
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceWeight};
use halfstep_kernels::ops::gemm::Precision;

/// A linear layer with its weight as the forward uses it. Its input is what the weight was
/// multiplied with: quantized and decoded.
#[derive(Clone)]
pub(crate) struct Linear<D: Device> {
    pub(crate) precision: Precision,
    pub(crate) weight: D::Weight,
    pub(crate) sink: Option<Sink<D>>,
}

impl<D: Device> Linear<D> {
    fn product(&self, device: &D, x: &Tensor<D>) -> Result<D::Buffer> {
        device.linear(self.precision, x.buffer()?, &self.weight)
    }

    /// The gradient of x; that of the weight goes into the sink.
    fn gradient(&self, device: &D, x: &Tensor<D>, dy: &Tensor<D>) -> Result<Option<Tensor<D>>> {
        let (precision, dy) = (self.precision, dy.buffer()?);
        let dx = device.linear_backward_input(precision, dy, &self.weight)?;
        if let Some(sink) = &self.sink {
            let cols = self.weight.cols();
            sink.add(|dw, accumulate| {
                device.linear_backward_weight(precision, dy, x.buffer()?, cols, dw, accumulate)
            })?;
        }
        Tensor::new(dx, x.shape()).map(Some)
    }
}

impl<D: Device> Op<D, 1> for Linear<D> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        Tensor::new(self.product(device, x)?, &[x.rows(), self.weight.rows()])
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        Ok([self.gradient(device, x, dy)?])
    }
}

/// `y = r + x Wq^T`.
pub(crate) struct ResidualLinear<D: Device>(pub Linear<D>);

impl<D: Device> Op<D, 2> for ResidualLinear<D> {
    const READS_ARGUMENTS: [bool; 2] = [true, false];

    fn name(&self) -> &'static str {
        "residual_linear"
    }

    fn forward(&self, device: &D, [x, residual]: [&Tensor<D>; 2]) -> Result<Tensor<D>> {
        let mut y = self.0.product(device, x)?;
        device.add(&mut y, residual.buffer()?)?;
        Tensor::new(y, &[x.rows(), self.0.weight.rows()])
    }

    fn backward(
        &self,
        device: &D,
        [x, _]: [&Tensor<D>; 2],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 2]> {
        Ok([self.0.gradient(device, x, dy)?, Some(dy.clone())])
    }
}
