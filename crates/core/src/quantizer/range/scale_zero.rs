//! Scales and zero points that learn (Block-AP of EfficientQAT, 2024, arXiv 2407.11062). Scales are
//! held within the bounds of the authors' code; zero points are rounded to one of the codes. On a
//! grid without zero points the scales alone learn, as [`super::RangeConfig::Scale`] but without
//! LSQ's gradient scale and with rates relative to their size.

use super::{
    Range, RangeTraits, Ranges, keep_away_from_zero, negative, stored_scale, stored_zero_point,
};
use crate::autograd::ops::Number;
use crate::autograd::parameter::{Group, Parameters};
use crate::quantizer::builder::{Beginning, Builder, part_name};
use halfstep_kernels::quant::observer::find_scales;
use halfstep_kernels::{Pool, QuantSpec};

pub const TRAITS: RangeTraits = RangeTraits {
    learns: true,
    weights_may_learn: true,
    reads_observer: true,
    reads_gradient_scale: false,
};

#[derive(Debug)]
pub struct ScaleZero {
    quantizer: QuantSpec,
    /// Indices among the parameters.
    scales: usize,
    zero_points: Option<usize>,
    learns: bool,
}

impl ScaleZero {
    pub fn register<T: Number>(builder: &mut Builder<T>, beginning: &Beginning) -> Self {
        let Beginning { rows, cols, values, spec: quantizer, .. } = *beginning;
        let learns = builder.trains.scales;
        let (scales, zero_points) = match beginning.previous {
            Some(packed) => (packed.scales.clone(), packed.zero_points.clone()),
            None => find_scales(builder.pool, values, rows, cols, quantizer, beginning.observer),
        };
        let Ranges { scales, zero_points } = Ranges::from_packed(scales, zero_points);
        let name = |part: &str| part_name(beginning.name, part);
        let group = Group::Ranges;
        let zero_points = (!zero_points.is_empty())
            .then(|| builder.add_absolute(&name("zero_point"), group, zero_points.clone(), learns));
        let scales = builder.add_relative(&name("scale"), group, scales, learns);
        Self { quantizer, scales, zero_points, learns }
    }
}

impl<T: Number> Range<T> for ScaleZero {
    fn ranges(&self, parameters: &Parameters<T>, _pool: &Pool, _w: &[T]) -> Ranges<T> {
        let values = |index: usize| parameters.list[index].value.iter();
        Ranges {
            scales: values(self.scales).map(|&s| stored_scale(s, self.quantizer)).collect(),
            zero_points: (self.zero_points.into_iter().flat_map(values))
                .map(|&z| stored_zero_point(z, self.quantizer))
                .collect(),
        }
    }

    fn learns(&self) -> bool {
        self.learns
    }

    fn backward(&self, parameters: &Parameters<T>, gradients: &Ranges<T>) {
        parameters.list[self.scales].sink.add_slice(&gradients.scales);
        if let Some(index) = self.zero_points {
            parameters.list[index].sink.add_slice(&gradients.zero_points);
        }
    }

    /// With zero points scales are positive by their bounds.
    fn signs(&self, parameters: &Parameters<T>) -> Vec<bool> {
        let signed = self.learns && self.zero_points.is_none();
        if signed { negative(&parameters.list[self.scales].value) } else { vec![] }
    }

    fn guard(&self, parameters: &mut Parameters<T>, signs: &[bool]) {
        let codec = self.quantizer.scale;
        keep_away_from_zero(&mut parameters.list[self.scales].value, signs, codec);
    }
}
