//! One block that learns from the teacher's: its ranges and factors, and whatever else the
//! recipe lets learn.

use crate::autograd::parameter::{Group, Parameters};
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor as Values;
use crate::device::{Device, Number};
use crate::layer::block::{Block, BlockSinks, Context};
use crate::layer::finished::Finished;
use crate::layer::sides::{SideInputs, SideValues};
use crate::layer::tensors::{find, tensor_values, tensors};
use crate::layer::weights::BlockWeights;
use crate::objective::{LayerOutput, TermConfig};
use crate::quantizer::builder::{Builder, Trains};
use crate::quantizer::matrix::{Matrix, Previous, Source};
use crate::quantizer::observer::check_scales;
use crate::recipe::Sites;
use crate::{Error, Result};
use halfstep_formats::architecture::{Linear, Role, TensorSpec};
use halfstep_formats::{Model, Quantization, Tensor, TensorData};
use halfstep_kernels::ActivationSpec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A transformer layer that learns, with its parameters.
pub struct Student<D: Device> {
    /// Number of the layer, from 0.
    pub layer: usize,
    /// The linear that it holds, with its bias; None: it holds the whole layer.
    pub alone: Option<Linear>,
    /// What of it can learn, and what it holds frozen.
    pub parameters: Parameters<D>,
    /// The weights of its linears, in the order of the forward.
    pub matrices: Vec<Matrix<D>>,
    linears: Vec<Linear>,
    /// What is never quantized: role, shape and place.
    vectors: Vec<(Role, Vec<usize>, usize)>,
    /// Whether its products are the packed runtime's, for each linear.
    integer: Vec<bool>,
}

/// What a student is made of, the same for every layer of a stage.
#[derive(Clone, Copy)]
pub struct StudentConfig<'a> {
    /// The unquantized model.
    pub model: &'a Model,
    /// What an earlier stage stored, if this stage continues from it.
    pub previous: Option<&'a Model>,
    /// The quantizer of every site.
    pub sites: &'a Sites,
    /// What learns; everything else is frozen.
    pub trains: Trains,
    /// Whether weights that learn remember where they began, so that they can be pulled there.
    pub anchored: bool,
    /// Decides the first low-rank factors.
    pub seed: u64,
    /// The quantizers of what linears read, if the products of those that read codes are the packed
    /// runtime's.
    pub integer: Option<&'a Quantization>,
}

impl<D: Device> Student<D> {
    /// The layer of the model under the recipe's quantizers, or of what an earlier stage stored.
    pub fn new(config: StudentConfig, layer: usize, device: &D) -> Result<Self> {
        Self::of(config, layer, None, device)
    }

    /// As [`Self::new`]; with `alone` one linear of the layer, which begins as it does there.
    pub fn of(
        config: StudentConfig,
        layer: usize,
        alone: Option<Linear>,
        device: &D,
    ) -> Result<Self> {
        let StudentConfig { model, previous, trains, .. } = config;
        let start = previous.unwrap_or(model);
        let mut parameters = Parameters::new(device);
        let (mut vectors, mut linears, mut matrices) = (vec![], vec![], vec![]);
        let reads_codes = |linear: Linear| {
            config.integer.is_some_and(|q| q.at(layer, linear.input()) != ActivationSpec::F32)
        };
        let builder = &mut Builder { parameters: &mut parameters, trains, relative: true };
        let (mut vector_specs, linear_specs) = tensors(model, layer);
        vector_specs.retain(|spec| alone.is_none_or(|linear| spec.role == Role::Bias(linear)));
        for TensorSpec { name, role, shape, .. } in vector_specs {
            let values = D::Number::from_f32s(tensor_values(start, &name, device.pool())?);
            let index = builder.add(&name, Group::Norms, values, trains.norms)?;
            vectors.push((role, shape, index));
        }
        let count = linear_specs.len();
        for (number, (linear, spec)) in linear_specs.into_iter().enumerate() {
            if alone.is_some_and(|alone| alone != linear) {
                continue;
            }
            let source = match previous {
                Some(previous) => Source::Previous(Previous::of(previous, &spec.name)?),
                None => Source::Original(find(model, &spec.name)?),
            };
            let number = (layer * count + number) as u64;
            let site = config.sites.of(&spec);
            let matrix = Matrix::new(builder, &spec, site, source, config.seed, number)?;
            let weight = &mut builder.parameters.list[matrix.index];
            if config.anchored && !weight.frozen {
                weight.anchor = Some(device.copy(&weight.value)?);
            }
            linears.push(linear);
            matrices.push(matrix);
        }
        let integer = linears.iter().copied().map(reads_codes).collect();
        Ok(Self { layer, alone, parameters, matrices, linears, vectors, integer })
    }

    /// The block as this step's forward uses it.
    pub fn weights(&self) -> Result<BlockWeights<D>> {
        let Parameters { device, list, .. } = &self.parameters;
        let vectors = self
            .vectors
            .iter()
            .map(|&(role, _, index)| Ok((role, Arc::new(device.copy(&list[index].value)?))));
        let matrices = || self.linears.iter().copied().zip(&self.matrices);
        let weight = |((linear, matrix), &integer): ((Linear, &Matrix<D>), &bool)| {
            Ok((linear, matrix.forward(&self.parameters, integer)?))
        };
        let factors = |(linear, matrix): (Linear, &Matrix<D>)| {
            let factors = matrix.low_rank.as_ref()?.outside(&self.parameters).transpose()?;
            Some(factors.map(|factors| (linear, factors)))
        };
        let input = |(linear, matrix): (Linear, &Matrix<D>)| {
            let input = matrix.transform.as_ref()?.input(&self.parameters);
            Some(input.map(|input| (linear, input)))
        };
        Ok(BlockWeights {
            layer: self.layer,
            vectors: vectors.collect::<Result<_>>()?,
            linears: matrices().zip(&self.integer).map(weight).collect::<Result<_>>()?,
            float: matrices().filter(|(_, m)| !m.is_quantized()).map(|(l, _)| l).collect(),
            low_rank: matrices().filter_map(factors).collect::<Result<_>>()?,
            inputs: matrices().filter_map(input).collect::<Result<_>>()?,
        })
    }

    /// Where the gradients of what learns go.
    pub fn sinks(&self) -> BlockSinks<D> {
        let list = &self.parameters.list;
        let learned = |&(role, _, index): &(Role, Vec<usize>, usize)| {
            list[index].learned_sink().map(|sink| (role, sink.clone()))
        };
        let matrices = || self.linears.iter().copied().zip(&self.matrices);
        BlockSinks {
            vectors: self.vectors.iter().filter_map(learned).collect(),
            linears: matrices()
                .filter_map(|(linear, m)| Some((linear, m.sink(&self.parameters)?)))
                .collect(),
            low_rank: matrices()
                .filter_map(|(linear, m)| {
                    Some((linear, m.low_rank.as_ref()?.sinks(&self.parameters)?))
                })
                .collect(),
            ..BlockSinks::none()
        }
    }

    /// From dL/dWq to the gradients of what learns.
    pub fn backward(&self) -> Result<()> {
        self.matrices.iter().try_for_each(|matrix| matrix.backward(&self.parameters))
    }

    /// Chooses a code for every value, where the forward used values between two.
    pub fn settle(&mut self) -> Result<()> {
        self.matrices.iter().try_for_each(|matrix| matrix.settle(&mut self.parameters))
    }

    /// Exactly what the last forward would use.
    pub fn finish(&self) -> Result<Finished> {
        let (mut finished, device) = (Finished::default(), &self.parameters.device);
        let values = |of: &D::Buffer| -> Result<TensorData> {
            Ok(TensorData::F32(D::Number::to_f32s(&device.read(of)?).into_owned()))
        };
        for (_, shape, index) in &self.vectors {
            let vector = &self.parameters.list[*index];
            let (shape, data) = (shape.clone(), values(&vector.value)?);
            finished.tensors.insert(vector.name.clone(), Tensor { shape, data });
        }
        for (matrix, &integer) in self.matrices.iter().zip(&self.integer) {
            let weight = &self.parameters.list[matrix.index];
            let (name, shape) = (&weight.name, vec![matrix.rows, matrix.cols]);
            let Some(packed) = matrix.pack(&self.parameters)? else {
                let data = values(&weight.value)?;
                finished.tensors.insert(name.clone(), Tensor { shape, data });
                continue;
            };
            check_scales(&packed, name)?;
            if let Some(row) = matrix.differing_row(&packed, &self.parameters, integer)? {
                return Err(Error::Parity {
                    path: "the packed block".into(),
                    place: format!("{name}: row {row}"),
                });
            }
            let data = TensorData::Packed(packed);
            finished.tensors.insert(name.clone(), Tensor { shape, data });
            if let Some(transform) = &matrix.transform {
                let parts = transform.pack(&self.parameters)?;
                finished.linear_parts.insert(name.clone(), parts);
            }
            let factors = matrix.low_rank.as_ref().map(|part| part.pack(&self.parameters));
            if let Some(factors) = factors.transpose()?.flatten() {
                factors
                    .check(matrix.rows, matrix.cols)
                    .map_err(|reason| Error::Internal { reason: format!("{name}: {reason}") })?;
                finished.low_rank.insert(name.clone(), factors);
            }
        }
        Ok(finished)
    }
}

/// Sequences through layers that learn together, or through one linear, in one step.
#[derive(Clone, Copy)]
pub struct LayerPass<'a, D: Device> {
    /// What all layers of the forward share.
    pub context: &'a Context<D>,
    /// Each layer as the step's forward uses it, and where its gradients go.
    pub layers: &'a [(BlockWeights<D>, BlockSinks<D>)],
    /// The linear of the only layer that they go through; None: whole layers.
    pub alone: Option<Linear>,
    /// Terms that look at the output of the last layer or of the linear, with their weights.
    pub terms: &'a [(TermConfig, f64)],
    /// Sequences of the step.
    pub sequences: usize,
}

impl<D: Device> LayerPass<'_, D> {
    /// Forward and backward of one sequence x `[T, D]`, or `[T, I]` of a linear, `sides` being what
    /// each layer reads beside: leaves the gradients in the sinks. Returns every term of every target, in this order.
    pub fn gradients(
        &self,
        x: Vec<D::Number>,
        sides: &[SideValues],
        targets: Vec<Vec<D::Number>>,
    ) -> Result<Vec<f64>> {
        let Context { device, tokens, architecture, .. } = self.context;
        let shape = [*tokens, x.len() / tokens];
        let x = Values::new(device.upload(x)?, &shape)?;
        let mut tape = Tape::on(device);
        let (mut y, mut passed) = (x.clone(), BTreeMap::new());
        for (number, (weights, sinks)) in self.layers.iter().enumerate() {
            let block = Block::new(self.context, weights, sinks);
            if let Some(linear) = self.alone {
                let mut block = block;
                y = block.forward_linear(&mut tape, &y, linear)?;
                continue;
            }
            let mut beside = match sides.get(number) {
                Some(sides) => sides.uploaded(device, *tokens)?,
                None => SideInputs::default(),
            };
            let from = architecture.layers[weights.layer].kv_from();
            if let Some(own) = from.and_then(|from| passed.get(&from)) {
                beside.keys_values = Some(<[Values<D>; 2]>::clone(own));
            }
            let mut block = block.beside(beside);
            y = block.forward(&mut tape, &y)?;
            passed.extend(block.kept().map(|kept| (weights.layer, kept)));
        }
        let (width, sequences) = (y.cols(), self.sequences);
        let (mut dy, mut found) = (device.zeros(y.len())?, vec![]);
        for target in targets {
            let (y, target) = (y.buffer()?, &device.upload(target)?);
            let at = LayerOutput { device, y, target, width, sequences };
            for (term, weight) in self.terms {
                found.push(term.of_layer_output(at, *weight, &mut dy)?);
            }
        }
        let dy = Values::new(dy, y.shape())?;
        tape.backward(&x, &y, dy)?;
        Ok(found)
    }
}
