//! One block that learns beside the unquantized one: its ranges and factors, and whatever else the
//! recipe lets learn.

use crate::autograd::ops::Number;
use crate::autograd::ops::weight::Weight;
use crate::autograd::parameter::{Group, Parameters};
use crate::engine::block::BlockSinks;
use crate::engine::trainer::{find, tensor_values};
use crate::engine::weights::BlockWeights;
use crate::quantizer::low_rank::{LowRankPart, factors};
use crate::quantizer::matrix::Matrix;
use crate::recipe::{BlockConfig, WeightSite};
use crate::record::{BlockRecord, MatrixRecord};
use crate::solver::rtn::check_scales;
use crate::{Error, Result};
use halfstep_formats::architecture::{Linear, Role, TensorSpec};
use halfstep_formats::{Architecture, LowRank, Model, Tensor, TensorData};
use halfstep_kernels::{Pool, Real};
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
    pub fn new(
        model: &Model,
        layer: usize,
        site: &WeightSite,
        config: &BlockConfig,
        integer: bool,
        pool: &Pool,
    ) -> Result<Self> {
        let (mut parameters, mut matrices) = (Parameters::new(), vec![]);
        let (vector_specs, linear_specs) = tensors(model, layer);
        let mut vectors = vec![];
        for TensorSpec { name, role, .. } in vector_specs {
            let values = T::from_f32s(tensor_values(model, &name, pool)?);
            let place = if config.learn_weights {
                parameters.add_relative(&name, Group::Norms, values)
            } else {
                parameters.add_frozen(&name, Group::Norms, values, 0)
            };
            vectors.push((role, place));
        }
        let (mut kinds, count) = (vec![], linear_specs.len());
        for (number, (linear, spec)) in linear_specs.into_iter().enumerate() {
            kinds.push(linear);
            let mut matrix = Matrix::ranged(
                &mut parameters,
                pool,
                &spec,
                tensor_values(model, &spec.name, pool)?,
                site,
            );
            let weight = &mut parameters.list[matrix.place];
            if config.anchor > 0.0 && !weight.frozen {
                weight.anchor = weight.value.clone();
            }
            if let Some(low_rank) = config.low_rank {
                let number = (layer * count + number) as u64;
                matrix.low_rank =
                    Some(LowRankPart::new(&mut parameters, &spec, low_rank, config.seed, number));
            }
            matrices.push(matrix);
        }
        Ok(Self { layer, parameters, matrices, linears: kinds, vectors, integer })
    }

    /// The block as this step's forward uses it.
    pub fn weights(&self, pool: &Pool) -> BlockWeights<T> {
        let value = |place: usize| Arc::new(self.parameters.list[place].value.clone());
        let matrices = || self.linears.iter().copied().zip(&self.matrices);
        BlockWeights {
            layer: self.layer,
            vectors: self.vectors.iter().map(|&(role, place)| (role, value(place))).collect(),
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
        let learned = |&(role, place): &(Role, usize)| {
            list[place].learned_sink().map(|sink| (role, sink.clone()))
        };
        let matrices = || self.linears.iter().copied().zip(&self.matrices);
        BlockSinks {
            vectors: self.vectors.iter().filter_map(learned).collect(),
            linears: matrices().map(|(linear, m)| (linear, list[m.place].sink.clone())).collect(),
            low_rank: matrices()
                .filter_map(|(linear, m)| Some((linear, m.low_rank?.sinks(&self.parameters))))
                .collect(),
            ..BlockSinks::none()
        }
    }

    /// From dL/dWq to the gradients of what learns.
    pub fn backward(&self, pool: &Pool) {
        self.matrices.iter().for_each(|matrix| matrix.backward(&self.parameters, pool));
    }

    /// Exactly what the last forward would use.
    pub fn finish(&self, pool: &Pool) -> Result<Finished> {
        let mut finished = Finished::default();
        for &(_, place) in &self.vectors {
            let vector = &self.parameters.list[place];
            let data = TensorData::F32(T::to_f32s(&vector.value).into_owned());
            finished
                .tensors
                .insert(vector.name.clone(), Tensor { shape: vec![vector.value.len()], data });
        }
        for matrix in &self.matrices {
            let name = &self.parameters.list[matrix.place].name;
            let packed = matrix
                .pack(&self.parameters, pool)
                .ok_or_else(|| Error::Internal { reason: format!("{name} is not quantized") })?;
            check_scales(&packed, name)?;
            let mut decoded = vec![0.0; matrix.rows * matrix.cols];
            packed.decode(pool, &mut decoded);
            let used = matrix.forward(&self.parameters, pool, self.integer);
            let differs = |row: &usize| {
                used.row(*row)
                    .iter()
                    .zip(&decoded[row * matrix.cols..])
                    .any(|(&u, d)| Real::to_f32(u) != *d)
            };
            if let Some(row) = (0..matrix.rows).find(differs) {
                return Err(Error::Parity {
                    path: "the packed block".into(),
                    place: format!("{name}: row {row}"),
                });
            }
            finished.tensors.insert(
                name.clone(),
                Tensor { shape: vec![matrix.rows, matrix.cols], data: TensorData::Packed(packed) },
            );
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
