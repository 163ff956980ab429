//! Learned weight clipping (LWC of OmniQuant, 2023, arXiv 2308.13137). The weights are frozen.
//!
//! With zero points two numbers for each group shrink its range, `high' = sigm(gamma) high`, `low' =
//! sigm(beta) low`. Without, one does, `s = sigm(gamma) s0`, s0 the scale that clips nothing: the
//! entry of largest magnitude, with its sign, over the last code on its side.

use super::{Range, RangeGradients, RangeTraits, Ranges};
use crate::Result;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, Number};
use crate::quantizer::builder::{Beginning, Builder, part_name};
use halfstep_kernels::math::{exp_f64, ln_f64};
use halfstep_kernels::quant::affine::ClipRange;
use halfstep_kernels::quant::observer::{Observer, find_scales};
use halfstep_kernels::{Pool, QuantSpec, Real};
use std::borrow::Cow;
use std::sync::Arc;

pub(crate) const TRAITS: RangeTraits = RangeTraits {
    learns: true,
    weights_may_learn: false,
    reads_observer: true,
    reads_gradient_scale: false,
};

/// The formulas are computed on the host, over one or two numbers for each group.
#[derive(Debug)]
pub(super) struct Clip<T> {
    quantizer: QuantSpec,
    widest: Widest<T>,
    /// Indices of the clips among the parameters: gamma, and beta where there are zero points.
    clips: Vec<usize>,
    learns: bool,
}

/// The range of each group that clips nothing.
#[derive(Debug)]
enum Widest<T> {
    /// Minimum and maximum.
    Affine(ClipRange<T>),
    /// The scale.
    Symmetric(Vec<T>),
}

impl<T: Number> Clip<T> {
    pub(crate) fn register<D: Device<Number = T>>(
        builder: &mut Builder<D>,
        beginning: &Beginning,
    ) -> Result<Self> {
        let Beginning { values, cols, spec: quantizer, .. } = *beginning;
        let learns = builder.trains.scales;
        let affine = quantizer.has_zero_point();
        let widest_scales = widest_scales(builder.pool(), beginning);
        let first = first_clips(builder.pool(), beginning, &widest_scales).into_iter();
        let first: Vec<T> = first.map(<T as Real>::from_f64).collect();
        let parts: &[&str] = if affine { &["gamma", "beta"] } else { &["gamma"] };
        let add = |part: &&str| {
            let name = part_name(beginning.name, part);
            builder.add_absolute(&name, Group::Ranges, first.clone(), learns)
        };
        let clips = parts.iter().map(add).collect::<Result<_>>()?;
        let widest = if affine {
            let values: Vec<T> = T::from_f32s(values.to_vec());
            Widest::Affine(ClipRange::new(&values, cols, quantizer.granularity))
        } else {
            Widest::Symmetric(T::from_f32s(widest_scales))
        };
        Ok(Self { quantizer, widest, clips, learns })
    }

    fn clip<'a, D: Device<Number = T>>(
        &self,
        parameters: &'a Parameters<D>,
        number: usize,
    ) -> Result<Cow<'a, [T]>> {
        parameters.device.read(&parameters.list[self.clips[number]].value)
    }
}

/// sigm(x) and its derivative.
fn sigmoid<T: Real>(x: T) -> (f64, f64) {
    let share = 1.0 / (1.0 + exp_f64(-x.to_f64()));
    (share, share * (1.0 - share))
}

impl<D: Device> Range<D> for Clip<D::Number> {
    fn ranges(&self, parameters: &Parameters<D>, _w: &D::Buffer) -> Result<Ranges<D>> {
        let upload = |values| parameters.device.upload(values).map(Arc::new);
        let gamma = self.clip(parameters, 0)?;
        match &self.widest {
            Widest::Affine(widest) => {
                let beta = self.clip(parameters, 1)?;
                let (scales, zero_points) = widest.forward(&gamma, &beta, self.quantizer);
                Ok(Ranges { scales: upload(scales)?, zero_points: Some(upload(zero_points)?) })
            }
            Widest::Symmetric(widest) => {
                let scale = |(&g, &s): (&D::Number, &D::Number)| {
                    let share = <D::Number as Real>::from_f64(sigmoid(g).0);
                    self.quantizer.scale.store_real(share * s)
                };
                let scales = gamma.iter().zip(widest).map(scale).collect();
                Ok(Ranges { scales: upload(scales)?, zero_points: None })
            }
        }
    }

    fn learns(&self) -> bool {
        self.learns
    }

    fn backward(
        &self,
        parameters: &Parameters<D>,
        gradients: RangeGradients<D::Buffer>,
    ) -> Result<()> {
        let device = &parameters.device;
        let (gamma, ds) = (self.clip(parameters, 0)?, device.read(&gradients.scales)?);
        let add = |number: usize, gradient: Vec<D::Number>| {
            let sink = &parameters.list[self.clips[number]].sink;
            sink.add_buffer(device, device.upload(gradient)?)
        };
        match &self.widest {
            Widest::Affine(widest) => {
                let beta = self.clip(parameters, 1)?;
                let (dgamma, dbeta) = widest.backward(&gamma, &beta, self.quantizer, &ds);
                add(0, dgamma)?;
                add(1, dbeta)
            }
            Widest::Symmetric(widest) => {
                let slope = |((&g, &s), &ds): ((&D::Number, &D::Number), &D::Number)| {
                    <D::Number as Real>::from_f64(sigmoid(g).1) * s * ds
                };
                add(0, gamma.iter().zip(widest).zip(&*ds).map(slope).collect())
            }
        }
    }
}

/// Where clips start by [`Observer::Absmax`], and at most: the range shrinks to sigm(4) = 0.982 of
/// itself (authors' code of OmniQuant).
const OPEN_CLIP: f64 = 4.0;

/// The scales that clip nothing.
fn widest_scales(pool: &Pool, beginning: &Beginning) -> Vec<f32> {
    let Beginning { rows, cols, values, spec, .. } = *beginning;
    let signed = !spec.has_zero_point() && !spec.is_balanced();
    let rule = if signed { Observer::SignedAbsmax } else { Observer::Absmax };
    find_scales(pool, values, rows, cols, spec, rule).0
}

/// The clips of every group: open, or such that the range is the shrunken one of least squared
/// error.
fn first_clips(pool: &Pool, beginning: &Beginning, widest: &[f32]) -> Vec<f64> {
    let Beginning { rows, cols, values, spec, .. } = *beginning;
    if beginning.observer == Observer::Absmax {
        return vec![OPEN_CLIP; widest.len()];
    }
    let best = find_scales(pool, values, rows, cols, spec, Observer::ErrorSearch).0;
    let logit = |share: f64| ln_f64(share / (1.0 - share));
    // A widest scale of 0 is that of a group of zeros, which no clip changes.
    let share = |(&best, &widest): (&f32, &f32)| f64::from(best) / f64::from(widest);
    best.iter()
        .zip(widest)
        .map(share)
        .map(
            |share| {
                if share > 0.0 && share < 1.0 { logit(share).min(OPEN_CLIP) } else { OPEN_CLIP }
            },
        )
        .collect()
}
