//! The trainer as built from a model and a recipe: everything that decides the next step.

use crate::autograd::ops::Number;
use crate::autograd::ops::weight::Weight;
use crate::autograd::parameter::{Group, Parameters};
use crate::engine::arithmetic::Arithmetic;
use crate::engine::block::rope_tables;
use crate::engine::calibrate::static_steps;
use crate::engine::weights::Weights;
use crate::objective::head::Objective;
use crate::optimizer::Optimizer;
use crate::quantizer::matrix::{Matrix, Steps, WeightPart};
use crate::recipe::{Recipe, Recompute, TrainConfig};
use crate::solver::rtn::{check_scales, quantization};
use crate::{Error, Result};
use halfstep_formats::architecture::ActivationSite;
use halfstep_formats::{Architecture, Model, Tensor, TensorData};
use halfstep_kernels::ops::rope::RopeTable;
use halfstep_kernels::pack::PackedMatrix;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{ActivationQuantizer, CacheQuantizer, Pool, Real};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Trainer<T> {
    pub architecture: Arc<Architecture>,
    pub pool: Pool,
    /// The rotation of each layer.
    pub ropes: Arc<[Arc<RopeTable>]>,
    pub parameters: Parameters<T>,
    pub matrices: Vec<Matrix<T>>,
    /// The unquantized model, frozen.
    pub teacher: Weights<T>,
    pub activation: ActivationQuantizer,
    pub head_activation: ActivationQuantizer,
    pub cache: CacheQuantizer,
    pub edge: EdgeRule,
    pub arithmetic: Arithmetic,
    pub optimizer: Optimizer,
    pub objective: Objective,
    pub recompute: Recompute,
    pub loss_bytes: usize,
    /// Sequences per forward; None is all.
    pub micro_batch: Option<usize>,
    /// Blocks whose forward is kept for the backward, found at the first step.
    pub(crate) kept_blocks: Option<usize>,
    /// Steps done.
    pub step: u64,
}

impl<T: Number> Trainer<T> {
    /// Student = teacher with the recipe's quantizers at their first steps, all of which learns;
    /// or, if there is a `start`, that quantized model, whose scales learn. `calibration` `[B,
    /// window]` tokens serve static sites.
    pub fn new(
        model: &Model,
        start: Option<&Model>,
        recipe: &Recipe,
        config: &TrainConfig,
        steps: u64,
        calibration: &[u32],
        pool: Pool,
    ) -> Result<Self> {
        let architecture = Arc::new(model.architecture.clone());
        let mut parameters = Parameters::new();
        let mut matrices = vec![];
        for spec in architecture.tensors() {
            match (spec.role, start) {
                (role, None) if role.is_vector() => {
                    parameters.add(
                        &spec.name,
                        Group::Norms,
                        T::from_f32s(tensor_values(model, &spec.name, &pool)?),
                    );
                }
                (role, Some(start)) if role.is_vector() => {
                    parameters.add_frozen(
                        &spec.name,
                        Group::Norms,
                        T::from_f32s(tensor_values(start, &spec.name, &pool)?),
                        0,
                    );
                }
                (_, None) => matrices.push(Matrix::new(
                    &mut parameters,
                    &pool,
                    &spec,
                    tensor_values(model, &spec.name, &pool)?,
                    recipe,
                )),
                (_, Some(start)) => matrices.push(Matrix::coded(
                    &mut parameters,
                    &pool,
                    &spec,
                    find(start, &spec.name)?,
                )),
            }
        }
        let values = |name: &str| Ok(T::from_f32s(tensor_values(model, name, &pool)?));
        let teacher = Weights::collect(&architecture, values, |name| {
            Ok(Weight::stored(find(model, name)?, &pool))
        })?;
        let arithmetic = Arithmetic::of(config.arithmetic.unwrap_or_default());
        let mut trainer = Self {
            ropes: rope_tables(&architecture),
            architecture,
            pool,
            parameters,
            matrices,
            teacher,
            activation: recipe.activation,
            head_activation: recipe.head_activation,
            cache: recipe.cache,
            edge: recipe.weights.map_or(EdgeRule::Inside, |w| w.edge),
            arithmetic,
            optimizer: Optimizer::new(config, steps),
            objective: Objective {
                kl_weight: config.kl_weight,
                ce_weight: config.ce_weight,
                temperature: config.temperature,
            },
            recompute: config.recompute,
            loss_bytes: config.loss_bytes,
            micro_batch: config.micro_batch,
            kept_blocks: None,
            step: 0,
        };
        for (name, step) in static_steps(&trainer, calibration, config.window)? {
            trainer.parameters.add(
                &name,
                Group::ActivationSteps,
                vec![<T as Real>::from_f32(step)],
            );
        }
        Ok(trainer)
    }

    /// For every matrix, which of its learned steps are negative (a step's sign is fixed at the
    /// start).
    pub(crate) fn step_signs(&self) -> Vec<Vec<bool>> {
        let negative = |place: usize| {
            self.parameters.list[place].value.iter().map(|s| *s < <T as Real>::ZERO).collect()
        };
        self.matrices
            .iter()
            .map(|m| match &m.part {
                WeightPart::Stepped { steps: Steps::Learned { place }, .. } => negative(*place),
                _ => vec![],
            })
            .collect()
    }

    /// The trained model: codes and scales exactly as the last forward would use them, nothing
    /// searched again.
    pub fn packed(&self, source: &Model, recipe: &Recipe) -> Result<Model> {
        let mut tensors = BTreeMap::new();
        for spec in self.architecture.tensors() {
            let place = self.parameters.place(&spec.name)?;
            let matrix = self.matrices.iter().find(|m| m.place == place);
            let data = match matrix.and_then(|m| Some((m, m.pack(&self.parameters, &self.pool)?))) {
                Some((matrix, packed)) => {
                    check_scales(&packed, &spec.name)?;
                    self.check_packed(matrix, &packed, &spec.name)?;
                    TensorData::Packed(packed)
                }
                None => TensorData::F32(
                    self.parameters.list[place].value.iter().map(|&v| Real::to_f32(v)).collect(),
                ),
            };
            tensors.insert(spec.name, Tensor { shape: spec.shape, data });
        }
        let mut static_steps = BTreeMap::new();
        for layer in 0..self.architecture.layers.len() {
            for site in ActivationSite::ALL {
                if let Ok(p) = self.parameters.get(&site.step_name(layer)) {
                    static_steps.insert(p.name.clone(), Real::to_f32(p.value[0]));
                }
            }
        }
        Ok(source.with(tensors, recipe.weights.map(|_| quantization(recipe, static_steps))))
    }

    /// The codes and scales decode to exactly what the forward multiplied with.
    fn check_packed(&self, matrix: &Matrix<T>, packed: &PackedMatrix, name: &str) -> Result<()> {
        let mut decoded = vec![0.0; matrix.rows * matrix.cols];
        packed.decode(&self.pool, &mut decoded);
        let used = matrix.forward(&self.parameters, &self.pool, self.arithmetic.integer_forward);
        let differs = |row: &usize| {
            used.row(*row)
                .iter()
                .zip(&decoded[row * matrix.cols..])
                .any(|(&u, d)| Real::to_f32(u) != *d)
        };
        match (0..matrix.rows).find(differs) {
            Some(row) => Err(Error::Parity {
                path: "the packed model".into(),
                place: format!("{name}: row {row}"),
            }),
            None => Ok(()),
        }
    }
}

pub(crate) fn find<'a>(model: &'a Model, name: &str) -> Result<&'a Tensor> {
    let tensor = model.tensors.get(name);
    tensor.ok_or_else(|| {
        Error::Format(halfstep_formats::Error::MissingTensor {
            file: model.name.clone(),
            tensor: name.into(),
        })
    })
}

/// A tensor's values in f32.
pub fn tensor_values(model: &Model, name: &str, pool: &Pool) -> Result<Vec<f32>> {
    Ok(find(model, name)?.to_f32(pool))
}
