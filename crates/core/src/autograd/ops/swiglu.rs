//! `y = silu(gate) * up`, elementwise.

use crate::Result;
use crate::autograd::ops::Op;
use crate::autograd::tensor::Tensor;
use crate::device::Device;

pub(crate) struct SwiGlu;

impl<D: Device> Op<D, 2> for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn forward(&self, device: &D, [gate, up]: [&Tensor<D>; 2]) -> Result<Tensor<D>> {
        Tensor::new(device.swiglu(gate.buffer()?, up.buffer()?)?, gate.shape())
    }

    fn backward(
        &self,
        device: &D,
        [gate, up]: [&Tensor<D>; 2],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 2]> {
        let [dgate, dup] = device.swiglu_backward(gate.buffer()?, up.buffer()?, dy.buffer()?)?;
        Ok([Some(Tensor::new(dgate, gate.shape())?), Some(Tensor::new(dup, up.shape())?)])
    }
}
