//! Causal depthwise convolution of x `[M, C]`, each channel with its row of a kernel `[C, K]`, in
//! sequences that follow nothing. The kernel's gradient goes into the sink.

use crate::Result;
use crate::autograd::ops::{Learned, Op};
use crate::autograd::tensor::Tensor;
use crate::device::Device;

pub(crate) struct Convolution<D: Device> {
    pub(crate) kernel: Learned<D>,
    /// Tokens of a sequence.
    pub(crate) tokens: usize,
}

impl<D: Device> Op<D, 1> for Convolution<D> {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        let (kernel, _) = &self.kernel;
        Tensor::new(device.convolution(x.buffer()?, kernel, x.cols(), self.tokens)?, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let ((kernel, sink), channels) = (&self.kernel, x.cols());
        let [dx, dkernel] = device.convolution_backward(
            x.buffer()?,
            kernel,
            channels,
            self.tokens,
            dy.buffer()?,
        )?;
        if let Some(sink) = sink {
            sink.add_buffer(device, dkernel)?;
        }
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}
