//! The gated delta rule over qkv `[M, channels]`, decay and write `[M, V]`, every sequence from
//! states of 0 ([`halfstep_kernels::ops::delta_rule`]). Gradients of the bias of the decay and of
//! the rates go into their sinks; no state is kept.

use crate::Result;
use crate::autograd::ops::{Learned, Op};
use crate::autograd::tensor::Tensor;
use crate::device::{self, DeltaGradients, Device};
use halfstep_kernels::ops::delta_rule::DeltaShape;

pub(crate) struct DeltaRule<D: Device> {
    pub(crate) shape: DeltaShape,
    /// Tokens of a sequence.
    pub(crate) tokens: usize,
    /// Added to the decay, `[V]`.
    pub(crate) bias: Learned<D>,
    /// The tensor of rates, `[V]`.
    pub(crate) rates: Learned<D>,
}

impl<D: Device> DeltaRule<D> {
    fn of<'a>(
        &'a self,
        [qkv, decay, write]: [&'a Tensor<D>; 3],
    ) -> Result<device::DeltaRule<'a, D::Buffer>> {
        Ok(device::DeltaRule {
            shape: self.shape,
            tokens: self.tokens,
            qkv: qkv.buffer()?,
            decay: decay.buffer()?,
            write: write.buffer()?,
            bias: &self.bias.0,
            rates: &self.rates.0,
        })
    }
}

impl<D: Device> Op<D, 3> for DeltaRule<D> {
    fn name(&self) -> &'static str {
        "delta_rule"
    }

    fn forward(&self, device: &D, arguments: [&Tensor<D>; 3]) -> Result<Tensor<D>> {
        let [qkv, ..] = arguments;
        let shape = [qkv.rows(), self.shape.value_width()];
        Tensor::new(device.delta_rule(self.of(arguments)?)?, &shape)
    }

    fn backward(
        &self,
        device: &D,
        arguments: [&Tensor<D>; 3],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 3]> {
        let [of_qkv, of_decay, of_write] = arguments.map(Tensor::shape);
        let DeltaGradients { qkv, decay, write, bias, rates } =
            device.delta_rule_backward(self.of(arguments)?, dy.buffer()?)?;
        for ((_, sink), gradient) in [(&self.bias, bias), (&self.rates, rates)] {
            if let Some(sink) = sink {
                sink.add_buffer(device, gradient)?;
            }
        }
        let gradient = |values, shape: &[usize]| Tensor::new(values, shape).map(Some);
        Ok([gradient(qkv, of_qkv)?, gradient(decay, of_decay)?, gradient(write, of_write)?])
    }
}
