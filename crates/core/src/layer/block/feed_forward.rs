//! The second half of a layer, and what a second embedding adds behind it.

use super::Block;
use crate::autograd::ops::activation::{Gated, Plain};
use crate::autograd::ops::scale::AddScaled;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use crate::{Error, Result};
use halfstep_formats::architecture::{Activation, Dense, FeedForward, Linear as Name, Norm};
use halfstep_kernels::ops::activation;

impl<D: Device> Block<'_, D> {
    /// `h + r post(Down (act(Gate x) * Up x))`, or the same of experts.
    pub(super) fn feed_forward(
        &mut self,
        tape: &mut Tape<D>,
        x: Tensor<D>,
        h: &Tensor<D>,
    ) -> Result<Tensor<D>> {
        let (layer, norm) = (self.layer(), Norm::PostFeedForward);
        match &layer.feed_forward {
            FeedForward::Dense(dense) => {
                let names = [Name::Gate, Name::Up, Name::Down];
                let hidden = self.hidden(tape, dense, x, names)?; // [M, F]
                let hidden = self.norm(tape, Norm::DownInput, hidden)?;
                self.end_of_branch(tape, hidden, h, Name::Down, norm, layer.residual_scale)
            }
            FeedForward::Experts(experts) => {
                let y = self.experts(tape, experts, x)?;
                let y = self.norm(tape, norm, y)?;
                tape.apply([h, &y], AddScaled(layer.residual_scale))
            }
        }
    }

    /// What a down linear reads.
    pub(super) fn hidden(
        &mut self,
        tape: &mut Tape<D>,
        dense: &Dense,
        x: Tensor<D>,
        [gate, up, _]: [Name; 3],
    ) -> Result<Tensor<D>> {
        let function = kernel(dense.activation);
        if dense.gated {
            let [gate, up] = self.linears(tape, gate.input(), x, [gate, up])?;
            return tape.apply([&gate, &up], Gated(function));
        }
        if let Activation::Clamped { .. } = dense.activation {
            let reason = "a clamped activation without a gate".into();
            return Err(Error::Internal { reason });
        }
        let [up] = self.linears(tape, up.input(), x, [up])?;
        tape.apply([&up], Plain(function))
    }

    /// `x + norm(Projection (act(Gate x) * e))` with the layer's piece e of the second embedding, if
    /// there is one.
    pub(super) fn per_layer_input(
        &mut self,
        tape: &mut Tape<D>,
        x: Tensor<D>,
    ) -> Result<Tensor<D>> {
        if self.context.architecture.per_layer_input.is_none() {
            return Ok(x);
        }
        let piece = self.sides.per_layer.clone().ok_or_else(|| Error::Internal {
            reason: "a layer without its piece of the second embedding".into(),
        })?;
        let (gate, projection) = (Name::PerLayerGate, Name::PerLayerProjection);
        let [gate] = self.linears(tape, gate.input(), x.clone(), [gate])?;
        let activation = match &self.layer().feed_forward {
            FeedForward::Dense(dense) => dense.activation,
            FeedForward::Experts(experts) => experts.expert.activation,
        };
        let hidden = tape.apply([&gate, &piece], Gated(kernel(activation)))?;
        self.end_of_branch(tape, hidden, &x, projection, Norm::PerLayer, 1.0)
    }
}

/// The kernels' name of a function.
fn kernel(activation: Activation) -> activation::Activation {
    match activation {
        Activation::Silu => activation::Activation::Silu,
        Activation::GeluTanh => activation::Activation::GeluTanh,
        Activation::SquaredRelu => activation::Activation::SquaredRelu,
        Activation::Clamped { alpha, limit } => activation::Activation::Clamped { alpha, limit },
    }
}
