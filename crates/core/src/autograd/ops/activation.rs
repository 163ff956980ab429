//! `y = f(gate) * up` and `y = f(x)`, elementwise
//! ([`halfstep_kernels::ops::activation::Activation`]).

use crate::Result;
use crate::autograd::ops::Op;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use halfstep_kernels::ops::activation::Activation;

/// `f(gate) * up`.
pub(crate) struct Gated(pub(crate) Activation);

impl<D: Device> Op<D, 2> for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn forward(&self, device: &D, [gate, up]: [&Tensor<D>; 2]) -> Result<Tensor<D>> {
        Tensor::new(device.activation(self.0, gate.buffer()?, Some(up.buffer()?))?, gate.shape())
    }

    fn backward(
        &self,
        device: &D,
        [gate, up]: [&Tensor<D>; 2],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 2]> {
        let up_values = Some(up.buffer()?);
        let (dgate, dup) =
            device.activation_backward(self.0, gate.buffer()?, up_values, dy.buffer()?)?;
        let dup = dup.map(|dup| Tensor::new(dup, up.shape())).transpose()?;
        Ok([Some(Tensor::new(dgate, gate.shape())?), dup])
    }
}

/// `f(x)`.
pub(crate) struct Plain(pub(crate) Activation);

impl<D: Device> Op<D, 1> for Plain {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        Tensor::new(device.activation(self.0, x.buffer()?, None)?, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let (dx, _) = device.activation_backward(self.0, x.buffer()?, None, dy.buffer()?)?;
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}
