//! A finished layer: its codes are found and its tensors are as they will be stored.

use crate::autograd::ops::Number;
use crate::autograd::ops::weight::Weight;
use crate::layer::weights::BlockWeights;
use crate::quantizer::low_rank::factors;
use crate::record::{BlockRecord, MatrixRecord};
use crate::{Error, Result};
use halfstep_formats::architecture::{Linear, Role, TensorSpec};
use halfstep_formats::{Architecture, LowRank, Tensor};
use halfstep_kernels::Pool;
use std::collections::BTreeMap;

/// A finished block: its tensors and factors exactly as they will be stored, by name.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    pub tensors: BTreeMap<String, Tensor>,
    pub low_rank: BTreeMap<String, LowRank>,
    pub record: BlockRecord,
    pub matrices: Vec<MatrixRecord>,
}

impl Finished {
    /// The block as the forward of what was stored uses it; `integer` says of which linears the
    /// products are the packed runtime's.
    pub fn weights<T: Number>(
        &self,
        architecture: &Architecture,
        layer: usize,
        integer: impl Fn(Linear) -> bool,
        pool: &Pool,
    ) -> Result<BlockWeights<T>> {
        let find = |spec: &TensorSpec| {
            self.tensors.get(&spec.name).ok_or_else(|| Error::Internal {
                reason: format!("the finished block has no {}", spec.name),
            })
        };
        let weight = |spec: &TensorSpec| -> Result<Weight<T>> {
            let tensor = find(spec)?;
            let integer = matches!(spec.role, Role::Linear(linear) if integer(linear));
            Ok(if integer {
                Weight::stored(tensor, pool)
            } else {
                Weight::values(T::from_f32s(tensor.to_f32(pool)), tensor.cols())
            })
        };
        let vector = |spec: &TensorSpec| Ok(T::from_f32s(find(spec)?.to_f32(pool)));
        let mut weights = BlockWeights::collect(architecture, layer, vector, weight)?;
        let linears = weights.linears.keys();
        let beside =
            |&linear: &Linear| Some((linear, self.low_rank.get(&linear.weight_name(layer))?));
        weights.low_rank =
            linears.filter_map(beside).map(|(linear, f)| (linear, factors(f))).collect();
        Ok(weights)
    }
}
