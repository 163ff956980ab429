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
use halfstep_formats::architecture::{Linear, TensorSpec, attn_norm, ffn_norm};
use halfstep_formats::{LowRank, Model, Tensor, TensorData};
use halfstep_kernels::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Student<T> {
    pub layer: usize,
    pub parameters: Parameters<T>,
    /// In the order of [`Linear::ALL`].
    pub matrices: Vec<Matrix<T>>,
    norms: [usize; 2],
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
        let mut matrices = vec![];
        let builder = &mut Builder { parameters: &mut parameters, pool, trains, relative: true };
        let mut norm = |name: String| -> Result<usize> {
            let values = T::from_f32s(tensor_values(start, &name, pool)?);
            Ok(builder.add(&name, Group::Norms, values, trains.norms))
        };
        let norms = [norm(attn_norm(layer))?, norm(ffn_norm(layer))?];
        for (number, spec) in linears(block.model, layer)?.into_iter().enumerate() {
            let tensor = find(start, &spec.name)?;
            let source = match block.previous {
                Some(previous) => Source::Previous(tensor, previous.low_rank.get(&spec.name)),
                None => Source::Original(tensor),
            };
            let number = (layer * Linear::ALL.len() + number) as u64;
            let (site, seed) = (block.sites.of(&spec), block.config.seed);
            let matrix = Matrix::new(builder, &spec, site, source, seed, number);
            let weight = &mut builder.parameters.list[matrix.index];
            if block.config.anchor > 0.0 && !weight.frozen {
                weight.anchor = weight.value.clone();
            }
            matrices.push(matrix);
        }
        let integer = block.integer();
        Ok(Self { layer, parameters, matrices, norms, integer })
    }

    /// The block as this step's forward uses it.
    pub fn weights(&self, pool: &Pool) -> BlockWeights<T> {
        let [attn_norm, ffn_norm] =
            self.norms.map(|place| Arc::new(self.parameters.list[place].value.clone()));
        let linears =
            std::array::from_fn(|i| self.matrices[i].forward(&self.parameters, pool, self.integer));
        let low_rank = std::array::from_fn(|i| {
            self.matrices[i].low_rank.map(|part| part.forward(&self.parameters))
        });
        BlockWeights { attn_norm, ffn_norm, linears, low_rank }
    }

    pub fn sinks(&self) -> BlockSinks<T> {
        let [attn_norm, ffn_norm] =
            self.norms.map(|place| self.parameters.list[place].learned_sink().cloned());
        BlockSinks {
            attn_norm,
            ffn_norm,
            linears: std::array::from_fn(|i| self.matrices[i].sink(&self.parameters)),
            low_rank: std::array::from_fn(|i| {
                self.matrices[i].low_rank.and_then(|part| part.sinks(&self.parameters))
            }),
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
        for place in self.norms {
            let norm = &self.parameters.list[place];
            let data = TensorData::F32(T::to_f32s(&norm.value).into_owned());
            finished
                .tensors
                .insert(norm.name.clone(), Tensor { shape: vec![norm.value.len()], data });
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
        layer: usize,
        integer: bool,
        pool: &Pool,
    ) -> Result<BlockWeights<T>> {
        let find = |name: &str| {
            self.tensors.get(name).ok_or_else(|| Error::Internal {
                reason: format!("the finished block has no {name}"),
            })
        };
        let norm = |name: String| Ok::<_, Error>(Arc::new(T::from_f32s(find(&name)?.to_f32(pool))));
        let weight = |linear: &Linear| -> Result<Weight<T>> {
            let tensor = find(&linear.weight_name(layer))?;
            Ok(if integer {
                Weight::stored(tensor, pool)
            } else {
                Weight::values(T::from_f32s(tensor.to_f32(pool)), tensor.cols())
            })
        };
        let linears: Vec<_> = Linear::ALL.iter().map(weight).collect::<Result<_>>()?;
        let linears = linears.try_into().unwrap_or_else(|_| unreachable!("seven linears"));
        let low_rank =
            Linear::ALL.map(|linear| self.low_rank.get(&linear.weight_name(layer)).map(factors));
        Ok(BlockWeights {
            attn_norm: norm(attn_norm(layer))?,
            ffn_norm: norm(ffn_norm(layer))?,
            linears,
            low_rank,
        })
    }
}

/// The unquantized block.
pub fn teacher<T: Number>(model: &Model, layer: usize, pool: &Pool) -> Result<BlockWeights<T>> {
    let norm =
        |name: String| Ok::<_, Error>(Arc::new(T::from_f32s(tensor_values(model, &name, pool)?)));
    let linears: Vec<_> = linears(model, layer)?
        .iter()
        .map(|spec| Ok(Weight::stored(find(model, &spec.name)?, pool)))
        .collect::<Result<_>>()?;
    let linears = linears.try_into().unwrap_or_else(|_| unreachable!("seven linears"));
    Ok(BlockWeights::new(norm(attn_norm(layer))?, norm(ffn_norm(layer))?, linears))
}

/// Name and shape of the linears of a block, in the order of [`Linear::ALL`].
pub fn linears(model: &Model, layer: usize) -> Result<Vec<TensorSpec>> {
    let specs = model.architecture.tensors();
    let find =
        |linear: &Linear| {
            let name = linear.weight_name(layer);
            specs.iter().find(|spec| spec.name == name).cloned().ok_or_else(|| Error::Internal {
                reason: format!("the architecture has no {name}"),
            })
        };
    Linear::ALL.iter().map(find).collect()
}
