//! The first half of a layer: a gated delta rule. What its gates are made of stays in floating
//! point, as a router does.

use super::{Block, Name};
use crate::Result;
use crate::autograd::ops::activation::{Gated, Plain};
use crate::autograd::ops::delta_rule;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use halfstep_formats::architecture::{ActivationSite, DeltaRule, Norm, Parameter};
use halfstep_kernels::ops::activation::Activation;

impl<D: Device> Block<'_, D> {
    /// `x + r post(Out (norm(y) * silu(Gate n)))`, y being what the rule gives for n, the `normed`
    /// rows.
    pub(super) fn delta_rule(
        &mut self,
        tape: &mut Tape<D>,
        delta: &DeltaRule,
        normed: Tensor<D>,
        x: &Tensor<D>,
    ) -> Result<Tensor<D>> {
        let write = self.float_linear(tape, Parameter::DeltaWrite, &normed)?; // [M, V]
        let decay = self.float_linear(tape, Parameter::DeltaDecay, &normed)?; // [M, V]
        let names = [Name::DeltaQkv, Name::DeltaGate];
        let [qkv, gate] = self.linears(tape, ActivationSite::AttnIn, normed, names)?;
        let qkv = self.convolved(tape, Parameter::DeltaKernel, qkv)?; // [M, channels]
        let qkv = tape.apply([&qkv], Plain(Activation::Silu))?;
        let rule = delta_rule::DeltaRule {
            shape: delta.shape(),
            tokens: self.context.tokens,
            bias: self.required(Parameter::DeltaDecayBias)?,
            rates: self.required(Parameter::DeltaRate)?,
        };
        let y = tape.apply([&qkv, &decay, &write], rule)?; // [M, V value_dim]
        let y = self.norm(tape, Norm::Delta, y)?;
        let y = tape.apply([&gate, &y], Gated(Activation::Silu))?;
        let factor = self.layer().residual_scale;
        self.end_of_branch(tape, y, x, Name::DeltaOut, Norm::PostAttention, factor)
    }
}
