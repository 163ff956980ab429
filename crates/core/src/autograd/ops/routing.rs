//! The weights `[M, used]` of the experts that were chosen for each row, from a router's outputs
//! `[M, E]`. Computed on the host; the choice is not differentiated.

use crate::Result;
use crate::autograd::ops::Op;
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use halfstep_kernels::ops::routing::Routing;
use halfstep_kernels::{Real, uninit_vec};
use std::sync::Arc;

pub(crate) struct Weigh {
    pub(crate) routing: Routing,
    /// `[M, used]`.
    pub(crate) chosen: Arc<[u32]>,
}

/// The experts of every row `[M, used]` from the router's outputs; `bias` is added for the choice.
pub(crate) fn chosen<D: Device>(
    device: &D,
    routing: &Routing,
    outputs: &Tensor<D>,
    bias: Option<&D::Buffer>,
) -> Result<Arc<[u32]>> {
    let (values, bias) = (outputs.read(device)?, bias.map(|bias| device.read(bias)).transpose()?);
    let mut chosen = vec![0; outputs.rows() * routing.used];
    let rows = values.chunks_exact(outputs.cols());
    for (chosen, outputs) in chosen.chunks_exact_mut(routing.used).zip(rows) {
        routing.choose(outputs, bias.as_deref(), chosen);
    }
    Ok(chosen.into())
}

impl<D: Device> Op<D, 1> for Weigh {
    fn name(&self) -> &'static str {
        "weigh"
    }

    fn forward(&self, device: &D, [outputs]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        let values = outputs.read(device)?;
        let (used, mut weights) = (self.routing.used, uninit_vec(self.chosen.len()));
        let rows = values.chunks_exact(outputs.cols()).zip(self.chosen.chunks_exact(used));
        for (weights, (outputs, chosen)) in weights.chunks_exact_mut(used).zip(rows) {
            self.routing.weigh(outputs, chosen, weights);
        }
        Tensor::new(device.upload(weights)?, &[outputs.rows(), used])
    }

    fn backward(
        &self,
        device: &D,
        [outputs]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let (values, dy) = (outputs.read(device)?, dy.read(device)?);
        let (used, experts) = (self.routing.used, outputs.cols());
        let mut gradient = vec![<D::Number as Real>::ZERO; values.len()];
        let rows = values.chunks_exact(experts).zip(self.chosen.chunks_exact(used));
        let rows = rows.zip(dy.chunks_exact(used));
        for (gradient, ((outputs, chosen), dy)) in gradient.chunks_exact_mut(experts).zip(rows) {
            self.routing.weigh_backward(outputs, chosen, dy, gradient);
        }
        Ok([Some(Tensor::new(device.upload(gradient)?, outputs.shape())?)])
    }
}
