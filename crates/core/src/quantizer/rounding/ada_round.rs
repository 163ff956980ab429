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
use crate::autograd::ops::Number;
use crate::autograd::parameter::{Group, Parameters};
use crate::quantizer::builder::{Beginning, Builder, part_name};
use crate::quantizer::range::Ranges;
use halfstep_kernels::math::{exp_f64, ln_f64};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{QuantSpec, Real};

pub const TRAITS: RoundingTraits =
    RoundingTraits { learns: true, weights_may_learn: false, ranges_may_learn: false };

const LAMBDA: f64 = 0.01;
/// Share of the steps without the regulariser.
const WARM_UP: f64 = 0.2;
/// Beta falls from the first to the last.
const BETAS: [f64; 2] = [20.0, 2.0];
/// A variable that is rounded down or up for good: h is exactly 0 or 1.
const SETTLED: f64 = 30.0;

#[derive(Debug)]
pub struct AdaRound {
    /// Index of V among the parameters.
    v: usize,
    learns: bool,
}

impl AdaRound {
    pub fn register<T: Number>(
        builder: &mut Builder<T>,
        beginning: &Beginning,
        ranges: &Ranges<T>,
    ) -> Self {
        let cells = Cells::new(beginning.spec, beginning.cols);
        let first = beginning.values.iter().enumerate().map(|(i, &w)| {
            let (s, _) = cells.range(ranges, i);
            let u = if s == 0.0 { 0.0 } else { f64::from(w) / s };
            <T as Real>::from_f64(-ln_f64(1.2 / (u - u.floor() + 0.1) - 1.0))
        });
        let (first, learns) = (first.collect(), builder.trains.rounding);
        let name = part_name(beginning.name, "rounding");
        Self { v: builder.add_absolute(&name, Group::Ranges, first, learns), learns }
    }
}

/// h(V) and its derivative.
pub fn soft_bit(v: f64) -> (f64, f64) {
    let sigmoid = 1.0 / (1.0 + exp_f64(-v));
    let h = 1.2 * sigmoid - 0.1;
    let open = h > 0.0 && h < 1.0;
    (h.clamp(0.0, 1.0), if open { 1.2 * sigmoid * (1.0 - sigmoid) } else { 0.0 })
}

/// `1 - |2h - 1|^beta` of a variable, and its derivative by V.
pub fn regulariser(v: f64, beta: f64) -> (f64, f64) {
    let (h, dh) = soft_bit(v);
    let off = 2.0 * h - 1.0;
    let power = |exponent: f64| {
        if off == 0.0 { 0.0 } else { exp_f64(exponent * ln_f64(off.abs())) }
    };
    (1.0 - power(beta), -beta * power(beta - 1.0) * off.signum() * 2.0 * dh)
}

/// Where the elements of a matrix find their range, and which codes there are.
struct Cells {
    quantizer: QuantSpec,
    cols: usize,
}

impl Cells {
    fn new(quantizer: QuantSpec, cols: usize) -> Self {
        Self { quantizer, cols }
    }

    /// Scale and zero point of element i.
    fn range<T: Number>(&self, ranges: &Ranges<T>, i: usize) -> (f64, f64) {
        let (row, col) = (i / self.cols, i % self.cols);
        let index = self.quantizer.granularity.scale_index(row, col, self.cols);
        let zero_point = ranges.zero_points.get(index).map_or(0.0, |&z| Real::to_f64(z));
        (Real::to_f64(ranges.scales[index]), zero_point)
    }

    /// `floor(w / s) + up + z` before it is clipped.
    fn free<T: Number>(&self, w: T, (s, z): (f64, f64), up: f64) -> f64 {
        // In the weight's own precision, so that the floor is the one of the first step.
        Real::to_f64(w / <T as Real>::from_f64(s)).floor() + up + z
    }

    fn limits(&self) -> (f64, f64) {
        (f64::from(self.quantizer.min_code()), f64::from(self.quantizer.max_code()))
    }
}

/// Elements that one task takes.
const PIECE: usize = 1 << 14;

impl<T: Number> Rounding<T> for AdaRound {
    fn forward(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> Vec<T> {
        let (cells, v) = (Cells::new(step.quantizer, step.cols), step.value(self.v));
        let (low, high) = cells.limits();
        let mut y = vec![<T as Real>::ZERO; step.w.len()];
        step.pool.chunks_mut(&mut y, PIECE, |piece, y| {
            for (j, y) in y.iter_mut().enumerate() {
                let i = piece * PIECE + j;
                let (s, z) = cells.range(ranges, i);
                if s != 0.0 {
                    let up = soft_bit(Real::to_f64(v[i])).0;
                    let code = cells.free(step.w[i], (s, z), up).clamp(low, high);
                    *y = <T as Real>::from_f64(code - z) * <T as Real>::from_f64(s);
                }
            }
        });
        y
    }

    fn backward(
        &self,
        step: MatrixView<T>,
        ranges: &Ranges<T>,
        gradient: &mut Vec<T>,
        _weight_learns: bool,
    ) -> Ranges<T> {
        let (cells, v) = (Cells::new(step.quantizer, step.cols), step.value(self.v));
        let (low, high) = cells.limits();
        let mut dv = vec![<T as Real>::ZERO; step.w.len()];
        step.pool.chunks_mut(&mut dv, PIECE, |piece, dv| {
            for (j, dv) in dv.iter_mut().enumerate() {
                let i = piece * PIECE + j;
                let (s, z) = cells.range(ranges, i);
                let (up, slope) = soft_bit(Real::to_f64(v[i]));
                if s != 0.0 && (low..=high).contains(&cells.free(step.w[i], (s, z), up)) {
                    *dv = <T as Real>::from_f64(Real::to_f64(gradient[i]) * s * slope);
                }
            }
        });
        if self.learns {
            step.parameters.list[self.v].sink.add_slice(&dv);
        }
        let zeros = |values: &[T]| vec![<T as Real>::ZERO; values.len()];
        Ranges { scales: zeros(&ranges.scales), zero_points: zeros(&ranges.zero_points) }
    }

    fn pack(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> QuantTensor {
        let (cells, v) = (Cells::new(step.quantizer, step.cols), step.value(self.v));
        let (low, high) = cells.limits();
        let code = |i: usize| {
            let (s, z) = cells.range(ranges, i);
            if s == 0.0 {
                return z as i16;
            }
            let up = f64::from(soft_bit(Real::to_f64(v[i])).0 >= 0.5);
            cells.free(step.w[i], (s, z), up).clamp(low, high) as i16
        };
        let codes: Vec<i16> = (0..step.w.len()).map(code).collect();
        let (scales, zero_points) = ranges.packed();
        let MatrixView { rows, cols, quantizer, .. } = step;
        QuantTensor::from_codes(quantizer, rows, cols, &codes, scales, zero_points)
    }

    fn learns(&self) -> bool {
        self.learns
    }

    fn is_soft(&self) -> bool {
        true
    }

    fn regularise(&self, parameters: &Parameters<T>, rows: usize, progress: f64) -> f64 {
        let after = (progress - WARM_UP) / (1.0 - WARM_UP);
        if !self.learns || after < 0.0 {
            return 0.0;
        }
        let beta = BETAS[0] + (BETAS[1] - BETAS[0]) * after.min(1.0);
        let (lambda, v) = (LAMBDA / rows as f64, &parameters.list[self.v]);
        let of_each = v.value.iter().map(|&v| regulariser(Real::to_f64(v), beta));
        let (values, slopes): (Vec<f64>, Vec<f64>) = of_each.unzip();
        let slopes: Vec<T> =
            slopes.into_iter().map(|slope| <T as Real>::from_f64(lambda * slope)).collect();
        v.sink.add_slice(&slopes);
        lambda * values.iter().sum::<f64>()
    }

    fn settle(&self, parameters: &mut Parameters<T>) {
        for v in &mut parameters.list[self.v].value {
            let up = soft_bit(Real::to_f64(*v)).0 >= 0.5;
            *v = <T as Real>::from_f64(if up { SETTLED } else { -SETTLED });
        }
    }
}
