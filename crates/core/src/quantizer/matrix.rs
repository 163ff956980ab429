//! The weight side of the student, outside any graph: quantize once per optimizer step, sum dL/dWq
//! over micro-batches, run the quantizer's backward once (exact, since that backward is linear in
//! dL/dWq).

use crate::autograd::ops::Number;
use crate::autograd::ops::weight::Weight;
use crate::autograd::parameter::{Group, Parameters};
use crate::quantizer::low_rank::LowRankPart;
use crate::recipe::{GradientScale, RangeLearning, Recipe, StartRule, WeightSite};
use crate::solver::rtn::quantize_matrix;
use halfstep_formats::architecture::{Role, TensorSpec};
use halfstep_formats::{Tensor, TensorData};
use halfstep_kernels::math::ln_f64;
use halfstep_kernels::ops::linear::WeightPanels;
use halfstep_kernels::pack::PackedMatrix;
use halfstep_kernels::quant::affine::{Affine, ClipRange};
use halfstep_kernels::quant::calibrate::{ScaleRule, find_scales, quantize};
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::{IntGrid, Pool, Real, ScaleCodec, WeightQuantizer, room};
use std::sync::Arc;

/// How a matrix becomes what the forward uses. Places are those of parameters.
#[derive(Clone, Debug)]
pub enum WeightPart<T> {
    /// As it is.
    Float,
    /// LSQ on steps kept beside the weight; `step` is their place among the parameters, or the
    /// steps themselves when frozen.
    Stepped { quantizer: WeightQuantizer, steps: Steps, edge: EdgeRule, gradient_scale: f64 },
    /// Scales found anew from the weight every time by the codec's own rule (absmax); gradient
    /// straight through, since nothing is clipped.
    Ruled { quantizer: WeightQuantizer },
    /// LWC: clips shrink the range of a frozen weight.
    Clipped { quantizer: WeightQuantizer, range: ClipRange<T>, gamma: usize, beta: usize },
    /// Block-AP: weight, scales and zero points learn.
    Ranged { quantizer: WeightQuantizer, scales: usize, zero_points: usize },
    /// Frozen codes, no weight. Their scales learn (E2E-QP), or stay too.
    Coded { codes: Box<PackedMatrix>, scales: Option<usize> },
}

#[derive(Clone, Debug)]
pub enum Steps {
    Learned { place: usize },
    Frozen(Vec<f32>),
}

/// One matrix of the student: its place among the parameters, its shape, its quantizer, and what
/// stands beside it.
#[derive(Clone, Debug)]
pub struct Matrix<T> {
    pub place: usize,
    pub rows: usize,
    pub cols: usize,
    pub part: WeightPart<T>,
    pub low_rank: Option<LowRankPart>,
}

/// `<linear>.step` of `<linear>.weight`, and likewise for other parts.
pub fn part_name(weight: &str, part: &str) -> String {
    format!("{}.{part}", weight.trim_end_matches(".weight"))
}

impl<T: Number> Matrix<T> {
    /// Registers a weight that learns (and, if they learn, its steps) and finds the first steps.
    pub fn new(
        parameters: &mut Parameters<T>,
        pool: &Pool,
        spec: &TensorSpec,
        values: Vec<f32>,
        recipe: &Recipe,
    ) -> Self {
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let part = match spec.role {
            Role::Linear(_) => recipe.weights.map_or(WeightPart::Float, |site| {
                if site.ranges == RangeLearning::FollowWeights {
                    return WeightPart::Ruled { quantizer: site.quantizer };
                }
                let (steps, gradient_scale) = first_steps(parameters, pool, spec, &values, &site);
                WeightPart::Stepped {
                    quantizer: site.quantizer,
                    steps,
                    edge: site.edge,
                    gradient_scale,
                }
            }),
            Role::Embedding => recipe
                .embedding
                .map_or(WeightPart::Float, |quantizer| WeightPart::Ruled { quantizer }),
            _ => recipe.head.map_or(WeightPart::Float, |quantizer| WeightPart::Ruled { quantizer }),
        };
        let values = values.into_iter().map(<T as Real>::from_f32).collect();
        Self {
            place: parameters.add(&spec.name, Group::Weights, values),
            rows,
            cols,
            part,
            low_rank: None,
        }
    }

    /// A weight on an affine grid whose ranges learn; the weight itself if the ranges are steps and
    /// zero points.
    pub fn ranged(
        parameters: &mut Parameters<T>,
        pool: &Pool,
        spec: &TensorSpec,
        values: Vec<f32>,
        site: &WeightSite,
    ) -> Self {
        let (rows, cols, quantizer) = (spec.shape[0], spec.shape[1], site.quantizer);
        let mut add = |name: &str, values: Vec<T>| {
            parameters.add(&part_name(&spec.name, name), Group::Ranges, values)
        };
        if site.ranges == RangeLearning::Clip {
            let clips: Vec<T> = first_clips(pool, &values, (rows, cols), site)
                .into_iter()
                .map(<T as Real>::from_f64)
                .collect();
            let (gamma, beta) = (add("gamma", clips.clone()), add("beta", clips));
            let values: Vec<T> = T::from_f32s(values);
            let range = ClipRange::new(&values, cols, quantizer.partition);
            let place = parameters.add_frozen(&spec.name, Group::Weights, values, rows * cols);
            return Self {
                place,
                rows,
                cols,
                part: WeightPart::Clipped { quantizer, range, gamma, beta },
                low_rank: None,
            };
        }
        let (scales, zero_points) = find_scales(
            pool,
            &values,
            rows,
            cols,
            quantizer,
            site.start.rule().unwrap_or(ScaleRule::ErrorSearch),
        );
        let zero_points = add(
            "zero_point",
            zero_points.into_iter().map(|z| <T as Real>::from_f32(f32::from(z))).collect(),
        );
        let scales = parameters.add_relative(
            &part_name(&spec.name, "scale"),
            Group::Ranges,
            T::from_f32s(scales),
        );
        let place = parameters.add_relative(&spec.name, Group::Weights, T::from_f32s(values));
        Self {
            place,
            rows,
            cols,
            part: WeightPart::Ranged { quantizer, scales, zero_points },
            low_rank: None,
        }
    }

    /// A matrix of a quantized model: frozen codes, whose scales learn in the block linears, or a
    /// frozen weight.
    pub fn coded(
        parameters: &mut Parameters<T>,
        pool: &Pool,
        spec: &TensorSpec,
        tensor: &Tensor,
    ) -> Self {
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let TensorData::Packed(codes) = &tensor.data else {
            let place = parameters.add_frozen(
                &spec.name,
                Group::Weights,
                T::from_f32s(tensor.to_f32(pool)),
                0,
            );
            return Self { place, rows, cols, part: WeightPart::Float, low_rank: None };
        };
        let learned = matches!(spec.role, Role::Linear(_));
        let scales = learned.then(|| {
            parameters.add_relative(
                &part_name(&spec.name, "scale"),
                Group::Ranges,
                T::from_f32s(codes.scales.clone()),
            )
        });
        let place = parameters.add_frozen(
            &spec.name,
            Group::Weights,
            vec![],
            if learned { rows * cols } else { 0 },
        );
        Self {
            place,
            rows,
            cols,
            part: WeightPart::Coded { codes: Box::new(codes.clone()), scales },
            low_rank: None,
        }
    }

    /// The weight as the forward uses it: panels where the products are the packed runtime's,
    /// values otherwise.
    pub fn forward(&self, parameters: &Parameters<T>, pool: &Pool, integer: bool) -> Weight<T> {
        let w = &parameters.list[self.place].value;
        if let WeightPart::Coded { .. } = self.part {
            let packed = self.pack(parameters, pool).expect("codes are packed");
            return if integer {
                Weight::Panels(Arc::new(WeightPanels::new(pool, &packed)))
            } else {
                let mut y = room(packed.rows * packed.cols);
                packed.decode(pool, &mut y);
                Weight::values(T::from_f32s(y), self.cols)
            };
        }
        if integer && let Some((quantizer, scales, zero_points)) = self.scales(parameters, pool) {
            return Weight::Panels(Arc::new(WeightPanels::quantize(
                pool,
                &T::to_f32s(w),
                self.rows,
                self.cols,
                quantizer,
                &scales,
                &zero_points,
            )));
        }
        let values = match &self.part {
            WeightPart::Float | WeightPart::Coded { .. } => w.clone(),
            WeightPart::Stepped { quantizer, steps, .. } => {
                let stored = stored_steps(steps, parameters, quantizer.scale_codec);
                let mut y = room(w.len());
                lsq_forward(
                    pool,
                    w,
                    self.rows,
                    self.cols,
                    &stored,
                    quantizer.partition,
                    quantizer.grid,
                    &mut y,
                    None,
                );
                y
            }
            WeightPart::Ruled { .. } => {
                let mut y = room(w.len());
                self.pack(parameters, pool).expect("a ruled matrix packs").decode(pool, &mut y);
                T::from_f32s(y)
            }
            WeightPart::Clipped { quantizer, .. } | WeightPart::Ranged { quantizer, .. } => {
                let (scales, zero_points) = self.ranges(parameters).expect("an affine matrix");
                let mut y = room(w.len());
                self.affine(w, &scales, &zero_points, quantizer).forward(pool, &mut y);
                y
            }
        };
        Weight::values(values, self.cols)
    }

    fn affine<'a>(
        &self,
        w: &'a [T],
        scales: &'a [T],
        zero_points: &'a [T],
        quantizer: &WeightQuantizer,
    ) -> Affine<'a, T> {
        Affine {
            w,
            rows: self.rows,
            cols: self.cols,
            scales,
            zero_points,
            partition: quantizer.partition,
            grid: quantizer.grid,
        }
    }

    /// Scales as stored, and zero points, of an affine grid.
    fn ranges(&self, parameters: &Parameters<T>) -> Option<(Vec<T>, Vec<T>)> {
        let value = |place: usize| &parameters.list[place].value;
        match &self.part {
            WeightPart::Clipped { quantizer, range, gamma, beta } => Some(range.forward(
                value(*gamma),
                value(*beta),
                quantizer.grid,
                quantizer.scale_codec,
            )),
            WeightPart::Ranged { quantizer, scales, zero_points } => Some((
                value(*scales).iter().map(|&s| stored_scale(s, quantizer.scale_codec)).collect(),
                value(*zero_points).iter().map(|&z| stored_zero_point(z, quantizer.grid)).collect(),
            )),
            _ => None,
        }
    }

    /// Quantizer, scales as stored and zero points of this step; None for a float matrix.
    pub(crate) fn scales(
        &self,
        parameters: &Parameters<T>,
        pool: &Pool,
    ) -> Option<(WeightQuantizer, Vec<f32>, Vec<u8>)> {
        match &self.part {
            WeightPart::Float => None,
            WeightPart::Stepped { quantizer, steps, .. } => {
                let stored = stored_steps(steps, parameters, quantizer.scale_codec)
                    .into_iter()
                    .map(Real::to_f32)
                    .collect();
                Some((*quantizer, stored, vec![]))
            }
            WeightPart::Ruled { quantizer } => {
                let w = &parameters.list[self.place].value;
                let (scales, zero_points) = find_scales(
                    pool,
                    &T::to_f32s(w),
                    self.rows,
                    self.cols,
                    *quantizer,
                    ScaleRule::Absmax,
                );
                Some((*quantizer, scales, zero_points))
            }
            WeightPart::Clipped { quantizer, .. } | WeightPart::Ranged { quantizer, .. } => {
                let (scales, zero_points) = self.ranges(parameters)?;
                Some((
                    *quantizer,
                    scales.into_iter().map(Real::to_f32).collect(),
                    zero_points.into_iter().map(|z| Real::to_f32(z) as u8).collect(),
                ))
            }
            WeightPart::Coded { codes, scales } => {
                let learned = |place: usize| {
                    parameters.list[place]
                        .value
                        .iter()
                        .map(|&s| Real::to_f32(stored_scale(s, codes.quantizer.scale_codec)))
                        .collect()
                };
                Some((
                    codes.quantizer,
                    scales.map_or_else(|| codes.scales.clone(), learned),
                    codes.zero_points.clone(),
                ))
            }
        }
    }

    /// Turns the summed dL/dWq in the weight's sink into dL/dW, and puts the gradient of what
    /// stands beside the weight into its sinks.
    pub fn backward(&self, parameters: &Parameters<T>, pool: &Pool) {
        let weight = &parameters.list[self.place];
        let add = |place: usize, gradient: &[T]| parameters.list[place].sink.add_slice(gradient);
        if let Some(low_rank) = &self.low_rank {
            low_rank.backward(parameters);
        }
        match &self.part {
            WeightPart::Float | WeightPart::Ruled { .. } => {}
            WeightPart::Stepped { quantizer, steps, edge, gradient_scale } => {
                let stored = stored_steps(steps, parameters, quantizer.scale_codec);
                let (mut dw, mut ds) =
                    (room(weight.value.len()), vec![<T as Real>::ZERO; stored.len()]);
                weight.sink.with(|dwq| {
                    lsq_backward(
                        pool,
                        &weight.value,
                        self.rows,
                        self.cols,
                        &stored,
                        quantizer.partition,
                        quantizer.grid,
                        *edge,
                        dwq,
                        &mut dw,
                        &mut ds,
                    );
                    std::mem::swap(dwq, &mut dw);
                });
                if let Steps::Learned { place } = steps {
                    let g = <T as Real>::from_f64(*gradient_scale);
                    ds.iter_mut().for_each(|d| *d *= g);
                    add(*place, &ds);
                }
            }
            WeightPart::Clipped { quantizer, range, gamma, beta } => {
                let (ds, _) = self.range_gradients(parameters, pool, quantizer, &mut []);
                let [g, b] = [gamma, beta].map(|place| &parameters.list[*place].value);
                let (dgamma, dbeta) = range.backward(g, b, quantizer.grid, &ds);
                add(*gamma, &dgamma);
                add(*beta, &dbeta);
            }
            WeightPart::Ranged { quantizer, scales, zero_points } => {
                let mut dw = room(weight.value.len());
                let (ds, dz) = self.range_gradients(parameters, pool, quantizer, &mut dw);
                weight.sink.with(|dwq| std::mem::swap(dwq, &mut dw));
                add(*scales, &ds);
                add(*zero_points, &dz);
            }
            WeightPart::Coded { scales: None, .. } => {}
            WeightPart::Coded { codes, scales: Some(scales) } => {
                add(*scales, &weight.sink.with(|dwq| scale_gradient(codes, dwq)))
            }
        }
    }

    /// ds, dz and, if there is room for it, dw of an affine grid.
    fn range_gradients(
        &self,
        parameters: &Parameters<T>,
        pool: &Pool,
        quantizer: &WeightQuantizer,
        dw: &mut [T],
    ) -> (Vec<T>, Vec<T>) {
        let (weight, (scales, zero_points)) =
            (&parameters.list[self.place], self.ranges(parameters).expect("an affine matrix"));
        let (mut ds, mut dz) =
            (vec![<T as Real>::ZERO; scales.len()], vec![<T as Real>::ZERO; scales.len()]);
        weight.sink.with(|dwq| {
            self.affine(&weight.value, &scales, &zero_points, quantizer)
                .backward(pool, dwq, dw, &mut ds, &mut dz)
        });
        (ds, dz)
    }

    /// Codes and scales exactly as the forward used them; None for a float matrix.
    pub fn pack(&self, parameters: &Parameters<T>, pool: &Pool) -> Option<PackedMatrix> {
        let (quantizer, scales, zero_points) = self.scales(parameters, pool)?;
        if let WeightPart::Coded { codes, .. } = &self.part {
            return Some(PackedMatrix { scales, ..(**codes).clone() });
        }
        let w = T::to_f32s(&parameters.list[self.place].value);
        Some(quantize(pool, &w, self.rows, self.cols, quantizer, &scales, &zero_points))
    }
}

/// Where clips start by [`StartRule::Absmax`], and at most: the range shrinks to sigm(4) = 0.982 of
/// itself (authors' code of OmniQuant).
const OPEN_CLIP: f64 = 4.0;

/// Both clips of every group: open, or such that the range is the shrunken one of least squared
/// error.
fn first_clips(
    pool: &Pool,
    values: &[f32],
    (rows, cols): (usize, usize),
    site: &WeightSite,
) -> Vec<f64> {
    if site.start == StartRule::Absmax {
        return vec![OPEN_CLIP; site.quantizer.partition.scales(rows, cols)];
    }
    let scales = |rule| find_scales(pool, values, rows, cols, site.quantizer, rule).0;
    let shrink =
        |(best, widest): (f32, f32)| f64::from(best) / f64::from(widest).max(f64::MIN_POSITIVE);
    let logit = |share: f64| ln_f64(share / (1.0 - share));
    scales(ScaleRule::ErrorSearch)
        .into_iter()
        .zip(scales(ScaleRule::Absmax))
        .map(shrink)
        .map(
            |share| {
                if share > 0.0 && share < 1.0 { logit(share).min(OPEN_CLIP) } else { OPEN_CLIP }
            },
        )
        .collect()
}

/// A learned scale of an affine grid as stored, within the bounds of EfficientQAT's code.
fn stored_scale<T: Number>(scale: T, codec: ScaleCodec) -> T {
    codec.store_real(scale.maximum(<T as Real>::from_f64(1e-4)).minimum(<T as Real>::from_f64(1e4)))
}

/// A learned zero point as stored: one of the codes.
fn stored_zero_point<T: Number>(zero_point: T, grid: IntGrid) -> T {
    Real::round(
        zero_point.maximum(<T as Real>::ZERO).minimum(<T as Real>::from_f64(f64::from(grid.max()))),
    )
}

/// ds = sum over the group of dL/dWq (c - z).
fn scale_gradient<T: Number>(codes: &PackedMatrix, dwq: &[T]) -> Vec<T> {
    let units = PackedMatrix { scales: vec![1.0; codes.scales.len()], ..codes.clone() };
    let (mut row_units, mut ds) = (vec![0.0; codes.cols], vec![0.0f64; codes.scales.len()]);
    for (row, dwq) in dwq.chunks_exact(codes.cols).enumerate() {
        units.decode_row(row, &mut row_units);
        for (col, (g, u)) in dwq.iter().zip(&row_units).enumerate() {
            ds[codes.partition().scale_index(row, col, codes.cols)] +=
                Real::to_f64(*g) * f64::from(*u);
        }
    }
    ds.into_iter().map(<T as Real>::from_f64).collect()
}

/// First steps of a block linear by the recipe's rule, registered as a parameter if they learn; and
/// LSQ's gradient scale 1/sqrt(N p).
fn first_steps<T: Number>(
    parameters: &mut Parameters<T>,
    pool: &Pool,
    spec: &TensorSpec,
    values: &[f32],
    site: &WeightSite,
) -> (Steps, f64) {
    let (rows, cols, quantizer) = (spec.shape[0], spec.shape[1], site.quantizer);
    let packed = quantize_matrix(pool, values, rows, cols, quantizer, site.start);
    let scales: Vec<f32> =
        packed.scales.into_iter().map(|s| guard(s, quantizer.scale_codec)).collect();
    let shared = match site.gradient_scale {
        GradientScale::Layer => rows * cols,
        GradientScale::Step => rows * cols / scales.len(),
    };
    let gradient_scale = 1.0 / (shared as f64 * f64::from(quantizer.grid.max())).sqrt();
    let steps = if site.ranges == RangeLearning::Step {
        let place = parameters.add(
            &part_name(&spec.name, "step"),
            Group::WeightSteps,
            scales.into_iter().map(<T as Real>::from_f32).collect(),
        );
        Steps::Learned { place }
    } else {
        Steps::Frozen(scales)
    };
    (steps, gradient_scale)
}

/// Smallest magnitude of a learned step: f16 keeps all its mantissa bits above 2^-14; f32 only has
/// to stay away from 0.
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
pub fn guard_steps<T: Number>(
    parameters: &mut Parameters<T>,
    matrices: &[Matrix<T>],
    before: &[Vec<bool>],
) {
    for (matrix, negative) in matrices.iter().zip(before) {
        if let WeightPart::Stepped { quantizer, steps: Steps::Learned { place }, .. } = &matrix.part
        {
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
        Steps::Frozen(steps) => {
            steps.iter().map(|&s| <T as Real>::from_f32(codec.store(s))).collect()
        }
        Steps::Learned { place } => {
            let steps = &parameters.list[*place].value;
            match codec {
                ScaleCodec::F32 => steps.clone(),
                ScaleCodec::F16 => steps
                    .iter()
                    .map(|&s| <T as Real>::from_f32(codec.store(Real::to_f32(s))))
                    .collect(),
            }
        }
    }
}
