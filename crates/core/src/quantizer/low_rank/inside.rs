//! Factors inside the quantizer (LR-QAT, 2024, arXiv 2406.06385; L4Q, arXiv 2402.04902): the codes
//! learn through few numbers, and nothing but codes is stored.
//!
//!     u = W + (alpha / r) B A        Wq = quantize(u)        G' = dL/du from the rounding's backward
//!     dB = (alpha / r) G' A^T        dA^T = (alpha / r) G'^T B
//!
//! A and B begin as those outside do: the product is 0.

use super::{FirstFactors, LowRank, LowRankTraits};
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, DeviceBuffer};
use crate::quantizer::builder::{Builder, part_name};
use crate::{Error, Result};
use halfstep_kernels::Real;
use halfstep_kernels::ops::gemm::Precision;

pub(super) const TRAITS: LowRankTraits = LowRankTraits { is_stored: false, changes_weight: true };

/// Places of a matrix's factors among the parameters.
#[derive(Debug)]
pub(super) struct Inside {
    /// A^T `[I, r]`, in the layout that all three products read.
    a: usize,
    /// B `[O, r]`.
    b: usize,
    rank: usize,
    /// alpha / rank.
    scaling: f64,
    learns: bool,
}

impl Inside {
    pub(super) fn register<D: Device>(
        builder: &mut Builder<D>,
        beginning: &FirstFactors,
    ) -> Result<Self> {
        let (spec, learns) = (beginning.spec, builder.trains.low_rank);
        let config = beginning.config.ok_or_else(|| Error::Internal {
            reason: format!("{} has no factors to begin from", spec.name),
        })?;
        let (rows, cols, rank) = (spec.shape[0], spec.shape[1], config.rank);
        let first: Vec<D::Number> = beginning.first_a(rank);
        let transposed = (0..cols * rank).map(|i| first[i % rank * cols + i / rank]).collect();
        let mut add = |part: &str, values: Vec<D::Number>| {
            builder.add_absolute(&part_name(&spec.name, part), Group::LowRank, values, learns)
        };
        let a = add("inside_a", transposed)?;
        let b = add("inside_b", vec![<D::Number as Real>::ZERO; rows * rank])?;
        Ok(Self { a, b, rank, scaling: config.alpha / rank as f64, learns })
    }
}

impl<D: Device> LowRank<D> for Inside {
    fn learns_by_weight(&self) -> bool {
        self.learns
    }

    fn inside(&self, parameters: &Parameters<D>, w: &D::Buffer) -> Result<Option<D::Buffer>> {
        let Parameters { device, list, .. } = parameters;
        let a = device.weight(device.copy(&list[self.a].value)?, self.rank)?;
        let mut u = device.linear(Precision::F32, &list[self.b].value, &a)?; // [O, I]
        device.scale(&mut u, self.scaling)?;
        device.add(&mut u, w)?;
        Ok(Some(u))
    }

    fn inside_backward(&self, parameters: &Parameters<D>, dw: &D::Buffer) -> Result<()> {
        if !self.learns {
            return Ok(());
        }
        let Parameters { device, list, .. } = parameters;
        let a = device.weight(device.copy(&list[self.a].value)?, self.rank)?;
        let mut db = device.linear_backward_input(Precision::F32, dw, &a)?; // [O, r]
        device.scale(&mut db, self.scaling)?;
        let mut da = device.zeros(list[self.a].value.len())?; // [I, r]
        let b = &list[self.b].value;
        device.linear_backward_weight(Precision::F32, dw, b, self.rank, &mut da, false)?;
        device.scale(&mut da, self.scaling)?;
        list[self.a].sink.add_buffer(device, da)?;
        list[self.b].sink.add_buffer(device, db)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use crate::quantizer::builder::Trains;
    use crate::quantizer::gradient_check::{dot, normal, spec};
    use crate::quantizer::low_rank::{LowRankConfig, LowRankPosition};
    use halfstep_kernels::Pool;

    #[test]
    fn gradients_are_those_of_differences() {
        let (spec, mut parameters) = (spec(), Parameters::new(&Cpu::<f64>::new(&Pool::new(1))));
        let trains = Trains { low_rank: true, ..Trains::NONE };
        let builder = &mut Builder { parameters: &mut parameters, trains, relative: false };
        let config = LowRankConfig { rank: 2, alpha: 8.0, position: LowRankPosition::Inside };
        let first =
            FirstFactors { spec: &spec, config: Some(config), stored: None, seed: 1, number: 0 };
        let factors = Inside::register(builder, &first).expect("factors");
        let (w, c) = (normal(1, 48), normal(2, 48));
        let begins = factors.inside(&parameters, &w).expect("a weight");
        assert_eq!(begins, Some(w.clone()), "B begins at 0");
        for (i, parameter) in parameters.list.iter_mut().enumerate() {
            parameter.value = normal(3 + i as u64, parameter.value.len());
        }
        factors.inside_backward(&parameters, &c).expect("gradients");
        for number in 0..2 {
            let gradient = parameters.list[number].sink.with(|gradient| gradient.clone());
            for (at, gradient) in gradient.iter().enumerate() {
                let mut value = |by: f64| {
                    parameters.list[number].value[at] += by;
                    let u = factors.inside(&parameters, &w).expect("a weight").expect("a product");
                    parameters.list[number].value[at] -= by;
                    dot(&u, &c)
                };
                let difference = (value(1e-4) - value(-1e-4)) / 2e-4;
                assert!((difference - gradient).abs() < 1e-6, "{at}: {gradient} {difference}");
            }
        }
    }
}
