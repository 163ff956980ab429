//! The second embedding, of which every layer reads a piece.

use crate::Result;
use crate::autograd::ops::Sink;
use crate::autograd::ops::linear::Linear;
use crate::autograd::ops::norm::Normalize;
use crate::autograd::ops::rows::GatherRows;
use crate::autograd::ops::scale::{AddScaled, Scale};
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, Norm};
use crate::layer::block::Context;
use crate::layer::weights::{PerLayerWeights, norm_weight};
use halfstep_formats::architecture::PerLayerInput;
use std::f64::consts::FRAC_1_SQRT_2;

/// Where gradients of the second embedding go, beside those of its table.
pub(crate) struct PerLayerSinks<D: Device> {
    pub projection: Option<Sink<D>>,
    pub norm: Option<Sink<D>>,
}

/// The second embedding of some tokens: `e_i = (norm(P x_0 / sqrt(D)) + sqrt(width) table) /
/// sqrt(2)`, `[M, width]` for each layer. x_0 is the scaled first embedding, `[M, D]`, and `table`
/// the tokens' rows `[M, layers width]`.
pub(crate) fn pieces<D: Device>(
    tape: &mut Tape<D>,
    context: &Context<D>,
    weights: &PerLayerWeights<D>,
    sinks: PerLayerSinks<D>,
    x: &Tensor<D>,
    table: &Tensor<D>,
) -> Result<Vec<Tensor<D>>> {
    let (device, a) = (&context.device, &context.architecture);
    let Some(PerLayerInput { width }) = a.per_layer_input else { return Ok(vec![]) };
    let (rows, layers) = (x.rows(), a.layers.len());
    let weight = device.weight(device.copy(&weights.projection)?, a.hidden_size)?;
    let linear = Linear { precision: context.precision, weight, sink: sinks.projection };
    let y = tape.apply([x], linear)?;
    let y = tape.apply([&y], Scale(1.0 / (a.hidden_size as f64).sqrt()))?;
    let norm = Norm { kind: a.norm.kind, eps: a.norm.eps, width };
    let weight = norm_weight(device, &weights.norm, a.norm.offset)?;
    let y = tape.apply([&y], Normalize { norm, weight, sink: sinks.norm })?;
    let table = tape.apply([table], Scale((width as f64).sqrt()))?;
    let sum = tape.apply([&y, &table], AddScaled(1.0))?;
    let all = tape.apply([&sum], Scale(FRAC_1_SQRT_2))?.reshaped(&[rows * layers, width]);
    let piece = |layer: usize| (0..rows).map(|row| (row * layers + layer) as u32).collect();
    (0..layers).map(|layer| tape.apply([&all], GatherRows(piece(layer)))).collect()
}
