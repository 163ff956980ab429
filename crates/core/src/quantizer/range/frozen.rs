//! Scales and zero points that stay where they begin.

use super::{Range, RangeTraits, Ranges};
use crate::Result;
use crate::autograd::parameter::Parameters;
use crate::device::Device;
use crate::quantizer::builder::{Beginning, Builder};

pub(crate) const TRAITS: RangeTraits = RangeTraits {
    learns: false,
    weights_may_learn: true,
    reads_observer: true,
    reads_gradient_scale: false,
};

#[derive(Debug)]
pub(super) struct Frozen<D: Device>(Ranges<D>);

impl<D: Device> Frozen<D> {
    pub(crate) fn register(builder: &mut Builder<D>, beginning: &Beginning) -> Result<Self> {
        let (scales, zero_points) = beginning.first_ranges(builder.pool());
        Ranges::from_packed(&builder.parameters.device, scales, zero_points).map(Self)
    }
}

impl<D: Device> Range<D> for Frozen<D> {
    fn ranges(&self, _parameters: &Parameters<D>, _w: &D::Buffer) -> Result<Ranges<D>> {
        Ok(self.0.clone())
    }
}
