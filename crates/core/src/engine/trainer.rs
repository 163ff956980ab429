//! The trainer as built from a model and a recipe: everything that decides the next step.

use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, Number};
use crate::engine::arithmetic::Arithmetic;
use crate::engine::calibrate::{StaticScales, static_scales};
use crate::layer::block::Context;
use crate::layer::sides::Sides;
use crate::layer::tensors::{find, tensor_values, uploaded};
use crate::layer::weights::Weights;
use crate::nearest::quantization;
use crate::objective::WeightedTerm;
use crate::optimizer::state::State;
use crate::optimizer::{GroupConfig, Optimizer, Schedule};
use crate::quantizer::builder::Builder;
use crate::quantizer::matrix::{Matrix, Previous, Source};
use crate::quantizer::observer::check_scales;
use crate::recipe::{Recipe, Recompute, Sites, TrainConfig, Trains};
use crate::record::ExpertsRecord;
use crate::{Error, Result};
use halfstep_formats::architecture::Role;
use halfstep_formats::{Architecture, Model, Quantization, Tensor, TensorData};
use halfstep_kernels::Real;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::quant::tensor::QuantTensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The student and the teacher of a training end to end, with everything that decides the next
/// step.
pub struct Trainer<D: Device> {
    /// The graph and sizes of both models.
    pub architecture: Arc<Architecture>,
    /// What of the student can learn, and what it holds frozen, in the order of the forward.
    pub parameters: Parameters<D>,
    /// The quantized weights of the student, in the order of the forward.
    pub matrices: Vec<Matrix<D>>,
    /// The teacher: the unquantized model, frozen.
    pub teacher: Weights<D>,
    /// The quantizers of activations and cache; static scales are among the parameters.
    pub quantization: Arc<Quantization>,
    /// Whether an activation exactly on the edge of its grid counts as inside.
    pub edge: EdgeRule,
    /// What the products are computed in.
    pub arithmetic: Arithmetic,
    /// The rule of update with its state and schedule.
    pub optimizer: Optimizer<D>,
    /// Terms of the loss.
    pub terms: Vec<WeightedTerm>,
    /// Which layers run again in the backward instead of keeping what it reads.
    pub recompute: Recompute,
    /// Largest size in bytes of the logits that are held at once.
    pub loss_bytes: usize,
    /// Sequences per forward; None is all.
    pub micro_batch: Option<usize>,
    /// Blocks whose forward is kept for the backward, found at the first step.
    pub(crate) kept_blocks: Option<usize>,
    /// Rows of the experts that static scales were found on.
    pub(crate) experts: Vec<ExpertsRecord>,
    /// Steps done.
    pub step: u64,
}

impl<D: Device> Trainer<D> {
    /// Student = the model under the recipe's quantizers, or what an earlier stage stored
    /// (`previous`); `trains` says what of it learns. `calibration` `[B, T]` tokens serve static
    /// sites.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        model: &Model,
        previous: Option<&Model>,
        recipe: &Recipe,
        trains: Trains,
        config: &TrainConfig,
        steps: u64,
        calibration: &[u32],
        device: D,
    ) -> Result<Self> {
        let each = &mut |_, _| Ok(());
        Self::watched(model, previous, recipe, trains, config, steps, calibration, device, each)
    }

    /// [`Self::new`], which asks `each` before every tensor, with the number of those that are done
    /// and of all: finding the first scales of a large model takes minutes.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn watched(
        model: &Model,
        previous: Option<&Model>,
        recipe: &Recipe,
        trains: Trains,
        config: &TrainConfig,
        steps: u64,
        calibration: &[u32],
        device: D,
        each: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        let architecture = Arc::new(model.architecture.clone());
        let sites = Sites::new(&recipe.rules, &architecture)?;
        let mut parameters = Parameters::new(&device);
        let builder = &mut Builder { parameters: &mut parameters, trains, relative: false };
        let (mut matrices, mut linears) = (vec![], vec![]);
        let start = previous.unwrap_or(model);
        let specs = architecture.tensors();
        let all = specs.len();
        for (done, spec) in specs.into_iter().enumerate() {
            each(done, all)?;
            if spec.role.is_vector() {
                let values = tensor_values(start, &spec.name, device.pool())?;
                let values = D::Number::from_f32s(values);
                builder.add(&spec.name, Group::Norms, values, trains.norms)?;
                continue;
            }
            let source = match previous {
                Some(previous) => Source::Previous(Previous::of(previous, &spec.name)?),
                None => Source::Original(find(model, &spec.name)?),
            };
            let number = matrices.len() as u64;
            let site = sites.of(&spec);
            let matrix = Matrix::new(builder, &spec, site, source, config.seed, number)?;
            if matches!(spec.role, Role::Linear(_)) {
                linears.push(matrix.index);
            }
            matrices.push(matrix);
        }
        let rate = match config.learning_rate {
            Some(rate) => rate,
            None => {
                let weights = root_mean_square(&parameters, &linears, &device)?;
                default_rate(weights, architecture.layers.len())
            }
        };
        let values = |name: &str| uploaded(&device, model, name);
        let weight = |name: &str| device.stored_weight(find(model, name)?);
        let teacher = Weights::collect(&architecture, values, weight)?;
        let arithmetic = Arithmetic::of(config.arithmetic.unwrap_or_default());
        let quantization = Arc::new(quantization(recipe, &architecture)?);
        let mut trainer = Self {
            architecture,
            parameters,
            matrices,
            teacher,
            quantization,
            edge: recipe.weight_sites().next().map_or(EdgeRule::Inside, |site| site.edge),
            arithmetic,
            optimizer: optimizer(config, steps, rate),
            terms: config.terms(),
            recompute: config.recompute,
            loss_bytes: config.loss_bytes,
            micro_batch: config.micro_batch,
            kept_blocks: None,
            experts: vec![],
            step: 0,
        };
        let stored = previous.and_then(|previous| previous.quantization.as_ref());
        let StaticScales { steps, experts } = match stored {
            Some(stored) => {
                let steps = stored.static_scales.clone().into_iter().collect();
                StaticScales { steps, ..StaticScales::default() }
            }
            None => {
                let length = config.sequence_length;
                let context = Context {
                    quantization: Arc::new(Quantization::float()),
                    ..trainer.context(calibration.len() / length, length)
                };
                let teacher = &trainer.teacher;
                let embed = || {
                    let x = trainer.embed(&teacher.embedding, calibration)?;
                    let second =
                        trainer.second_embedding(&context, teacher, &x, calibration, false)?;
                    Ok((x, Sides::new(second.pieces)))
                };
                static_scales(&teacher.blocks, &context, &trainer.quantization, embed)?
            }
        };
        trainer.experts = experts;
        for (name, step) in steps {
            let (group, step) =
                (Group::ActivationScales, vec![<D::Number as Real>::from_f32(step)]);
            if trains.activation_scales {
                trainer.parameters.add(&name, group, step)?;
            } else {
                trainer.parameters.add_frozen(&name, group, step, 0)?;
            }
        }
        trainer.optimizer.begin(&trainer.parameters)?;
        Ok(trainer)
    }

    /// Chooses a code for every value, where the forward used values between two.
    pub fn settle(&mut self) -> Result<()> {
        self.matrices.iter().try_for_each(|matrix| matrix.settle(&mut self.parameters))
    }

    /// The trained model: codes and scales exactly as the last forward would use them, nothing
    /// searched again.
    pub fn packed(&self, source: &Model, recipe: &Recipe) -> Result<Model> {
        let mut tensors = BTreeMap::new();
        for spec in self.architecture.tensors() {
            let index = self.parameters.index(&spec.name)?;
            let matrix = self.matrices.iter().find(|m| m.index == index);
            let packed = matrix.map(|m| m.pack(&self.parameters)).transpose()?.flatten();
            let data = match matrix.zip(packed) {
                Some((matrix, packed)) => {
                    check_scales(&packed, &spec.name)?;
                    self.check_packed(matrix, &packed, &spec.name)?;
                    TensorData::Packed(packed)
                }
                None => TensorData::F32(self.values(index)?),
            };
            tensors.insert(spec.name, Tensor { shape: spec.shape, data });
        }
        let mut static_scales = BTreeMap::new();
        for layer in 0..self.architecture.layers.len() {
            for site in self.architecture.sites(layer) {
                if let Ok(p) = self.parameters.get(&site.static_scale_name(layer)) {
                    static_scales
                        .insert(p.name.clone(), self.values(self.parameters.index(&p.name)?)?[0]);
                }
            }
        }
        let quantized = recipe
            .quantizes_weights()
            .then(|| Quantization { static_scales, ..(*self.quantization).clone() });
        let mut packed = source.with(tensors, quantized);
        for matrix in &self.matrices {
            let name = &self.parameters.list[matrix.index].name;
            let factors = matrix.low_rank.as_ref().map(|part| part.pack(&self.parameters));
            let factors = factors.transpose()?.flatten();
            packed.low_rank.extend(factors.map(|factors| (name.clone(), factors)));
            let parts = matrix.transform.as_ref().map(|t| t.pack(&self.parameters)).transpose()?;
            packed.linear_parts.extend(parts.map(|parts| (name.clone(), parts)));
        }
        Ok(packed)
    }

    /// The values of a parameter in f32, on the host.
    fn values(&self, index: usize) -> Result<Vec<f32>> {
        let value = self.device().read(&self.parameters.list[index].value)?;
        Ok(D::Number::to_f32s(&value).into_owned())
    }

    /// The codes and scales decode to exactly what the forward multiplied with.
    fn check_packed(&self, matrix: &Matrix<D>, packed: &QuantTensor, name: &str) -> Result<()> {
        let integer = self.arithmetic.integer_forward;
        match matrix.differing_row(packed, &self.parameters, integer)? {
            Some(row) => Err(Error::Parity {
                path: "the packed model".into(),
                place: format!("{name}: row {row}"),
            }),
            None => Ok(()),
        }
    }
}

/// What fits SmolLM2 of 135M (docs/lab).
const RATE: f64 = 2e-4;
/// A step of AdamW moves each weight by about the rate. As a part of the weights, and with what the
/// layers do together, which grows like the root of their number, that is to be no more than this.
/// The weights of Qwen2.5 of 0.5B are a tenth of SmolLM2's: at [`RATE`] it ended worse than rounding
/// left it (docs/lab).
const PART_OF_WEIGHTS: f64 = 1.0 / 160.0;

/// The peak learning rate where none was asked for: for linears of so many layers whose weights have
/// this root mean square.
fn default_rate(weights: f64, layers: usize) -> f64 {
    let most = PART_OF_WEIGHTS * weights / (layers.max(1) as f64).sqrt();
    if most > 0.0 { RATE.min(most) } else { RATE }
}

/// Of the parameters with these indices together; 0 without any.
fn root_mean_square<D: Device>(
    parameters: &Parameters<D>,
    indices: &[usize],
    device: &D,
) -> Result<f64> {
    let (mut squares, mut count) = (0.0, 0);
    for &index in indices {
        let values = device.read(&parameters.list[index].value)?;
        squares += values.iter().map(|x| x.to_f64() * x.to_f64()).sum::<f64>();
        count += values.len();
    }
    Ok((squares / count.max(1) as f64).sqrt())
}

/// The optimizer of a stage of `steps` steps with this peak learning rate.
fn optimizer<D: Device>(config: &TrainConfig, steps: u64, learning_rate: f64) -> Optimizer<D> {
    let group = |rate_multiplier, weight_decay| GroupConfig { rate_multiplier, weight_decay };
    Optimizer {
        rule: config.optimizer(),
        schedule: Schedule {
            steps,
            warmup: (config.warmup * steps as f64).round() as u64,
            learning_rate,
            min_ratio: config.min_ratio,
        },
        max_norm: config.max_norm,
        weights: group(1.0, config.weight_decay),
        weight_steps: group(config.weight_scale_multiplier, 0.0),
        activation_steps: group(config.activation_scale_multiplier, 0.0),
        norms: group(config.norm_multiplier, 0.0),
        ranges: group(config.weight_scale_multiplier, 0.0),
        low_rank: group(1.0, config.weight_decay),
        anchor: 0.0,
        state: State::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root mean square and layers of the demo model, SmolLM2-135M and Qwen2.5-0.5B.
    #[test]
    fn small_weights_get_a_small_rate() {
        assert_eq!([default_rate(0.0644, 4), default_rate(0.19, 30)], [RATE; 2]);
        let rate = default_rate(0.0164, 24);
        assert!((2.0e-5..2.2e-5).contains(&rate), "{rate}");
        assert_eq!(default_rate(0.0, 0), RATE, "no linear");
    }
}
