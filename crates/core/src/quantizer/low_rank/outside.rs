//! Factors whose product is added to the output of a quantized linear: `y = x Wq^T + (alpha / r) (x
//! A^T) B^T` (ApiQ, 2024, arXiv 2402.05147; LoRA, arXiv 2106.09685).
//!
//!     A [r, I] uniform in +-1/sqrt(I) (Kaiming, as the authors), B [O, r] = 0        x is the input before any quantizer
//!
//! The forward uses both as they will be stored: A and (alpha / r) B in f16; gradients pass the
//! rounding unchanged.

use super::{FactorSinks, Factors, FirstFactors, LowRank, LowRankTraits, StoredLowRank, numbers};
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, DeviceBuffer, Number};
use crate::quantizer::builder::{Builder, part_name};
use crate::{Error, Result};
use half::f16;
use half::vec::HalfFloatVecExt;
use halfstep_kernels::Real;

pub(super) const TRAITS: LowRankTraits = LowRankTraits { is_stored: true, changes_weight: false };

/// Places of a matrix's factors among the parameters.
#[derive(Debug)]
pub(super) struct Outside {
    a: usize,
    b: usize,
    rank: usize,
    /// alpha / rank.
    scaling: f64,
    learns: bool,
}

impl Outside {
    pub(super) fn register<D: Device>(builder: &mut Builder<D>, beginning: &FirstFactors) -> Result<Self> {
        let FirstFactors { spec, .. } = *beginning;
        let (rank, factors, scaling) = match (beginning.stored, beginning.config) {
            // B holds alpha / r already.
            (Some(stored), _) => (stored.rank, [numbers(&stored.a), numbers(&stored.b)], 1.0),
            (None, Some(config)) => {
                let a = beginning.first_a(config.rank);
                let b = vec![<D::Number as Real>::ZERO; spec.shape[0] * config.rank];
                (config.rank, [a, b], config.alpha / config.rank as f64)
            }
            (None, None) => {
                let reason = format!("{} has no factors to begin from", spec.name);
                return Err(Error::Internal { reason });
            }
        };
        let (learns, [a, b]) = (builder.trains.low_rank, factors);
        let mut add = |part: &str, values: Vec<D::Number>| {
            builder.add_absolute(&part_name(&spec.name, part), Group::LowRank, values, learns)
        };
        let (a, b) = (add("low_rank_a", a)?, add("low_rank_b", b)?);
        Ok(Self { a, b, rank, scaling, learns })
    }

    fn as_stored<D: Device>(&self, parameters: &Parameters<D>) -> Result<[D::Buffer; 2]> {
        let value = |index: usize| &parameters.list[index].value;
        let device = &parameters.device;
        Ok([device.round_f16(value(self.a), 1.0)?, device.round_f16(value(self.b), self.scaling)?])
    }
}

impl<D: Device> LowRank<D> for Outside {
    fn outside(&self, parameters: &Parameters<D>) -> Result<Option<Factors<D>>> {
        let (device, [a, b]) = (&parameters.device, self.as_stored(parameters)?);
        let cols = a.len() / self.rank;
        Ok(Some(Factors { a: device.weight(a, cols)?, b: device.weight(b, self.rank)? }))
    }

    fn sinks(&self, parameters: &Parameters<D>) -> Option<FactorSinks<D>> {
        let [a, b] = [self.a, self.b].map(|index| parameters.list[index].sink.clone());
        self.learns.then_some(FactorSinks { a, b })
    }

    /// dL/dB from dL/d((alpha / r) B), in its sink.
    fn outside_backward(&self, parameters: &Parameters<D>) -> Result<()> {
        if !self.learns {
            return Ok(());
        }
        parameters.list[self.b].sink.with(|db| parameters.device.scale(db, self.scaling))
    }

    fn pack(&self, parameters: &Parameters<D>) -> Result<Option<StoredLowRank>> {
        let [a, b] = self.as_stored(parameters)?;
        let halves = |x: &D::Buffer| -> Result<Vec<f16>> {
            Ok(Vec::from_f32_slice(&D::Number::to_f32s(&parameters.device.read(x)?)))
        };
        Ok(Some(StoredLowRank { rank: self.rank, a: halves(&a)?, b: halves(&b)? }))
    }
}
