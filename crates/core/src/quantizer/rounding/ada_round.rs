//! AdaRound: Up or Down? Adaptive Rounding for Post-Training Quantization (2020, arXiv 2004.10568):
//! whether a weight is rounded down or up learns. The weights and their ranges are frozen.
//!
//!     h(V) = clip(1.2 sigm(V) - 0.1, 0, 1)        c = clip(floor(w / s) + h(V) + z, n, p)        Wq = s (c - z)
//!     start: h(V) = w / s - floor(w / s), as if nothing were rounded
//!     dV = G s [n <= floor(w / s) + h + z <= p] h'(V)
//!     regulariser lambda sum (1 - |2h - 1|^beta): off for the first fifth, then beta falls from 20 to 2
//!     end: c = clip(floor(w / s) + [h >= 1/2] + z, n, p)
//!
//! The paper weighs the regulariser by 0.01 against an error that is summed over output features;
//! ours is their mean, so lambda is 0.01 over the number of output features.

use super::{MatrixView, Rounding, RoundingTraits};
use crate::Result;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, DeviceBuffer, Number};
use crate::quantizer::builder::{Beginning, Builder, part_name};
use crate::quantizer::range::{RangeGradients, Ranges};
use halfstep_kernels::math::{exp_f64, ln_f64};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{QuantSpec, Real, dispatch};
use std::borrow::Cow;

pub(crate) const TRAITS: RoundingTraits =
    RoundingTraits { learns: true, weights_may_learn: false, ranges_may_learn: false };

const LAMBDA: f64 = 0.01;
/// Share of the steps without the regulariser.
const WARM_UP: f64 = 0.2;
/// Beta falls from the first to the last.
const BETAS: [f64; 2] = [20.0, 2.0];
/// A variable that is rounded down or up for good: h is exactly 0 or 1.
const SETTLED: f64 = 30.0;

/// The formulas are computed on the host.
#[derive(Debug)]
pub struct AdaRound {
    /// Index of V among the parameters.
    v: usize,
    learns: bool,
}

impl AdaRound {
    pub(crate) fn register<D: Device>(
        builder: &mut Builder<D>,
        beginning: &Beginning,
        ranges: &Ranges<D>,
    ) -> Result<Self> {
        let cells = Cells::new(&builder.parameters.device, beginning.spec, beginning.cols, ranges)?;
        let first = beginning.values.iter().enumerate().map(|(i, &w)| {
            let (s, _) = cells.range(i);
            let u = if s == 0.0 { 0.0 } else { f64::from(w) / s };
            <D::Number as Real>::from_f64(-ln_f64(1.2 / (u - u.floor() + 0.1) - 1.0))
        });
        let (first, learns) = (first.collect(), builder.trains.rounding);
        let name = part_name(beginning.name, "rounding");
        Ok(Self { v: builder.add_absolute(&name, Group::Ranges, first, learns)?, learns })
    }
}

/// h(V) and its derivative.
#[inline(always)]
pub fn soft_bit(v: f64) -> (f64, f64) {
    let sigmoid = 1.0 / (1.0 + exp_f64(-v));
    let h = 1.2 * sigmoid - 0.1;
    let open = h > 0.0 && h < 1.0;
    (h.clamp(0.0, 1.0), if open { 1.2 * sigmoid * (1.0 - sigmoid) } else { 0.0 })
}

/// `1 - |2h - 1|^beta` of a variable, and its derivative by V.
#[inline(always)]
pub fn regulariser(v: f64, beta: f64) -> (f64, f64) {
    let (h, dh) = soft_bit(v);
    let off = 2.0 * h - 1.0;
    // The logarithm of 0 is -inf, e to that 0.
    let logarithm = ln_f64(off.abs());
    let power = |exponent: f64| exp_f64(exponent * logarithm);
    (1.0 - power(beta), -beta * power(beta - 1.0) * off.signum() * 2.0 * dh)
}

dispatch! {
    /// [`soft_bit`] of every variable.
    fn soft_bits[T: Real](v: &[T], h: &mut [f64], slopes: &mut [f64]) {
        for ((v, h), slope) in v.iter().zip(h).zip(slopes) {
            (*h, *slope) = soft_bit(v.to_f64());
        }
    }

    /// [`regulariser`] of every variable.
    fn regularisers[T: Real](v: &[T], beta: f64, values: &mut [f64], slopes: &mut [f64]) {
        for ((v, value), slope) in v.iter().zip(values).zip(slopes) {
            (*value, *slope) = regulariser(v.to_f64(), beta);
        }
    }
}

/// The scale and zero point of every element of a matrix, and the limits of the codes.
struct Cells<'a, T: Number> {
    quantizer: QuantSpec,
    cols: usize,
    scales: Cow<'a, [T]>,
    zero_points: Cow<'a, [T]>,
}

impl<'a, T: Number> Cells<'a, T> {
    fn new<D: Device<Number = T>>(
        device: &D,
        quantizer: QuantSpec,
        cols: usize,
        ranges: &'a Ranges<D>,
    ) -> Result<Self> {
        let scales = device.read(&ranges.scales)?;
        let zero_points = ranges.zero_points.as_ref().map(|z| device.read(z)).transpose()?;
        Ok(Self { quantizer, cols, scales, zero_points: zero_points.unwrap_or_default() })
    }

    /// Scale and zero point of element i.
    fn range(&self, i: usize) -> (f64, f64) {
        let (row, col) = (i / self.cols, i % self.cols);
        let index = self.quantizer.granularity.scale_index(row, col, self.cols);
        let zero_point = self.zero_points.get(index).map_or(0.0, |&z| Real::to_f64(z));
        (Real::to_f64(self.scales[index]), zero_point)
    }

    /// `floor(w / s) + up + z` before it is clipped.
    fn free(&self, w: T, (s, z): (f64, f64), up: f64) -> f64 {
        // In the weight's own precision, so that the floor is the one of the first step.
        Real::to_f64(w / <T as Real>::from_f64(s)).floor() + up + z
    }

    fn limits(&self) -> (f64, f64) {
        (f64::from(self.quantizer.min_code()), f64::from(self.quantizer.max_code()))
    }
}

/// Elements that one task takes.
const PIECE: usize = 1 << 14;

/// h and its derivative of the variables of a task.
fn soft_bits_of<T: Real>(v: &[T]) -> (Vec<f64>, Vec<f64>) {
    let (mut h, mut slopes) = (vec![0.0; v.len()], vec![0.0; v.len()]);
    soft_bits(v, &mut h, &mut slopes);
    (h, slopes)
}

impl AdaRound {
    /// The cells, the weight and the variables of a step, on the host.
    #[allow(clippy::type_complexity)]
    fn on_host<'a, D: Device>(
        &self,
        step: MatrixView<'a, D>,
        ranges: &'a Ranges<D>,
    ) -> Result<(Cells<'a, D::Number>, Cow<'a, [D::Number]>, Cow<'a, [D::Number]>)> {
        let device = step.device();
        let cells = Cells::new(device, step.quantizer, step.cols, ranges)?;
        Ok((cells, device.read(step.w)?, device.read(step.value(self.v))?))
    }
}

impl<D: Device> Rounding<D> for AdaRound {
    fn forward(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<D::Buffer> {
        let (cells, w, v) = self.on_host(step, ranges)?;
        let (low, high) = cells.limits();
        let mut y = vec![<D::Number as Real>::ZERO; w.len()];
        step.device().pool().chunks_mut(&mut y, PIECE, |piece, y| {
            let first = piece * PIECE;
            let (up, _) = soft_bits_of(&v[first..][..y.len()]);
            for ((y, up), i) in y.iter_mut().zip(up).zip(first..) {
                let (s, z) = cells.range(i);
                if s != 0.0 {
                    let code = cells.free(w[i], (s, z), up).clamp(low, high);
                    *y = <D::Number as Real>::from_f64(code - z) * <D::Number as Real>::from_f64(s);
                }
            }
        });
        step.device().upload(y)
    }

    fn backward(
        &self,
        step: MatrixView<D>,
        ranges: &Ranges<D>,
        gradient: &mut D::Buffer,
        _weight_learns: bool,
    ) -> Result<RangeGradients<D::Buffer>> {
        let (device, (cells, w, v)) = (step.device(), self.on_host(step, ranges)?);
        let (low, high) = cells.limits();
        let gradient = device.read(gradient)?;
        let mut dv = vec![<D::Number as Real>::ZERO; w.len()];
        device.pool().chunks_mut(&mut dv, PIECE, |piece, dv| {
            let first = piece * PIECE;
            let (up, slopes) = soft_bits_of(&v[first..][..dv.len()]);
            for (((dv, up), slope), i) in dv.iter_mut().zip(up).zip(slopes).zip(first..) {
                let (s, z) = cells.range(i);
                if s != 0.0 && (low..=high).contains(&cells.free(w[i], (s, z), up)) {
                    *dv = <D::Number as Real>::from_f64(Real::to_f64(gradient[i]) * s * slope);
                }
            }
        });
        if self.learns {
            step.parameters.list[self.v].sink.add_buffer(device, device.upload(dv)?)?;
        }
        let zeros = |of: &D::Buffer| device.zeros(of.len());
        Ok(RangeGradients {
            scales: zeros(&ranges.scales)?,
            zero_points: ranges.zero_points.as_deref().map(zeros).transpose()?,
        })
    }

    fn pack(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<QuantTensor> {
        let (cells, w, v) = self.on_host(step, ranges)?;
        let (low, high) = cells.limits();
        let code = |i: usize| {
            let (s, z) = cells.range(i);
            if s == 0.0 {
                return z as i16;
            }
            let up = f64::from(soft_bit(Real::to_f64(v[i])).0 >= 0.5);
            cells.free(w[i], (s, z), up).clamp(low, high) as i16
        };
        let codes: Vec<i16> = (0..w.len()).map(code).collect();
        let (scales, zero_points) = ranges.packed(step.device())?;
        let MatrixView { rows, cols, quantizer, .. } = step;
        Ok(QuantTensor::from_codes(quantizer, rows, cols, &codes, scales, zero_points))
    }

    fn learns(&self) -> bool {
        self.learns
    }

    fn is_soft(&self) -> bool {
        true
    }

    fn regularise(&self, parameters: &Parameters<D>, rows: usize, progress: f64) -> Result<f64> {
        let after = (progress - WARM_UP) / (1.0 - WARM_UP);
        if !self.learns || after < 0.0 {
            return Ok(0.0);
        }
        let beta = BETAS[0] + (BETAS[1] - BETAS[0]) * after.min(1.0);
        let (lambda, v) = (LAMBDA / rows as f64, &parameters.list[self.v]);
        let device = &parameters.device;
        let values = device.read(&v.value)?;
        let mut of_each = vec![0.0; values.len()];
        let mut gradient = vec![<D::Number as Real>::ZERO; values.len()];
        let tasks = of_each.chunks_mut(PIECE).zip(gradient.chunks_mut(PIECE)).collect();
        device.pool().parts(tasks, |piece, (of_each, gradient): (&mut [f64], &mut [_])| {
            let mut slopes = vec![0.0; of_each.len()];
            let values = &values[piece * PIECE..][..of_each.len()];
            regularisers(values, beta, of_each, &mut slopes);
            for (gradient, slope) in gradient.iter_mut().zip(slopes) {
                *gradient = <D::Number as Real>::from_f64(lambda * slope);
            }
        });
        v.sink.add_buffer(device, device.upload(gradient)?)?;
        Ok(lambda * of_each.iter().sum::<f64>())
    }

    fn settle(&self, parameters: &mut Parameters<D>) -> Result<()> {
        let Parameters { device, list, .. } = parameters;
        device.on_host(&mut list[self.v].value, |v| {
            for v in v {
                let up = soft_bit(Real::to_f64(*v)).0 >= 0.5;
                *v = <D::Number as Real>::from_f64(if up { SETTLED } else { -SETTLED });
            }
        })
    }
}
