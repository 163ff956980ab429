//! One block that learns beside the unquantized one: its ranges and factors, and whatever else the
//! recipe lets learn.

use crate::autograd::ops::Number;
use crate::autograd::ops::weight::Weight;
use crate::autograd::parameter::{Group, Parameters};
use crate::engine::block::BlockSinks;
use crate::engine::block_loop::Blockwise;
use crate::engine::trainer::{find, tensor_values};
use crate::engine::weights::BlockWeights;
use crate::quantizer::builder::Builder;
use crate::quantizer::low_rank::factors;
use crate::quantizer::matrix::{Matrix, Source};
use crate::quantizer::observer::check_scales;
use crate::record::{BlockRecord, MatrixRecord};
use crate::{Error, Result};
use halfstep_formats::architecture::{Linear, Role, TensorSpec};
use halfstep_formats::{Architecture, LowRank, Model, Tensor, TensorData};
use halfstep_kernels::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Student<T> {
    pub layer: usize,
    pub parameters: Parameters<T>,
    /// The weights of its linears, in the order of the forward.
    pub matrices: Vec<Matrix<T>>,
    linears: Vec<Linear>,
    /// Norms and biases, and their places.
    vectors: Vec<(Role, usize)>,
    /// Whether products are the packed runtime's.
    integer: bool,
}

/// A finished block: its tensors and factors exactly as they will be stored, by name.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    pub tensors: BTreeMap<String, Tensor>,
    pub low_rank: BTreeMap<String, LowRank>,
    pub record: BlockRecord,
    pub matrices: Vec<MatrixRecord>,
}

impl<T: Number> Student<T> {
    /// The layer of `model` under the recipe's quantizers, or of what an earlier stage stored
    /// (`previous`).
    pub fn new(block: &Blockwise, layer: usize) -> Result<Self> {
        let (pool, start) = (block.pool, block.previous.unwrap_or(block.model));
        let mut parameters = Parameters::new();
        let trains = block.trains;
        let (mut vectors, mut linears, mut matrices) = (vec![], vec![], vec![]);
        let builder = &mut Builder { parameters: &mut parameters, pool, trains, relative: true };
        let (vector_specs, linear_specs) = tensors(block.model, layer);
        for TensorSpec { name, role, .. } in vector_specs {
            let values = T::from_f32s(tensor_values(start, &name, pool)?);
            vectors.push((role, builder.add(&name, Group::Norms, values, trains.norms)));
        }
        let count = linear_specs.len();
        for (number, (linear, spec)) in linear_specs.into_iter().enumerate() {
            let tensor = find(start, &spec.name)?;
            let source = match block.previous {
                Some(previous) => Source::Previous(tensor, previous.low_rank.get(&spec.name)),
                None => Source::Original(tensor),
            };
            let number = (layer * count + number) as u64;
            let (site, seed) = (block.sites.of(&spec), block.config.seed);
            let matrix = Matrix::new(builder, &spec, site, source, seed, number);
            let weight = &mut builder.parameters.list[matrix.index];
            if block.config.anchor > 0.0 && !weight.frozen {
                weight.anchor = weight.value.clone();
            }
            linears.push(linear);
            matrices.push(matrix);
        }
        let integer = block.integer();
        Ok(Self { layer, parameters, matrices, linears, vectors, integer })
    }

    /// The block as this step's forward uses it.
    pub fn weights(&self, pool: &Pool) -> BlockWeights<T> {
        let value = |index: usize| Arc::new(self.parameters.list[index].value.clone());
        let matrices = || self.linears.iter().copied().zip(&self.matrices);
        BlockWeights {
            layer: self.layer,
            vectors: self.vectors.iter().map(|&(role, index)| (role, value(index))).collect(),
            linears: matrices()
                .map(|(linear, m)| (linear, m.forward(&self.parameters, pool, self.integer)))
                .collect(),
            low_rank: matrices()
                .filter_map(|(linear, m)| Some((linear, m.low_rank?.forward(&self.parameters))))
                .collect(),
        }
    }

    pub fn sinks(&self) -> BlockSinks<T> {
        let list = &self.parameters.list;
        let learned = |&(role, index): &(Role, usize)| {
            list[index].learned_sink().map(|sink| (role, sink.clone()))
        };
        let matrices = || self.linears.iter().copied().zip(&self.matrices);
        BlockSinks {
            vectors: self.vectors.iter().filter_map(learned).collect(),
            linears: matrices()
                .filter_map(|(linear, m)| Some((linear, m.sink(&self.parameters)?)))
                .collect(),
            low_rank: matrices()
                .filter_map(|(linear, m)| Some((linear, m.low_rank?.sinks(&self.parameters)?)))
                .collect(),
            ..BlockSinks::none()
        }
    }

    /// From dL/dWq to the gradients of what learns.
    pub fn backward(&self, pool: &Pool) {
        self.matrices.iter().for_each(|matrix| matrix.backward(&self.parameters, pool));
    }

    /// Chooses a code for every value, where the forward used values between two.
    pub fn settle(&mut self) {
        self.matrices.iter().for_each(|matrix| matrix.settle(&mut self.parameters));
    }

    /// Exactly what the last forward would use.
    pub fn finish(&self, pool: &Pool) -> Result<Finished> {
        let mut finished = Finished::default();
        for &(_, index) in &self.vectors {
            let vector = &self.parameters.list[index];
            let data = TensorData::F32(T::to_f32s(&vector.value).into_owned());
            finished
                .tensors
                .insert(vector.name.clone(), Tensor { shape: vec![vector.value.len()], data });
        }
        for matrix in &self.matrices {
            let weight = &self.parameters.list[matrix.index];
            let (name, shape) = (&weight.name, vec![matrix.rows, matrix.cols]);
            let Some(packed) = matrix.pack(&self.parameters, pool) else {
                let data = TensorData::F32(T::to_f32s(&weight.value).into_owned());
                finished.tensors.insert(name.clone(), Tensor { shape, data });
                continue;
            };
            check_scales(&packed, name)?;
            if let Some(row) = matrix.differing_row(&packed, &self.parameters, pool, self.integer) {
                return Err(Error::Parity {
                    path: "the packed block".into(),
                    place: format!("{name}: row {row}"),
                });
            }
            let data = TensorData::Packed(packed);
            finished.tensors.insert(name.clone(), Tensor { shape, data });
            if let Some(part) = matrix.low_rank {
                let factors = part.pack(&self.parameters);
                factors
                    .check(matrix.rows, matrix.cols)
                    .map_err(|reason| Error::Internal { reason: format!("{name}: {reason}") })?;
                finished.low_rank.insert(name.clone(), factors);
            }
        }
        Ok(finished)
    }
}

impl Finished {
    /// The block as the forward of what was stored uses it.
    pub fn weights<T: Number>(
        &self,
        architecture: &Architecture,
        layer: usize,
        integer: bool,
        pool: &Pool,
    ) -> Result<BlockWeights<T>> {
        let find = |spec: &TensorSpec| {
            self.tensors.get(&spec.name).ok_or_else(|| Error::Internal {
                reason: format!("the finished block has no {}", spec.name),
            })
        };
        let weight = |spec: &TensorSpec| -> Result<Weight<T>> {
            let tensor = find(spec)?;
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

/// The unquantized block.
pub fn teacher<T: Number>(model: &Model, layer: usize, pool: &Pool) -> Result<BlockWeights<T>> {
    BlockWeights::collect(
        &model.architecture,
        layer,
        |spec| Ok(T::from_f32s(tensor_values(model, &spec.name, pool)?)),
        |spec| Ok(Weight::stored(find(model, &spec.name)?, pool)),
    )
}

/// Norms and biases of a layer, and its linears, in the order of the forward.
pub fn tensors(model: &Model, layer: usize) -> (Vec<TensorSpec>, Vec<(Linear, TensorSpec)>) {
    let (mut vectors, mut linears) = (vec![], vec![]);
    for spec in model.architecture.layer_tensors(layer) {
        match spec.role {
            Role::Linear(linear) => linears.push((linear, spec)),
            _ => vectors.push(spec),
        }
    }
    (vectors, linears)
}
