//! One matrix of the student, outside any graph: quantized once per optimizer step, dL/dWq summed
//! over micro-batches, the quantizer's backward run once (exact, since that backward is linear in
//! dL/dWq).

use super::builder::{Beginning, Builder};
use super::low_rank::LowRankPart;
use super::range::{self, Range, RangeGradients, Ranges};
use super::rounding::{self, MatrixView, Rounding};
use super::site::WeightSite;
use crate::Result;
use crate::autograd::ops::Sink;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, DeviceBuffer, Number};
use halfstep_formats::architecture::{Role, TensorSpec};
use halfstep_formats::{LowRank, Tensor, TensorData};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{QuantSpec, Real, uninit_vec};
use std::sync::Arc;

/// The quantized part of a matrix; a matrix without one stays in floating point.
#[derive(Clone, Debug)]
struct Quantized<D: Device> {
    quantizer: QuantSpec,
    range: Arc<dyn Range<D>>,
    rounding: Arc<dyn Rounding<D>>,
}

/// One matrix of the student: its index among the parameters, its shape, its quantizer, and what is
/// added to its output.
#[derive(Clone, Debug)]
pub struct Matrix<D: Device> {
    /// Index of the weight among the parameters.
    pub(crate) index: usize,
    pub rows: usize,
    pub cols: usize,
    quantized: Option<Quantized<D>>,
    pub(crate) low_rank: Option<LowRankPart>,
}

/// What a matrix begins from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
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

impl<D: Device> Matrix<D> {
    /// Whether it has a quantizer; without one it stays in floating point.
    pub(crate) fn is_quantized(&self) -> bool {
        self.quantized.is_some()
    }

    /// Registers a matrix under `site` (None: it stays in floating point); `number` tells the
    /// matrices of a model apart, `seed` the runs.
    ///
    /// Codes of an earlier stage stay as they are unless the stage trains weights; then the values
    /// of the codes are the weights that it begins with.
    pub(crate) fn new(
        builder: &mut Builder<D>,
        spec: &TensorSpec,
        site: Option<&WeightSite>,
        source: Source,
        seed: u64,
        number: u64,
    ) -> Result<Self> {
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let previous = match (source, &source.tensor().data) {
            (Source::Previous(..), TensorData::Packed(packed)) => Some(packed),
            _ => None,
        };
        let (index, quantized) = match (site, previous) {
            (Some(_), Some(codes)) if !builder.trains.weights => coded(builder, spec, codes)?,
            (Some(site), previous) => {
                let values = source.tensor().to_f32(builder.pool());
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
                pipeline(builder, &beginning, site)?
            }
            (None, _) => {
                let values = D::Number::from_f32s(source.tensor().to_f32(builder.pool()));
                let learns = builder.trains.weights;
                (builder.add(&spec.name, Group::Weights, values, learns)?, None)
            }
        };
        let low_rank = match (source, site.and_then(|site| site.low_rank)) {
            (Source::Previous(_, Some(stored)), _) => {
                Some(LowRankPart::stored(builder, &spec.name, stored)?)
            }
            (_, Some(config)) => Some(LowRankPart::new(builder, spec, config, seed, number)?),
            _ => None,
        };
        Ok(Self { index, rows, cols, quantized, low_rank })
    }

    fn step<'a>(&self, quantizer: QuantSpec, parameters: &'a Parameters<D>) -> MatrixView<'a, D> {
        let w = &parameters.list[self.index].value;
        MatrixView { w, rows: self.rows, cols: self.cols, quantizer, parameters }
    }

    /// The parts of this step; None for a float matrix.
    #[allow(clippy::type_complexity)]
    fn parts<'a>(
        &self,
        parameters: &'a Parameters<D>,
    ) -> Result<Option<(&Quantized<D>, MatrixView<'a, D>, Ranges<D>)>> {
        let Some(quantized) = &self.quantized else { return Ok(None) };
        let step = self.step(quantized.quantizer, parameters);
        let ranges = quantized.range.ranges(parameters, step.w)?;
        Ok(Some((quantized, step, ranges)))
    }

    /// The weight as the forward uses it: codes where the products are the packed runtime's, values
    /// otherwise.
    pub(crate) fn forward(&self, parameters: &Parameters<D>, integer: bool) -> Result<D::Weight> {
        let device = &parameters.device;
        let Some((quantized, step, ranges)) = self.parts(parameters)? else {
            return device.weight(device.copy(&parameters.list[self.index].value)?, self.cols);
        };
        if integer && !quantized.rounding.is_soft() {
            return quantized.rounding.packed_weight(step, &ranges);
        }
        device.weight(quantized.rounding.forward(step, &ranges)?, self.cols)
    }

    /// Quantizer, scales as stored and zero points of this step; None for a float matrix.
    #[allow(clippy::type_complexity)]
    pub(crate) fn scales(
        &self,
        parameters: &Parameters<D>,
    ) -> Result<Option<(QuantSpec, Vec<f32>, Vec<u8>)>> {
        let Some((quantized, _, ranges)) = self.parts(parameters)? else { return Ok(None) };
        let (scales, zero_points) = ranges.packed(&parameters.device)?;
        Ok(Some((quantized.quantizer, scales, zero_points)))
    }

    /// Turns the summed dL/dWq in the weight's sink into dL/dW, and puts the gradients of everything
    /// else that learns into its sinks.
    pub(crate) fn backward(&self, parameters: &Parameters<D>) -> Result<()> {
        if let Some(low_rank) = &self.low_rank {
            low_rank.backward(parameters)?;
        }
        let Some(Quantized { range, rounding, .. }) = &self.quantized else { return Ok(()) };
        let weight = &parameters.list[self.index];
        // Asked before the ranges are found, which is a pass over the whole weight.
        if !range.learns() && !rounding.learns() && (weight.frozen || !range.clips()) {
            return Ok(());
        }
        let Some((_, step, ranges)) = self.parts(parameters)? else { return Ok(()) };
        let gradients: RangeGradients<D::Buffer> =
            weight.sink.with(|dwq| rounding.backward(step, &ranges, dwq, !weight.frozen))?;
        if range.learns() { range.backward(parameters, gradients) } else { Ok(()) }
    }

    /// Adds the gradients of what a rounding adds to the loss; returns that. `progress`: the share of
    /// the stage's steps that are done.
    pub(crate) fn regularise(&self, parameters: &Parameters<D>, progress: f64) -> Result<f64> {
        match &self.quantized {
            Some(q) => q.rounding.regularise(parameters, self.rows, progress),
            None => Ok(0.0),
        }
    }

    /// Chooses a code for every value, where the forward used values between two.
    pub(crate) fn settle(&self, parameters: &mut Parameters<D>) -> Result<()> {
        match &self.quantized {
            Some(quantized) => quantized.rounding.settle(parameters),
            None => Ok(()),
        }
    }

    /// Codes and scales exactly as the forward used them; None for a float matrix.
    pub(crate) fn pack(&self, parameters: &Parameters<D>) -> Result<Option<QuantTensor>> {
        let Some((quantized, step, ranges)) = self.parts(parameters)? else { return Ok(None) };
        quantized.rounding.pack(step, &ranges).map(Some)
    }

    /// Whether a code follows from the weight, so that weights outside the grid can be counted.
    pub(crate) fn follows_weights(&self) -> bool {
        self.quantized.as_ref().is_some_and(|quantized| quantized.rounding.follows_weights())
    }

    /// Where the gradient of the weight as the forward used it goes; None if nothing learns from it.
    pub(crate) fn sink(&self, parameters: &Parameters<D>) -> Option<Sink<D>> {
        let weight = &parameters.list[self.index];
        let wanted = !weight.frozen || weight.sink.with(|gradient| !gradient.is_empty());
        wanted.then(|| weight.sink.clone())
    }

    /// The learned scales that an update must leave on their side of 0, as they are; None if there
    /// are none.
    pub(crate) fn signed_scales(&self, parameters: &Parameters<D>) -> Result<Option<D::Buffer>> {
        let signed = self.quantized.as_ref().and_then(|quantized| quantized.range.signed_scales());
        let copy = |(index, _): (usize, _)| parameters.device.copy(&parameters.list[index].value);
        signed.map(copy).transpose()
    }

    /// Moves scales that an update brought to 0 or beyond back to the side where they were
    /// `before`.
    pub(crate) fn guard(
        &self,
        parameters: &mut Parameters<D>,
        before: Option<&D::Buffer>,
    ) -> Result<()> {
        let signed = self.quantized.as_ref().and_then(|quantized| quantized.range.signed_scales());
        let Some(((index, codec), before)) = signed.zip(before) else { return Ok(()) };
        let Parameters { device, list, .. } = parameters;
        device.keep_scale_signs(&mut list[index].value, before, codec.smallest())
    }

    /// The first row whose packed values are not the ones that the forward multiplied with.
    pub(crate) fn differing_row(
        &self,
        packed: &QuantTensor,
        parameters: &Parameters<D>,
        integer: bool,
    ) -> Result<Option<usize>> {
        let device = &parameters.device;
        let mut decoded = uninit_vec(self.rows * self.cols);
        packed.decode(device.pool(), &mut decoded);
        let (used, rows) =
            (self.forward(parameters, integer)?, CHECKED_AT_ONCE.div_ceil(self.cols));
        for first in (0..self.rows).step_by(rows) {
            let numbers: Vec<u32> =
                (first..self.rows.min(first + rows)).map(|r| r as u32).collect();
            let used = device.embedding(&used, &numbers)?;
            let (used, decoded) = (device.read(&used)?, &decoded[first * self.cols..]);
            if let Some(at) = used.iter().zip(decoded).position(|(&u, d)| Real::to_f32(u) != *d) {
                return Ok(Some(first + at / self.cols));
            }
        }
        Ok(None)
    }
}

/// Values of a weight that are compared at once.
const CHECKED_AT_ONCE: usize = 1 << 20;

/// Codes of an earlier stage that stay; the scales of a linear learn where the stage trains scales.
fn coded<D: Device>(
    builder: &mut Builder<D>,
    spec: &TensorSpec,
    codes: &QuantTensor,
) -> Result<(usize, Option<Quantized<D>>)> {
    let learns = builder.trains.scales && matches!(spec.role, Role::Linear(_));
    let range = range::stored::Stored::register(builder, &spec.name, codes, learns)?;
    let sink = if learns { codes.rows * codes.cols } else { 0 };
    let index = builder.parameters.add_frozen(&spec.name, Group::Weights, vec![], sink)?;
    let rounding = rounding::stored::Stored(codes.clone());
    let (range, rounding) = (Arc::new(range), Arc::new(rounding));
    Ok((index, Some(Quantized { quantizer: codes.spec, range, rounding })))
}

/// A weight under the parts that its site names.
fn pipeline<D: Device>(
    builder: &mut Builder<D>,
    beginning: &Beginning,
    site: &WeightSite,
) -> Result<(usize, Option<Quantized<D>>)> {
    let range = site.range.register(builder, beginning)?;
    let may_learn =
        site.range.traits().weights_may_learn && site.rounding.traits().weights_may_learn;
    let values = D::Number::from_f32s(beginning.values.to_vec());
    let w = builder.parameters.device.upload(values)?;
    let ranges = range.ranges(builder.parameters, &w)?;
    let rounding = site.rounding.register(builder, beginning, &ranges)?;
    drop(w);
    let values = D::Number::from_f32s(beginning.values.to_vec());
    let index = if builder.trains.weights && may_learn {
        builder.add(beginning.name, Group::Weights, values, true)?
    } else {
        // Range and rounding of a frozen weight learn from the gradient in its sink.
        let sink = if range.learns() || rounding.learns() { values.len() } else { 0 };
        builder.parameters.add_frozen(beginning.name, Group::Weights, values, sink)?
    };
    Ok((index, Some(Quantized { quantizer: site.spec, range, rounding })))
}
