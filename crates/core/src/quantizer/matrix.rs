//! One matrix of the student, outside any graph: quantized once per optimizer step, dL/dWq summed
//! over micro-batches, the quantizer's backward run once (exact, since that backward is linear in
//! dL/dWq).

use super::builder::{Beginning, Builder, Trains};
use super::low_rank::{FirstFactors, LowRank};
use super::range::{self, Range, RangeGradients, Ranges};
use super::rounding::{self, MatrixView, Rounding};
use super::site::WeightSite;
use super::transform::{self, Transform};
use crate::autograd::ops::Sink;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, DeviceBuffer, Number};
use crate::{Error, Result};
use halfstep_formats::architecture::{Role, TensorSpec};
use halfstep_formats::{LinearParts, LowRank as StoredLowRank, Model, Tensor, TensorData};
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
    /// What weight and input go through.
    pub(crate) transform: Option<Arc<dyn Transform<D>>>,
    /// The factors that are added.
    pub(crate) low_rank: Option<Arc<dyn LowRank<D>>>,
}

/// What a matrix begins from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The model that is quantized.
    Original(&'a Tensor),
    /// What an earlier stage stored.
    Previous(Previous<'a>),
}

/// What an earlier stage stored of a weight.
#[derive(Clone, Copy)]
pub(crate) struct Previous<'a> {
    /// Its values, and where they were packed its codes.
    pub tensor: &'a Tensor,
    pub low_rank: Option<&'a StoredLowRank>,
    pub parts: Option<&'a LinearParts>,
}

impl<'a> Previous<'a> {
    /// The weight of this name.
    ///
    /// Errors: `Internal`, the model has none.
    pub(crate) fn of(model: &'a Model, name: &str) -> Result<Self> {
        let tensor = model.tensors.get(name).ok_or_else(|| Error::Internal {
            reason: format!("an earlier stage stored no {name}"),
        })?;
        let (low_rank, parts) = (model.low_rank.get(name), model.linear_parts.get(name));
        Ok(Self { tensor, low_rank, parts })
    }
}

impl<'a> Source<'a> {
    fn tensor(self) -> &'a Tensor {
        match self {
            Source::Original(tensor) | Source::Previous(Previous { tensor, .. }) => tensor,
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
        let transform = match (site.and_then(|site| site.transform), source) {
            (Some(config), Source::Original(_)) => Some((config, config.first(spec))),
            (Some(config), Source::Previous(previous)) => {
                let stored = previous.parts.cloned();
                Some((config, stored.unwrap_or_else(|| config.first(spec))))
            }
            (None, _) => None,
        };
        let changes = builder.trains.weights || changes_weights(builder.trains, site);
        let (index, quantized) = match (site, previous) {
            (Some(_), Some(codes)) if !changes => coded(builder, spec, codes)?,
            (Some(site), previous) => {
                let mut values = source.tensor().to_f32(builder.pool());
                if let (Some((_, parts)), Source::Original(_)) = (&transform, source) {
                    values = transform::transformed(builder.pool(), parts, values, cols)?;
                }
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
        let transform = match transform {
            Some((config, parts)) => Some(config.register(builder, spec, parts)?),
            None => None,
        };
        let config = site.and_then(|site| site.low_rank);
        let stored = match source {
            Source::Previous(previous) => previous.low_rank,
            Source::Original(_) => None,
        };
        let low_rank = match config.map(|config| config.position).or(stored.map(|_| <_>::default()))
        {
            Some(position) => {
                let first = FirstFactors { spec, config, stored, seed, number };
                Some(position.register(builder, &first)?)
            }
            None => None,
        };
        Ok(Self { index, rows, cols, quantized, transform, low_rank })
    }

    /// The weight that is quantized; None: the registered one as it is.
    fn changed(&self, parameters: &Parameters<D>) -> Result<Option<D::Buffer>> {
        let w = &parameters.list[self.index].value;
        // Codes that stay have no values.
        if w.is_empty() {
            return Ok(None);
        }
        let transformed = match &self.transform {
            Some(transform) => transform.forward(parameters, w)?,
            None => None,
        };
        let Some(low_rank) = &self.low_rank else { return Ok(transformed) };
        let added = low_rank.inside(parameters, transformed.as_ref().unwrap_or(w))?;
        Ok(added.or(transformed))
    }

    /// Whether something that learns reads the gradient of the weight in addition to it.
    fn learns_by_weight(&self) -> bool {
        self.transform.as_ref().is_some_and(|transform| transform.learns())
            || self.low_rank.as_ref().is_some_and(|low_rank| low_rank.learns_by_weight())
    }

    fn step<'a>(
        &self,
        quantizer: QuantSpec,
        parameters: &'a Parameters<D>,
        changed: Option<&'a D::Buffer>,
    ) -> MatrixView<'a, D> {
        let w = changed.unwrap_or(&parameters.list[self.index].value);
        MatrixView { w, rows: self.rows, cols: self.cols, quantizer, parameters }
    }

    /// The parts of this step, in which the weight that is quantized is `changed`; None for a float
    /// matrix.
    #[allow(clippy::type_complexity)]
    fn parts<'a>(
        &self,
        parameters: &'a Parameters<D>,
        changed: &'a Option<D::Buffer>,
    ) -> Result<Option<(&Quantized<D>, MatrixView<'a, D>, Ranges<D>)>> {
        let Some(quantized) = &self.quantized else { return Ok(None) };
        let step = self.step(quantized.quantizer, parameters, changed.as_ref());
        let ranges = quantized.range.ranges(parameters, step.w)?;
        Ok(Some((quantized, step, ranges)))
    }

    /// The weight as the forward uses it: codes where the products are the packed runtime's, values
    /// otherwise.
    pub(crate) fn forward(&self, parameters: &Parameters<D>, integer: bool) -> Result<D::Weight> {
        let (device, changed) = (&parameters.device, self.changed(parameters)?);
        let Some((quantized, step, ranges)) = self.parts(parameters, &changed)? else {
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
        let changed = self.changed(parameters)?;
        let Some((quantized, _, ranges)) = self.parts(parameters, &changed)? else {
            return Ok(None);
        };
        let (scales, zero_points) = ranges.packed(&parameters.device)?;
        Ok(Some((quantized.quantizer, scales, zero_points)))
    }

    /// Turns the summed dL/dWq in the weight's sink into dL/dW, and puts the gradients of everything
    /// else that learns into its sinks.
    pub(crate) fn backward(&self, parameters: &Parameters<D>) -> Result<()> {
        if let Some(low_rank) = &self.low_rank {
            low_rank.outside_backward(parameters)?;
        }
        let Some(Quantized { range, rounding, .. }) = &self.quantized else { return Ok(()) };
        let weight = &parameters.list[self.index];
        // Asked before the ranges are found, which is a pass over the whole weight.
        let by_weight = self.learns_by_weight();
        let learns = !weight.frozen || by_weight;
        if range.learns() || rounding.learns() || (learns && range.clips()) {
            let changed = self.changed(parameters)?;
            let Some((_, step, ranges)) = self.parts(parameters, &changed)? else { return Ok(()) };
            let gradients: RangeGradients<D::Buffer> =
                weight.sink.with(|dwq| rounding.backward(step, &ranges, dwq, learns))?;
            if range.learns() {
                range.backward(parameters, gradients)?;
            }
        }
        if learns && (self.transform.is_some() || by_weight) {
            weight.sink.with(|du| self.changed_backward(parameters, du))?;
        }
        Ok(())
    }

    /// From the gradient of the weight that is quantized to that of the registered one, in its place,
    /// and to those of transform and factors, in their sinks.
    fn changed_backward(&self, parameters: &Parameters<D>, du: &mut D::Buffer) -> Result<()> {
        if let Some(low_rank) = &self.low_rank {
            low_rank.inside_backward(parameters, du)?;
        }
        match &self.transform {
            Some(transform) => {
                transform.backward(parameters, &parameters.list[self.index].value, du)
            }
            None => Ok(()),
        }
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
        let changed = self.changed(parameters)?;
        let Some((quantized, step, ranges)) = self.parts(parameters, &changed)? else {
            return Ok(None);
        };
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

/// Whether the stage changes the weight that is quantized by parts of the site, even where the weight
/// itself is frozen.
fn changes_weights(trains: Trains, site: Option<&WeightSite>) -> bool {
    let Some(site) = site else { return false };
    let by_factors = site.low_rank.is_some_and(|l| l.position.traits().changes_weight);
    let by_transform = site.transform.is_some_and(|transform| transform.traits().learns);
    trains.low_rank && by_factors || trains.transforms && by_transform
}

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
    let shapes = changes_weights(builder.trains, Some(site));
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
        let sink = if range.learns() || rounding.learns() || shapes { values.len() } else { 0 };
        builder.parameters.add_frozen(beginning.name, Group::Weights, values, sink)?
    };
    Ok((index, Some(Quantized { quantizer: site.spec, range, rounding })))
}
