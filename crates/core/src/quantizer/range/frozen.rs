//! Scales and zero points that stay where they begin.

use super::{Range, RangeTraits, Ranges};
use crate::autograd::ops::Number;
use crate::autograd::parameter::Parameters;
use crate::quantizer::builder::{Beginning, Builder};
use halfstep_kernels::Pool;

pub const TRAITS: RangeTraits = RangeTraits {
    learns: false,
    weights_may_learn: true,
    reads_observer: true,
    reads_gradient_scale: false,
};

#[derive(Debug)]
pub struct Frozen<T>(Ranges<T>);

impl<T: Number> Frozen<T> {
    pub fn register(builder: &mut Builder<T>, beginning: &Beginning) -> Self {
        let (scales, zero_points) = beginning.first_ranges(builder.pool);
        Self(Ranges::from_packed(scales, zero_points))
    }
}

impl<T: Number> Range<T> for Frozen<T> {
    fn ranges(&self, _parameters: &Parameters<T>, _pool: &Pool, _w: &[T]) -> Ranges<T> {
        self.0.clone()
    }
}
