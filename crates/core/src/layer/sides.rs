//! What layers read beside the rows of the layer before: keys and values of an earlier layer, and
//! pieces of a second embedding.

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
use halfstep_formats::Architecture;
use halfstep_formats::architecture::PerLayerInput;
use std::collections::BTreeMap;
use std::f64::consts::FRAC_1_SQRT_2;

/// What one layer reads beside the rows of the layer before.
pub struct SideInputs<D: Device> {
    /// Keys and values of an earlier layer, as they are cached: `[M, K D]` each.
    pub keys_values: Option<[Tensor<D>; 2]>,
    /// The layer's piece of the second embedding, `[M, width]`.
    pub per_layer: Option<Tensor<D>>,
}

impl<D: Device> Default for SideInputs<D> {
    fn default() -> Self {
        Self { keys_values: None, per_layer: None }
    }
}

impl<D: Device> Clone for SideInputs<D> {
    fn clone(&self) -> Self {
        Self { keys_values: self.keys_values.clone(), per_layer: self.per_layer.clone() }
    }
}

impl<D: Device> SideInputs<D> {
    /// Everything that it holds: keys, values, piece.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor<D>> {
        self.keys_values.iter().flatten().chain(&self.per_layer)
    }
}

/// The side inputs of all layers of one forward.
pub struct Sides<D: Device> {
    /// Of every layer; none without a second embedding.
    pieces: Vec<Tensor<D>>,
    /// Keys and values that later layers read, by their layer.
    kept: BTreeMap<usize, [Tensor<D>; 2]>,
}

impl<D: Device> Sides<D> {
    /// Before the first layer.
    pub fn new(pieces: Vec<Tensor<D>>) -> Self {
        Self { pieces, kept: BTreeMap::new() }
    }

    /// Those of a layer, of which all that it reads was kept.
    pub fn of(&self, architecture: &Architecture, layer: usize) -> SideInputs<D> {
        let from = architecture.layers[layer].attention.kv_from;
        SideInputs {
            keys_values: from.and_then(|from| self.kept.get(&from).cloned()),
            per_layer: self.pieces.get(layer).cloned(),
        }
    }

    /// Keeps what [`crate::layer::block::Block::kept`] gives.
    pub fn keep(&mut self, layer: usize, kept: Option<[Tensor<D>; 2]>) {
        self.kept.extend(kept.map(|kept| (layer, kept)));
    }

    /// What was kept of a layer.
    pub(crate) fn kept(&self, layer: usize) -> Option<&[Tensor<D>; 2]> {
        self.kept.get(&layer)
    }
}

/// Whether a later layer reads the keys and values of this one.
pub(crate) fn is_read(architecture: &Architecture, layer: usize) -> bool {
    architecture.layers.iter().any(|later| later.attention.kv_from == Some(layer))
}

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
