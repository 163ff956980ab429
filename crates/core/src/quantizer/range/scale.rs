//! Learned scales (LSQ: Learned Step Size Quantization, 2020, arXiv 1902.08153). The gradient of a
//! scale is that of the kernel times 1 / sqrt(N p), p the largest code and N the number of elements
//! that [`GradientScale`] selects. A zero point, on a grid that has one, stays where it begins.

use super::{Range, RangeGradients, RangeTraits, Ranges, uploaded};
use crate::Result;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, Number};
use crate::quantizer::builder::{Beginning, Builder, GradientScale, part_name};
use halfstep_kernels::ScaleCodec;
use std::sync::Arc;

pub(crate) const TRAITS: RangeTraits = RangeTraits {
    learns: true,
    weights_may_learn: true,
    reads_observer: true,
    reads_gradient_scale: true,
};

#[derive(Debug)]
pub(super) struct Scale<D: Device> {
    /// Index of the scales among the parameters.
    index: usize,
    learns: bool,
    codec: ScaleCodec,
    gradient_scale: f64,
    zero_points: Option<Arc<D::Buffer>>,
}

impl<D: Device> Scale<D> {
    pub(crate) fn register(builder: &mut Builder<D>, beginning: &Beginning) -> Result<Self> {
        let quantizer = beginning.spec;
        let (scales, zero_points) = beginning.first_ranges(builder.pool());
        let elements = beginning.rows * beginning.cols;
        let shared = match beginning.gradient_scale {
            GradientScale::Matrix => elements,
            GradientScale::Group => elements / scales.len(),
        };
        let (learns, scales) = (builder.trains.scales, D::Number::from_f32s(scales));
        let name = part_name(beginning.name, "step");
        Ok(Self {
            index: builder.add(&name, Group::WeightScales, scales, learns)?,
            learns,
            codec: quantizer.scale,
            gradient_scale: 1.0 / (shared as f64 * f64::from(quantizer.max_code())).sqrt(),
            zero_points: uploaded(&builder.parameters.device, zero_points)?,
        })
    }
}

impl<D: Device> Range<D> for Scale<D> {
    fn ranges(&self, parameters: &Parameters<D>, _w: &D::Buffer) -> Result<Ranges<D>> {
        let scales = &parameters.list[self.index].value;
        let scales = parameters.device.store_scales(scales, self.codec, None)?;
        Ok(Ranges { scales: Arc::new(scales), zero_points: self.zero_points.clone() })
    }

    fn learns(&self) -> bool {
        self.learns
    }

    fn backward(
        &self,
        parameters: &Parameters<D>,
        mut gradients: RangeGradients<D::Buffer>,
    ) -> Result<()> {
        parameters.device.scale(&mut gradients.scales, self.gradient_scale)?;
        parameters.list[self.index].sink.add_buffer(&parameters.device, gradients.scales)
    }

    fn signed_scales(&self) -> Option<(usize, ScaleCodec)> {
        self.learns.then_some((self.index, self.codec))
    }
}
