//! Scales that follow the weights: found anew in every step by the largest magnitude of each group,
//! on a grid with zero points by its minimum and maximum. Nothing is clipped.

use super::{Range, RangeTraits, Ranges};
use crate::Result;
use crate::autograd::parameter::Parameters;
use crate::device::Device;
use crate::quantizer::builder::{Beginning, Builder};
use halfstep_kernels::QuantSpec;
use std::sync::Arc;

pub(crate) const TRAITS: RangeTraits = RangeTraits {
    learns: false,
    weights_may_learn: true,
    reads_observer: false,
    reads_gradient_scale: false,
};

#[derive(Debug)]
pub(super) struct Absmax {
    quantizer: QuantSpec,
    rows: usize,
    cols: usize,
}

impl Absmax {
    pub(crate) fn register<D: Device>(_: &mut Builder<D>, beginning: &Beginning) -> Result<Self> {
        Ok(Self { quantizer: beginning.spec, rows: beginning.rows, cols: beginning.cols })
    }
}

impl<D: Device> Range<D> for Absmax {
    fn ranges(&self, parameters: &Parameters<D>, w: &D::Buffer) -> Result<Ranges<D>> {
        let (scales, zero_points) =
            parameters.device.absmax(w, self.rows, self.cols, self.quantizer)?;
        Ok(Ranges { scales: Arc::new(scales), zero_points: zero_points.map(Arc::new) })
    }

    fn clips(&self) -> bool {
        false
    }
}
