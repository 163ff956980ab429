//! A finished layer: its codes are found and its tensors are as they will be stored.

use crate::device::{Device, Number};
use crate::layer::weights::BlockWeights;
use crate::quantizer::low_rank::factors;
use crate::quantizer::transform::InputMap;
use crate::record::{BlockRecord, MatrixRecord};
use crate::{Error, Result};
use halfstep_formats::architecture::{Linear, Role, TensorSpec};
use halfstep_formats::{Architecture, LinearParts, LowRank, Tensor, TensorData};
use std::collections::BTreeMap;

/// A finished block: its tensors and factors exactly as they will be stored, by name.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// Tensors by Hugging Face name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Low-rank factors by the name of their weight.
    pub low_rank: BTreeMap<String, LowRank>,
    /// What the inputs of linears go through, by the name of their weight.
    pub linear_parts: BTreeMap<String, LinearParts>,
    /// The record of the training; empty without training.
    pub record: BlockRecord,
    /// Statistics of the quantized linears.
    pub matrices: Vec<MatrixRecord>,
}

impl Finished {
    /// The block as the forward of what was stored uses it; `integer` says of which linears the
    /// products are the packed runtime's.
    pub fn weights<D: Device>(
        &self,
        device: &D,
        architecture: &Architecture,
        layer: usize,
        integer: impl Fn(Linear) -> bool,
    ) -> Result<BlockWeights<D>> {
        let find = |spec: &TensorSpec| {
            self.tensors.get(&spec.name).ok_or_else(|| Error::Internal {
                reason: format!("the finished block has no {}", spec.name),
            })
        };
        let values =
            |tensor: &Tensor| device.upload(D::Number::from_f32s(tensor.to_f32(device.pool())));
        let weight = |spec: &TensorSpec| {
            let tensor = find(spec)?;
            if matches!(spec.role, Role::Linear(linear) if integer(linear)) {
                return device.stored_weight(tensor);
            }
            device.weight(values(tensor)?, tensor.cols())
        };
        let vector = |spec: &TensorSpec| values(find(spec)?);
        let mut weights = BlockWeights::collect(architecture, layer, vector, weight)?;
        let linears = weights.linears.keys();
        let beside =
            |&linear: &Linear| Some((linear, self.low_rank.get(&linear.weight_name(layer))?));
        let found = linears.filter_map(beside).map(|(linear, f)| Ok((linear, factors(device, f)?)));
        weights.low_rank = found.collect::<Result<_>>()?;
        for &linear in weights.linears.keys() {
            let name = linear.weight_name(layer);
            if let (Some(parts), Some(tensor)) =
                (self.linear_parts.get(&name), self.tensors.get(&name))
            {
                weights.inputs.insert(linear, InputMap::stored(device, parts, tensor.cols())?);
            }
        }
        let is_float = |linear: &&Linear| {
            let tensor = self.tensors.get(&linear.weight_name(layer));
            !tensor.is_some_and(|tensor| matches!(tensor.data, TensorData::Packed(_)))
        };
        weights.float = weights.linears.keys().filter(is_float).copied().collect();
        Ok(weights)
    }
}
