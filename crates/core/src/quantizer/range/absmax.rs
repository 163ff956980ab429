//! Scales that follow the weights: found anew in every step by the largest magnitude of each group,
//! on a grid with zero points by its minimum and maximum. Nothing is clipped.

use super::{Range, RangeTraits, Ranges};
use crate::autograd::ops::Number;
use crate::autograd::parameter::Parameters;
use crate::quantizer::builder::{Beginning, Builder};
use halfstep_kernels::quant::observer::{Observer, find_scales};
use halfstep_kernels::{Pool, QuantSpec};

pub const TRAITS: RangeTraits = RangeTraits {
    learns: false,
    weights_may_learn: true,
    reads_observer: false,
    reads_gradient_scale: false,
};

#[derive(Debug)]
pub struct Absmax {
    quantizer: QuantSpec,
    rows: usize,
    cols: usize,
}

impl Absmax {
    pub fn register<T>(_builder: &mut Builder<T>, beginning: &Beginning) -> Self {
        Self { quantizer: beginning.spec, rows: beginning.rows, cols: beginning.cols }
    }
}

impl<T: Number> Range<T> for Absmax {
    fn ranges(&self, _parameters: &Parameters<T>, pool: &Pool, w: &[T]) -> Ranges<T> {
        let w = T::to_f32s(w);
        let (mut scales, zero_points) =
            find_scales(pool, &w, self.rows, self.cols, self.quantizer, Observer::Absmax);
        scales.iter_mut().for_each(|scale| *scale = self.quantizer.scale.store(*scale));
        Ranges::from_packed(scales, zero_points)
    }

    fn clips(&self) -> bool {
        false
    }
}
