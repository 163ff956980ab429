//! Learned scales (LSQ: Learned Step Size Quantization, 2020, arXiv 1902.08153). The gradient of a
//! scale is that of the kernel times 1 / sqrt(N p), p the largest code and N the number of elements
//! that [`GradientScale`] says. A zero point, on a grid that has one, stays where it begins.

use super::{Range, RangeTraits, Ranges, keep_away_from_zero, negative};
use crate::autograd::ops::Number;
use crate::autograd::parameter::{Group, Parameters};
use crate::quantizer::builder::{Beginning, Builder, GradientScale, part_name};
use halfstep_kernels::{Pool, Real, ScaleCodec};

pub const TRAITS: RangeTraits = RangeTraits {
    learns: true,
    weights_may_learn: true,
    reads_observer: true,
    reads_gradient_scale: true,
};

#[derive(Debug)]
pub struct Scale<T> {
    /// Index of the scales among the parameters.
    index: usize,
    learns: bool,
    codec: ScaleCodec,
    gradient_scale: f64,
    zero_points: Vec<T>,
}

impl<T: Number> Scale<T> {
    pub fn register(builder: &mut Builder<T>, beginning: &Beginning) -> Self {
        let quantizer = beginning.spec;
        let (scales, zero_points) = beginning.first_ranges(builder.pool);
        let Ranges { scales, zero_points } = Ranges::from_packed(scales, zero_points);
        let elements = beginning.rows * beginning.cols;
        let shared = match beginning.gradient_scale {
            GradientScale::Matrix => elements,
            GradientScale::Group => elements / scales.len(),
        };
        let learns = builder.trains.scales;
        let name = part_name(beginning.name, "step");
        Self {
            index: builder.add(&name, Group::WeightScales, scales, learns),
            learns,
            codec: quantizer.scale,
            gradient_scale: 1.0 / (shared as f64 * f64::from(quantizer.max_code())).sqrt(),
            zero_points,
        }
    }
}

impl<T: Number> Range<T> for Scale<T> {
    fn ranges(&self, parameters: &Parameters<T>, _pool: &Pool, _w: &[T]) -> Ranges<T> {
        let scales = &parameters.list[self.index].value;
        Ranges {
            scales: scales.iter().map(|&s| self.codec.store_real(s)).collect(),
            zero_points: self.zero_points.clone(),
        }
    }

    fn learns(&self) -> bool {
        self.learns
    }

    fn backward(&self, parameters: &Parameters<T>, gradients: &Ranges<T>) {
        let g = <T as Real>::from_f64(self.gradient_scale);
        let scaled: Vec<T> = gradients.scales.iter().map(|&d| d * g).collect();
        parameters.list[self.index].sink.add_slice(&scaled);
    }

    fn signs(&self, parameters: &Parameters<T>) -> Vec<bool> {
        if self.learns { negative(&parameters.list[self.index].value) } else { vec![] }
    }

    fn guard(&self, parameters: &mut Parameters<T>, signs: &[bool]) {
        keep_away_from_zero(&mut parameters.list[self.index].value, signs, self.codec);
    }
}
