//! One block that learns from the teacher's: its ranges and factors, and whatever else the
//! recipe lets learn.

use crate::autograd::ops::Number;
use crate::autograd::parameter::{Group, Parameters};
use crate::layer::block::BlockSinks;
use crate::layer::finished::Finished;
use crate::layer::tensors::{find, tensor_values, tensors};
use crate::layer::weights::BlockWeights;
use crate::quantizer::builder::{Builder, Trains};
use crate::quantizer::matrix::{Matrix, Source};
use crate::quantizer::observer::check_scales;
use crate::recipe::Sites;
use crate::{Error, Result};
use halfstep_formats::architecture::{Linear, Role, TensorSpec};
use halfstep_formats::{Model, Quantization, Tensor, TensorData};
use halfstep_kernels::{ActivationSpec, Pool};
use std::sync::Arc;

pub struct Student<T> {
    pub layer: usize,
    pub parameters: Parameters<T>,
    /// The weights of its linears, in the order of the forward.
    pub matrices: Vec<Matrix<T>>,
    linears: Vec<Linear>,
    /// Norms and biases, and their places.
    vectors: Vec<(Role, usize)>,
    /// Whether its products are the packed runtime's, for each linear.
    integer: Vec<bool>,
}

/// What a student is made of, the same for every layer of a stage.
#[derive(Clone, Copy)]
pub struct StudentConfig<'a> {
    pub model: &'a Model,
    /// What an earlier stage stored, if this stage continues from it.
    pub previous: Option<&'a Model>,
    pub sites: &'a Sites,
    pub trains: Trains,
    /// Whether weights that learn remember where they began, so that they can be pulled there.
    pub anchored: bool,
    /// Decides the first low-rank factors.
    pub seed: u64,
    /// The quantizers of what linears read, if the products of those that read codes are the packed
    /// runtime's.
    pub integer: Option<&'a Quantization>,
}

impl<T: Number> Student<T> {
    /// The layer of the model under the recipe's quantizers, or of what an earlier stage stored.
    pub fn new(config: StudentConfig, layer: usize, pool: &Pool) -> Result<Self> {
        let StudentConfig { model, previous, trains, .. } = config;
        let start = previous.unwrap_or(model);
        let mut parameters = Parameters::new();
        let (mut vectors, mut linears, mut matrices) = (vec![], vec![], vec![]);
        let reads_codes = |linear: Linear| {
            config.integer.is_some_and(|q| q.at(layer, linear.input()) != ActivationSpec::F32)
        };
        let builder = &mut Builder { parameters: &mut parameters, pool, trains, relative: true };
        let (vector_specs, linear_specs) = tensors(model, layer);
        for TensorSpec { name, role, .. } in vector_specs {
            let values = T::from_f32s(tensor_values(start, &name, pool)?);
            vectors.push((role, builder.add(&name, Group::Norms, values, trains.norms)));
        }
        let count = linear_specs.len();
        for (number, (linear, spec)) in linear_specs.into_iter().enumerate() {
            let tensor = find(start, &spec.name)?;
            let source = match previous {
                Some(previous) => Source::Previous(tensor, previous.low_rank.get(&spec.name)),
                None => Source::Original(tensor),
            };
            let number = (layer * count + number) as u64;
            let site = config.sites.of(&spec);
            let matrix = Matrix::new(builder, &spec, site, source, config.seed, number);
            let weight = &mut builder.parameters.list[matrix.index];
            if config.anchored && !weight.frozen {
                weight.anchor = weight.value.clone();
            }
            linears.push(linear);
            matrices.push(matrix);
        }
        let integer = linears.iter().copied().map(reads_codes).collect();
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
                .zip(&self.integer)
                .map(|((linear, m), &integer)| (linear, m.forward(&self.parameters, pool, integer)))
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
        for (matrix, &integer) in self.matrices.iter().zip(&self.integer) {
            let weight = &self.parameters.list[matrix.index];
            let (name, shape) = (&weight.name, vec![matrix.rows, matrix.cols]);
            let Some(packed) = matrix.pack(&self.parameters, pool) else {
                let data = TensorData::F32(T::to_f32s(&weight.value).into_owned());
                finished.tensors.insert(name.clone(), Tensor { shape, data });
                continue;
            };
            check_scales(&packed, name)?;
            if let Some(row) = matrix.differing_row(&packed, &self.parameters, pool, integer) {
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
