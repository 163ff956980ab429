//! The scales of codes that an earlier stage stored. They learn (E2E-QP of EfficientQAT, 2024,
//! arXiv 2407.11062) or stay; zero points stay.

use super::{Range, RangeGradients, Ranges, bounds};
use crate::Result;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, Number};
use crate::quantizer::builder::{Builder, part_name};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{QuantSpec, ScaleCodec};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Stored<D: Device> {
    /// As the file holds them; the scales where they do not learn.
    stored: Ranges<D>,
    /// Index among the parameters, where they learn.
    scales: Option<usize>,
    quantizer: QuantSpec,
}

impl<D: Device> Stored<D> {
    /// The ranges of `codes`, the weight `name`.
    pub(crate) fn register(
        builder: &mut Builder<D>,
        name: &str,
        codes: &QuantTensor,
        learns: bool,
    ) -> Result<Self> {
        let device = &builder.parameters.device;
        let stored = Ranges::from_packed(device, codes.scales.clone(), codes.zero_points.clone())?;
        let scales = learns
            .then(|| {
                let (name, values) = (part_name(name, "scale"), codes.scales.clone());
                builder.add_relative(&name, Group::Ranges, D::Number::from_f32s(values), true)
            })
            .transpose()?;
        Ok(Self { stored, scales, quantizer: codes.spec })
    }
}

impl<D: Device> Range<D> for Stored<D> {
    fn ranges(&self, parameters: &Parameters<D>, _w: &D::Buffer) -> Result<Ranges<D>> {
        let Some(index) = self.scales else { return Ok(self.stored.clone()) };
        let scales = parameters.device.store_scales(
            &parameters.list[index].value,
            self.quantizer.scale,
            bounds(self.quantizer),
        )?;
        Ok(Ranges { scales: Arc::new(scales), zero_points: self.stored.zero_points.clone() })
    }

    fn learns(&self) -> bool {
        self.scales.is_some()
    }

    fn backward(
        &self,
        parameters: &Parameters<D>,
        gradients: RangeGradients<D::Buffer>,
    ) -> Result<()> {
        let Some(index) = self.scales else { return Ok(()) };
        parameters.list[index].sink.add_buffer(&parameters.device, gradients.scales)
    }

    /// On a grid with zero points scales are positive by their bounds.
    fn signed_scales(&self) -> Option<(usize, ScaleCodec)> {
        let index = self.scales.filter(|_| !self.quantizer.has_zero_point())?;
        Some((index, self.quantizer.scale))
    }
}
