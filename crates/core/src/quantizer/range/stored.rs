//! The scales of codes that an earlier stage stored. They learn (E2E-QP of EfficientQAT, 2024,
//! arXiv 2407.11062) or stay; zero points stay.

use super::{Range, Ranges, keep_away_from_zero, negative, stored_scale};
use crate::autograd::ops::Number;
use crate::autograd::parameter::{Group, Parameters};
use crate::quantizer::builder::{Builder, part_name};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Pool, QuantSpec};

#[derive(Debug)]
pub struct Stored<T> {
    /// As the file holds them, where they do not learn.
    stored: Ranges<T>,
    /// Index among the parameters, where they learn.
    scales: Option<usize>,
    quantizer: QuantSpec,
}

impl<T: Number> Stored<T> {
    /// The ranges of `codes`, the weight `name`.
    pub fn register(
        builder: &mut Builder<T>,
        name: &str,
        codes: &QuantTensor,
        learns: bool,
    ) -> Self {
        let stored = Ranges::from_packed(codes.scales.clone(), codes.zero_points.clone());
        let scales = learns.then(|| {
            let name = part_name(name, "scale");
            builder.add_relative(&name, Group::Ranges, stored.scales.clone(), true)
        });
        Self { stored, scales, quantizer: codes.spec }
    }
}

impl<T: Number> Range<T> for Stored<T> {
    fn ranges(&self, parameters: &Parameters<T>, _pool: &Pool, _w: &[T]) -> Ranges<T> {
        let Some(index) = self.scales else { return self.stored.clone() };
        let learned = parameters.list[index].value.iter();
        Ranges {
            scales: learned.map(|&s| stored_scale(s, self.quantizer)).collect(),
            zero_points: self.stored.zero_points.clone(),
        }
    }

    fn learns(&self) -> bool {
        self.scales.is_some()
    }

    fn backward(&self, parameters: &Parameters<T>, gradients: &Ranges<T>) {
        if let Some(index) = self.scales {
            parameters.list[index].sink.add_slice(&gradients.scales);
        }
    }

    /// On a grid with zero points scales are positive by their bounds.
    fn signs(&self, parameters: &Parameters<T>) -> Vec<bool> {
        match self.scales {
            Some(index) if !self.quantizer.has_zero_point() => {
                negative(&parameters.list[index].value)
            }
            _ => vec![],
        }
    }

    fn guard(&self, parameters: &mut Parameters<T>, signs: &[bool]) {
        if let Some(index) = self.scales {
            let codec = self.quantizer.scale;
            keep_away_from_zero(&mut parameters.list[index].value, signs, codec);
        }
    }
}
