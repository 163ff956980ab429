//! The weight side of the student, outside any graph: quantize once per optimizer step, sum dL/dWq over micro-batches, run the quantizer's backward once
//! (exact, since that backward is linear in dL/dWq).

use super::parameter::{Group, Parameters};
use crate::Result;
use crate::ops::Number;
use crate::ops::weight::Weight;
use crate::recipe::{GradientScale, Recipe, WeightSite};
use crate::rtn::quantize_matrix;
use halfstep_formats::architecture::{Architecture, EMBEDDING, FINAL_NORM, HEAD, Linear, Role, TensorSpec, attn_norm, ffn_norm};
use halfstep_kernels::ops::linear::WeightPanels;
use halfstep_kernels::pack::PackedMatrix;
use halfstep_kernels::quant::calibrate::{ScaleRule, find_scales, quantize};
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::{Pool, Real, ScaleCodec, WeightQuantizer, room};
use std::sync::Arc;

/// How a matrix becomes what the forward uses.
#[derive(Clone, Debug)]
pub enum WeightPart {
    /// As it is.
    Float,
    /// LSQ on steps kept beside the weight; `step` is their place among the parameters, or the steps themselves when frozen.
    Stepped { quantizer: WeightQuantizer, steps: Steps, edge: EdgeRule, gradient_scale: f64 },
    /// Scales found anew from the weight every time by the codec's own rule (absmax); gradient straight through, since nothing is clipped.
    Ruled { quantizer: WeightQuantizer },
}

#[derive(Clone, Debug)]
pub enum Steps {
    Learned { place: usize },
    Frozen(Vec<f32>),
}

/// One matrix of the student: its place among the parameters, its shape, its quantizer.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub place: usize,
    pub rows: usize,
    pub cols: usize,
    pub part: WeightPart,
}

/// `<linear>.step` of `<linear>.weight`.
pub fn step_name(weight: &str) -> String {
    format!("{}.step", weight.trim_end_matches(".weight"))
}

impl Matrix {
    /// Registers the weight (and, if they learn, its steps) and finds the first steps.
    pub fn new<T: Number>(parameters: &mut Parameters<T>, pool: &Pool, spec: &TensorSpec, values: Vec<f32>, recipe: &Recipe) -> Self {
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let part = match spec.role {
            Role::Linear(_) => recipe.weights.map_or(WeightPart::Float, |site| {
                let (steps, gradient_scale) = first_steps(parameters, pool, spec, &values, &site);
                WeightPart::Stepped { quantizer: site.quantizer, steps, edge: site.edge, gradient_scale }
            }),
            Role::Embedding => recipe.embedding.map_or(WeightPart::Float, |quantizer| WeightPart::Ruled { quantizer }),
            _ => recipe.head.map_or(WeightPart::Float, |quantizer| WeightPart::Ruled { quantizer }),
        };
        let values = values.into_iter().map(<T as Real>::from_f32).collect();
        Self { place: parameters.add(&spec.name, Group::Weights, values), rows, cols, part }
    }

    /// The weight as the forward uses it: panels where the products are the packed runtime's, values otherwise.
    pub fn forward<T: Number>(&self, parameters: &Parameters<T>, pool: &Pool, integer: bool) -> Weight<T> {
        let w = &parameters.list[self.place].value;
        if integer && let Some((quantizer, scales, zero_points)) = self.scales(parameters, pool) {
            return Weight::Panels(Arc::new(WeightPanels::quantize(pool, &T::to_f32s(w), self.rows, self.cols, quantizer, &scales, &zero_points)));
        }
        let values = match &self.part {
            WeightPart::Float => w.clone(),
            WeightPart::Stepped { quantizer, steps, .. } => {
                let stored = stored_steps(steps, parameters, quantizer.scale_codec);
                let mut y = room(w.len());
                lsq_forward(pool, w, self.rows, self.cols, &stored, quantizer.partition, quantizer.grid, &mut y, None);
                y
            }
            WeightPart::Ruled { .. } => {
                let mut y = room(w.len());
                self.pack(parameters, pool).expect("a ruled matrix packs").decode(pool, &mut y);
                T::from_f32s(y)
            }
        };
        Weight::values(values, self.cols)
    }

    /// Quantizer, scales as stored and zero points of this step; None for a float matrix.
    fn scales<T: Number>(&self, parameters: &Parameters<T>, pool: &Pool) -> Option<(WeightQuantizer, Vec<f32>, Vec<u8>)> {
        match &self.part {
            WeightPart::Float => None,
            WeightPart::Stepped { quantizer, steps, .. } => {
                let stored = stored_steps(steps, parameters, quantizer.scale_codec).into_iter().map(Real::to_f32).collect();
                Some((*quantizer, stored, vec![]))
            }
            WeightPart::Ruled { quantizer } => {
                let w = &parameters.list[self.place].value;
                let (scales, zero_points) = find_scales(pool, &T::to_f32s(w), self.rows, self.cols, *quantizer, ScaleRule::Absmax);
                Some((*quantizer, scales, zero_points))
            }
        }
    }

    /// Turns the summed dL/dWq in the weight's sink into dL/dW, and puts the steps' gradient into theirs.
    pub fn backward<T: Number>(&self, parameters: &Parameters<T>, pool: &Pool) {
        let WeightPart::Stepped { quantizer, steps, edge, gradient_scale } = &self.part else { return };
        let weight = &parameters.list[self.place];
        let stored = stored_steps(steps, parameters, quantizer.scale_codec);
        let (mut dw, mut ds) = (room(weight.value.len()), vec![<T as Real>::ZERO; stored.len()]);
        weight.sink.with(|dwq| {
            lsq_backward(pool, &weight.value, self.rows, self.cols, &stored, quantizer.partition, quantizer.grid, *edge, dwq, &mut dw, &mut ds);
            std::mem::swap(dwq, &mut dw);
        });
        if let Steps::Learned { place } = steps {
            let g = <T as Real>::from_f64(*gradient_scale);
            ds.iter_mut().for_each(|d| *d *= g);
            parameters.list[*place].sink.add_slice(&ds);
        }
    }

    /// Codes and scales exactly as the forward used them; None for a float matrix.
    pub fn pack<T: Number>(&self, parameters: &Parameters<T>, pool: &Pool) -> Option<PackedMatrix> {
        let (quantizer, scales, zero_points) = self.scales(parameters, pool)?;
        let w = T::to_f32s(&parameters.list[self.place].value);
        Some(quantize(pool, &w, self.rows, self.cols, quantizer, &scales, &zero_points))
    }
}

/// First steps of a block linear by the recipe's rule, registered as a parameter if they learn; and LSQ's gradient scale 1/sqrt(N p).
fn first_steps<T: Number>(parameters: &mut Parameters<T>, pool: &Pool, spec: &TensorSpec, values: &[f32], site: &WeightSite) -> (Steps, f64) {
    let (rows, cols, quantizer) = (spec.shape[0], spec.shape[1], site.quantizer);
    let packed = quantize_matrix(pool, values, rows, cols, quantizer, site.start);
    let scales: Vec<f32> = packed.scales.into_iter().map(|s| guard(s, quantizer.scale_codec)).collect();
    let shared = match site.gradient_scale {
        GradientScale::Layer => rows * cols,
        GradientScale::Step => rows * cols / scales.len(),
    };
    let gradient_scale = 1.0 / (shared as f64 * f64::from(quantizer.grid.max())).sqrt();
    let steps = if site.learn_steps {
        let place = parameters.add(&step_name(&spec.name), Group::WeightSteps, scales.into_iter().map(<T as Real>::from_f32).collect());
        Steps::Learned { place }
    } else {
        Steps::Frozen(scales)
    };
    (steps, gradient_scale)
}

/// Smallest magnitude of a learned step: f16 keeps all its mantissa bits above 2^-14; f32 only has to stay away from 0.
const fn smallest_step(codec: ScaleCodec) -> f32 {
    match codec {
        ScaleCodec::F16 => halfstep_kernels::quant::scale::MIN_F16_SCALE,
        ScaleCodec::F32 => 1e-10,
    }
}

fn guard(step: f32, codec: ScaleCodec) -> f32 {
    let least = smallest_step(codec);
    if step.abs() < least { least.copysign(step) } else { step }
}

/// Keeps every learned step away from 0 after an update; its sign never changes.
pub fn guard_steps<T: Number>(parameters: &mut Parameters<T>, matrices: &[Matrix], before: &[Vec<bool>]) {
    for (matrix, negative) in matrices.iter().zip(before) {
        if let WeightPart::Stepped { quantizer, steps: Steps::Learned { place }, .. } = &matrix.part {
            let least = <T as Real>::from_f32(smallest_step(quantizer.scale_codec));
            for (step, &negative) in parameters.list[*place].value.iter_mut().zip(negative) {
                let magnitude = if negative { -*step } else { *step };
                if magnitude < least {
                    *step = if negative { -least } else { least };
                }
            }
        }
    }
}

/// Steps as stored: what the forward, the backward and the file use.
fn stored_steps<T: Number>(steps: &Steps, parameters: &Parameters<T>, codec: ScaleCodec) -> Vec<T> {
    match steps {
        Steps::Frozen(steps) => steps.iter().map(|&s| <T as Real>::from_f32(codec.store(s))).collect(),
        Steps::Learned { place } => {
            let steps = &parameters.list[*place].value;
            match codec {
                ScaleCodec::F32 => steps.clone(),
                ScaleCodec::F16 => steps.iter().map(|&s| <T as Real>::from_f32(codec.store(Real::to_f32(s)))).collect(),
            }
        }
    }
}

/// Every weight of the model as one forward uses it.
pub struct Weights<T> {
    pub blocks: Vec<BlockWeights<T>>,
    pub embedding: Weight<T>,
    pub final_norm: Arc<Vec<T>>,
    pub head: Weight<T>,
}

pub struct BlockWeights<T> {
    pub attn_norm: Arc<Vec<T>>,
    pub ffn_norm: Arc<Vec<T>>,
    /// In the order of [`Linear::ALL`].
    pub linears: [Weight<T>; 7],
}

impl<T: Number> Weights<T> {
    /// Collects the tensors of an architecture by name.
    pub fn collect(
        architecture: &Architecture,
        mut norm: impl FnMut(&str) -> Result<Vec<T>>,
        mut matrix: impl FnMut(&str) -> Result<Weight<T>>,
    ) -> Result<Self> {
        let mut one = |name: &str| norm(name).map(Arc::new);
        let embedding = matrix(EMBEDDING)?;
        let mut blocks = Vec::with_capacity(architecture.layers);
        for layer in 0..architecture.layers {
            let mut linears = Vec::with_capacity(7);
            for linear in Linear::ALL {
                linears.push(matrix(&linear.weight_name(layer))?);
            }
            let linears = linears.try_into().unwrap_or_else(|_| unreachable!("seven linears"));
            blocks.push(BlockWeights { attn_norm: one(&attn_norm(layer))?, ffn_norm: one(&ffn_norm(layer))?, linears });
        }
        let head = if architecture.tied_head { embedding.clone() } else { matrix(HEAD)? };
        Ok(Self { blocks, embedding, final_norm: one(FINAL_NORM)?, head })
    }
}
