//! Scales and zero points that learn (Block-AP of EfficientQAT, 2024, arXiv 2407.11062). Scales are
//! held within the bounds of the authors' code; zero points are rounded to one of the codes. On a
//! grid without zero points the scales alone learn, as [`super::RangeConfig::Scale`] but without
//! LSQ's gradient scale and with rates relative to their size.

use super::{Range, RangeGradients, RangeTraits, Ranges, bounds, numbers};
use crate::Result;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, Number};
use crate::quantizer::builder::{Beginning, Builder, part_name};
use halfstep_kernels::quant::observer::find_scales;
use halfstep_kernels::{QuantSpec, ScaleCodec};
use std::sync::Arc;

pub(crate) const TRAITS: RangeTraits = RangeTraits {
    learns: true,
    weights_may_learn: true,
    reads_observer: true,
    reads_gradient_scale: false,
};

#[derive(Debug)]
pub(super) struct ScaleZero {
    quantizer: QuantSpec,
    /// Indices among the parameters.
    scales: usize,
    zero_points: Option<usize>,
    learns: bool,
}

impl ScaleZero {
    pub(crate) fn register<D: Device>(
        builder: &mut Builder<D>,
        beginning: &Beginning,
    ) -> Result<Self> {
        let Beginning { rows, cols, values, spec: quantizer, .. } = *beginning;
        let learns = builder.trains.scales;
        let (scales, zero_points) = match beginning.previous {
            Some(packed) => (packed.scales.clone(), packed.zero_points.clone()),
            None => find_scales(builder.pool(), values, rows, cols, quantizer, beginning.observer),
        };
        let name = |part: &str| part_name(beginning.name, part);
        let group = Group::Ranges;
        let zero_points = (!zero_points.is_empty())
            .then(|| {
                let values = numbers(zero_points);
                builder.add_absolute(&name("zero_point"), group, values, learns)
            })
            .transpose()?;
        let scales = D::Number::from_f32s(scales);
        let scales = builder.add_relative(&name("scale"), group, scales, learns)?;
        Ok(Self { quantizer, scales, zero_points, learns })
    }
}

impl<D: Device> Range<D> for ScaleZero {
    fn ranges(&self, parameters: &Parameters<D>, _w: &D::Buffer) -> Result<Ranges<D>> {
        let (device, quantizer) = (&parameters.device, self.quantizer);
        let value = |index: usize| &parameters.list[index].value;
        let scales = device.store_scales(value(self.scales), quantizer.scale, bounds(quantizer))?;
        let stored = |index| device.store_zero_points(value(index), quantizer).map(Arc::new);
        let zero_points = self.zero_points.map(stored).transpose()?;
        Ok(Ranges { scales: Arc::new(scales), zero_points })
    }

    fn learns(&self) -> bool {
        self.learns
    }

    fn backward(
        &self,
        parameters: &Parameters<D>,
        gradients: RangeGradients<D::Buffer>,
    ) -> Result<()> {
        let (device, list) = (&parameters.device, &parameters.list);
        list[self.scales].sink.add_buffer(device, gradients.scales)?;
        match self.zero_points.zip(gradients.zero_points) {
            Some((index, gradient)) => list[index].sink.add_buffer(device, gradient),
            None => Ok(()),
        }
    }

    /// With zero points scales are positive by their bounds.
    fn signed_scales(&self) -> Option<(usize, ScaleCodec)> {
        let signed = self.learns && self.zero_points.is_none();
        signed.then_some((self.scales, self.quantizer.scale))
    }
}
