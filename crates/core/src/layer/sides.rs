//! What layers read beside the rows of the layer before: keys and values of an earlier layer, and
//! pieces of a second embedding.

use crate::Result;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceBuffer, Number};
use halfstep_formats::Architecture;
use std::collections::BTreeMap;

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
        let from = architecture.layers[layer].kv_from();
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
    architecture.layers.iter().any(|later| later.kv_from() == Some(layer))
}

/// [`SideInputs`] of one sequence, on the host.
#[derive(Clone, Debug, Default)]
pub struct SideValues {
    /// Keys and values of an earlier layer.
    pub(crate) keys_values: Option<[Vec<f32>; 2]>,
    /// The layer's piece of the second embedding.
    pub(crate) per_layer: Option<Vec<f32>>,
}

impl SideValues {
    /// The same on a device, `tokens` rows each.
    pub fn uploaded<D: Device>(&self, device: &D, tokens: usize) -> Result<SideInputs<D>> {
        let upload = |values: &Vec<f32>| {
            let values = device.upload(D::Number::from_f32s(values.clone()))?;
            let shape = [tokens, values.len() / tokens];
            Tensor::new(values, &shape)
        };
        let keys_values = match &self.keys_values {
            Some([k, v]) => Some([upload(k)?, upload(v)?]),
            None => None,
        };
        Ok(SideInputs { keys_values, per_layer: self.per_layer.as_ref().map(upload).transpose()? })
    }
}
