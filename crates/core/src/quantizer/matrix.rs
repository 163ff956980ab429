//! One matrix of the student, outside any graph: quantized once per optimizer step, dL/dWq summed
//! over micro-batches, the quantizer's backward run once (exact, since that backward is linear in
//! dL/dWq).

use super::builder::{Beginning, Builder};
use super::low_rank::LowRankPart;
use super::range::{self, Range, Ranges};
use super::rounding::{self, MatrixView, Rounding};
use super::site::WeightSite;
use crate::autograd::ops::weight::Weight;
use crate::autograd::ops::{Number, Sink};
use crate::autograd::parameter::{Group, Parameters};
use halfstep_formats::architecture::{Role, TensorSpec};
use halfstep_formats::{LowRank, Tensor, TensorData};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Pool, QuantSpec, Real, uninit_vec};
use std::sync::Arc;

/// The quantized part of a matrix: `None` of it is a float matrix.
#[derive(Clone, Debug)]
struct Quantized<T> {
    quantizer: QuantSpec,
    range: Arc<dyn Range<T>>,
    rounding: Arc<dyn Rounding<T>>,
}

/// One matrix of the student: its index among the parameters, its shape, its quantizer, and what is
/// added beside it.
#[derive(Clone, Debug)]
pub struct Matrix<T> {
    /// Of the weight among the parameters.
    pub index: usize,
    pub rows: usize,
    pub cols: usize,
    quantized: Option<Quantized<T>>,
    pub low_rank: Option<LowRankPart>,
}

/// Where a matrix begins.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// The model that is quantized.
    Original(&'a Tensor),
    /// What an earlier stage stored: its values, and where they were packed its codes.
    Previous(&'a Tensor, Option<&'a LowRank>),
}

impl<'a> Source<'a> {
    fn tensor(self) -> &'a Tensor {
        match self {
            Source::Original(tensor) | Source::Previous(tensor, _) => tensor,
        }
    }
}

impl<T: Number> Matrix<T> {
    /// Registers a matrix under `site` (None: it stays in floating point); `number` tells the
    /// matrices of a model apart, `seed` the runs.
    ///
    /// Codes of an earlier stage stay as they are unless the stage trains weights; then the values
    /// of the codes are the weights that it begins with.
    pub fn new(
        builder: &mut Builder<T>,
        spec: &TensorSpec,
        site: Option<&WeightSite>,
        source: Source,
        seed: u64,
        number: u64,
    ) -> Self {
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let previous = match (source, &source.tensor().data) {
            (Source::Previous(..), TensorData::Packed(packed)) => Some(packed),
            _ => None,
        };
        let (index, quantized) = match (site, previous) {
            (Some(_), Some(codes)) if !builder.trains.weights => coded(builder, spec, codes),
            (Some(site), previous) => {
                let values = source.tensor().to_f32(builder.pool);
                let beginning = Beginning {
                    name: &spec.name,
                    rows,
                    cols,
                    values: &values,
                    spec: site.spec,
                    seed,
                    number,
                    observer: site.observer,
                    edge: site.edge,
                    gradient_scale: site.gradient_scale,
                    previous,
                };
                pipeline(builder, &beginning, site)
            }
            (None, _) => {
                let values = T::from_f32s(source.tensor().to_f32(builder.pool));
                let learns = builder.trains.weights;
                (builder.add(&spec.name, Group::Weights, values, learns), None)
            }
        };
        let low_rank = match (source, site.and_then(|site| site.low_rank)) {
            (Source::Previous(_, Some(stored)), _) => {
                Some(LowRankPart::stored(builder, &spec.name, stored))
            }
            (_, Some(config)) => Some(LowRankPart::new(builder, spec, config, seed, number)),
            _ => None,
        };
        Self { index, rows, cols, quantized, low_rank }
    }

    fn step<'a>(
        &self,
        quantizer: QuantSpec,
        parameters: &'a Parameters<T>,
        pool: &'a Pool,
    ) -> MatrixView<'a, T> {
        let w = &parameters.list[self.index].value;
        MatrixView { w, rows: self.rows, cols: self.cols, quantizer, parameters, pool }
    }

    /// The parts of this step; None for a float matrix.
    fn parts<'a>(
        &self,
        parameters: &'a Parameters<T>,
        pool: &'a Pool,
    ) -> Option<(&Quantized<T>, MatrixView<'a, T>, Ranges<T>)> {
        let quantized = self.quantized.as_ref()?;
        let step = self.step(quantized.quantizer, parameters, pool);
        let ranges = quantized.range.ranges(parameters, pool, step.w);
        Some((quantized, step, ranges))
    }

    /// The weight as the forward uses it: panels where the products are the packed runtime's,
    /// values otherwise.
    pub fn forward(&self, parameters: &Parameters<T>, pool: &Pool, integer: bool) -> Weight<T> {
        let Some((quantized, step, ranges)) = self.parts(parameters, pool) else {
            return Weight::values(parameters.list[self.index].value.clone(), self.cols);
        };
        if integer && !quantized.rounding.is_soft() {
            return Weight::Panels(Arc::new(quantized.rounding.panels(step, &ranges)));
        }
        Weight::values(quantized.rounding.forward(step, &ranges), self.cols)
    }

    /// Quantizer, scales as stored and zero points of this step; None for a float matrix.
    pub(crate) fn scales(
        &self,
        parameters: &Parameters<T>,
        pool: &Pool,
    ) -> Option<(QuantSpec, Vec<f32>, Vec<u8>)> {
        let (quantized, _, ranges) = self.parts(parameters, pool)?;
        let (scales, zero_points) = ranges.packed();
        Some((quantized.quantizer, scales, zero_points))
    }

    /// Turns the summed dL/dWq in the weight's sink into dL/dW, and puts the gradients of everything
    /// else that learns into its sinks.
    pub fn backward(&self, parameters: &Parameters<T>, pool: &Pool) {
        if let Some(low_rank) = &self.low_rank {
            low_rank.backward(parameters);
        }
        let Some(Quantized { range, rounding, .. }) = &self.quantized else { return };
        let weight = &parameters.list[self.index];
        // Asked before the ranges are found, which is a pass over the whole weight.
        if !range.learns() && !rounding.learns() && (weight.frozen || !range.clips()) {
            return;
        }
        let Some((_, step, ranges)) = self.parts(parameters, pool) else { return };
        let gradients =
            weight.sink.with(|dwq| rounding.backward(step, &ranges, dwq, !weight.frozen));
        if range.learns() {
            range.backward(parameters, &gradients);
        }
    }

    /// Adds the gradients of what a rounding adds to the loss; returns that. `progress`: the share of
    /// the stage's steps that are done.
    pub fn regularise(&self, parameters: &Parameters<T>, progress: f64) -> f64 {
        self.quantized
            .as_ref()
            .map_or(0.0, |q| q.rounding.regularise(parameters, self.rows, progress))
    }

    /// Chooses a code for every value, where the forward used values between two.
    pub fn settle(&self, parameters: &mut Parameters<T>) {
        if let Some(quantized) = &self.quantized {
            quantized.rounding.settle(parameters);
        }
    }

    /// Codes and scales exactly as the forward used them; None for a float matrix.
    pub fn pack(&self, parameters: &Parameters<T>, pool: &Pool) -> Option<QuantTensor> {
        let (quantized, step, ranges) = self.parts(parameters, pool)?;
        Some(quantized.rounding.pack(step, &ranges))
    }

    /// Whether a code follows from the weight, so that weights outside the grid can be counted.
    pub fn follows_weights(&self) -> bool {
        self.quantized.as_ref().is_some_and(|quantized| quantized.rounding.follows_weights())
    }

    /// Where the gradient of the weight as the forward used it goes; None if nothing learns from it.
    pub fn sink(&self, parameters: &Parameters<T>) -> Option<Sink<T>> {
        let weight = &parameters.list[self.index];
        let wanted = !weight.frozen || weight.sink.with(|gradient| !gradient.is_empty());
        wanted.then(|| weight.sink.clone())
    }

    /// For each learned scale, whether it is negative.
    pub fn signs(&self, parameters: &Parameters<T>) -> Vec<bool> {
        self.quantized.as_ref().map_or_else(Vec::new, |quantized| quantized.range.signs(parameters))
    }

    /// Moves what an update made illegal back to the nearest legal value.
    pub fn guard(&self, parameters: &mut Parameters<T>, signs: &[bool]) {
        if let Some(quantized) = &self.quantized {
            quantized.range.guard(parameters, signs);
        }
    }

    /// The first row whose packed values are not the ones that the forward multiplied with.
    pub fn differing_row(
        &self,
        packed: &QuantTensor,
        parameters: &Parameters<T>,
        pool: &Pool,
        integer: bool,
    ) -> Option<usize> {
        let mut decoded = uninit_vec(self.rows * self.cols);
        packed.decode(pool, &mut decoded);
        let used = self.forward(parameters, pool, integer);
        let differs = |row: &usize| {
            let row_values = used.row(*row);
            row_values.iter().zip(&decoded[row * self.cols..]).any(|(&u, d)| Real::to_f32(u) != *d)
        };
        (0..self.rows).find(differs)
    }
}

/// Codes of an earlier stage that stay; the scales of a linear learn where the stage trains scales.
fn coded<T: Number>(
    builder: &mut Builder<T>,
    spec: &TensorSpec,
    codes: &QuantTensor,
) -> (usize, Option<Quantized<T>>) {
    let learns = builder.trains.scales && matches!(spec.role, Role::Linear(_));
    let range = range::stored::Stored::register(builder, &spec.name, codes, learns);
    let sink = if learns { codes.rows * codes.cols } else { 0 };
    let index = builder.parameters.add_frozen(&spec.name, Group::Weights, vec![], sink);
    let rounding = rounding::stored::Stored(codes.clone());
    let (range, rounding) = (Arc::new(range), Arc::new(rounding));
    (index, Some(Quantized { quantizer: codes.spec, range, rounding }))
}

/// A weight under the parts that its site names.
fn pipeline<T: Number>(
    builder: &mut Builder<T>,
    beginning: &Beginning,
    site: &WeightSite,
) -> (usize, Option<Quantized<T>>) {
    let range = site.range.register(builder, beginning);
    let values: Vec<T> = T::from_f32s(beginning.values.to_vec());
    let ranges = range.ranges(builder.parameters, builder.pool, &values);
    let rounding = site.rounding.register(builder, beginning, &ranges);
    let may_learn =
        site.range.traits().weights_may_learn && site.rounding.traits().weights_may_learn;
    let index = if builder.trains.weights && may_learn {
        builder.add(beginning.name, Group::Weights, values, true)
    } else {
        // Range and rounding of a frozen weight learn from the gradient in its sink.
        let sink = if range.learns() || rounding.learns() { values.len() } else { 0 };
        builder.parameters.add_frozen(beginning.name, Group::Weights, values, sink)
    };
    (index, Some(Quantized { quantizer: site.spec, range, rounding }))
}
