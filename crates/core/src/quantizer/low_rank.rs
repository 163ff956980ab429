//! Low-rank factors of a quantized linear: `y = x Wq^T + (alpha / r) (x A^T) B^T` (ApiQ, 2024,
//! arXiv 2402.05147; LoRA, arXiv 2106.09685).
//!
//!     A [r, I] uniform in +-1/sqrt(I) (Kaiming, as the authors), B [O, r] = 0        x is the input before any quantizer
//!
//! The forward uses both as they will be stored: A and (alpha / r) B in f16; gradients pass the
//! rounding unchanged.

use crate::Result;
use crate::autograd::ops::Sink;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::{Device, DeviceBuffer, Number};
use crate::quantizer::builder::{Builder, part_name};
use half::f16;
use half::vec::HalfFloatVecExt;
use halfstep_formats::LowRank;
use halfstep_formats::architecture::TensorSpec;
use halfstep_kernels::Real;
use halfstep_kernels::rng::Rng;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Low-rank factors `A [rank, I]`, `B [O, rank]` of a quantized linear: `y = x Wq^T + (alpha / rank) (x
/// A^T) B^T`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct LowRankConfig {
    /// Rank of the factors, 1 or more.
    pub rank: usize,
    /// The product of the factors is multiplied by alpha / rank; above 0.
    pub alpha: f64,
}

/// The RNG stream of first factors; the matrix's number is added to it.
const FACTOR_STREAM: u64 = 2 << 32;

/// Indices of a matrix's factors among the parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRankPart {
    a: usize,
    b: usize,
    rank: usize,
    /// alpha / rank.
    scaling: f64,
    learns: bool,
}

/// Factors as one forward uses them.
#[derive(Clone)]
pub(crate) struct Factors<D: Device> {
    /// `[r, I]`.
    pub(crate) a: D::Weight,
    /// `[O, r]`, alpha / r included.
    pub(crate) b: D::Weight,
}

/// Where the gradients of both factors go.
#[derive(Clone)]
pub(crate) struct FactorSinks<D: Device> {
    pub(crate) a: Sink<D>,
    pub(crate) b: Sink<D>,
}

impl LowRankPart {
    /// First factors of the weight `spec`; `number` tells the matrices of a model apart.
    pub(crate) fn new<D: Device>(
        builder: &mut Builder<D>,
        spec: &TensorSpec,
        config: LowRankConfig,
        seed: u64,
        number: u64,
    ) -> Result<Self> {
        let (rows, cols, rank) = (spec.shape[0], spec.shape[1], config.rank);
        let mut rng = Rng { seed, stream: FACTOR_STREAM + number, counter: 0 };
        let bound = 1.0 / (cols as f64).sqrt();
        let a = (0..rank * cols)
            .map(|_| <D::Number as Real>::from_f64((2.0 * rng.next_f64() - 1.0) * bound))
            .collect();
        let b = vec![<D::Number as Real>::ZERO; rows * rank];
        Self::register(builder, &spec.name, rank, [a, b], config.alpha / rank as f64)
    }

    /// Factors that an earlier stage stored.
    pub(crate) fn stored<D: Device>(
        builder: &mut Builder<D>,
        name: &str,
        stored: &LowRank,
    ) -> Result<Self> {
        let factors = [numbers(&stored.a), numbers(&stored.b)];
        // B holds alpha / r already.
        Self::register(builder, name, stored.rank, factors, 1.0)
    }

    fn register<D: Device>(
        builder: &mut Builder<D>,
        name: &str,
        rank: usize,
        [a, b]: [Vec<D::Number>; 2],
        scaling: f64,
    ) -> Result<Self> {
        let learns = builder.trains.low_rank;
        let mut add = |part: &str, values: Vec<D::Number>| {
            builder.add_absolute(&part_name(name, part), Group::LowRank, values, learns)
        };
        let (a, b) = (add("low_rank_a", a)?, add("low_rank_b", b)?);
        Ok(Self { a, b, rank, scaling, learns })
    }

    pub(crate) fn forward<D: Device>(&self, parameters: &Parameters<D>) -> Result<Factors<D>> {
        let (device, [a, b]) = (&parameters.device, self.as_stored(parameters)?);
        let cols = a.len() / self.rank;
        Ok(Factors { a: device.weight(a, cols)?, b: device.weight(b, self.rank)? })
    }

    /// Where the gradients of both go; None if they do not learn.
    pub(crate) fn sinks<D: Device>(&self, parameters: &Parameters<D>) -> Option<FactorSinks<D>> {
        let [a, b] = [self.a, self.b].map(|index| parameters.list[index].sink.clone());
        self.learns.then_some(FactorSinks { a, b })
    }

    /// dL/dB from dL/d((alpha / r) B), in its sink.
    pub(crate) fn backward<D: Device>(&self, parameters: &Parameters<D>) -> Result<()> {
        if !self.learns {
            return Ok(());
        }
        parameters.list[self.b].sink.with(|db| parameters.device.scale(db, self.scaling))
    }

    /// Exactly what the forward used.
    pub(crate) fn pack<D: Device>(&self, parameters: &Parameters<D>) -> Result<LowRank> {
        let [a, b] = self.as_stored(parameters)?;
        let halves = |x: &D::Buffer| -> Result<Vec<f16>> {
            Ok(Vec::from_f32_slice(&D::Number::to_f32s(&parameters.device.read(x)?)))
        };
        Ok(LowRank { rank: self.rank, a: halves(&a)?, b: halves(&b)? })
    }

    fn as_stored<D: Device>(&self, parameters: &Parameters<D>) -> Result<[D::Buffer; 2]> {
        let value = |index: usize| &parameters.list[index].value;
        let device = &parameters.device;
        Ok([device.round_f16(value(self.a), 1.0)?, device.round_f16(value(self.b), self.scaling)?])
    }
}

/// Factors of a file as a forward uses them.
pub(crate) fn factors<D: Device>(device: &D, stored: &LowRank) -> Result<Factors<D>> {
    let cols = stored.a.len() / stored.rank;
    let weight = |of: &[f16], cols| device.weight(device.upload(numbers(of))?, cols);
    Ok(Factors { a: weight(&stored.a, cols)?, b: weight(&stored.b, stored.rank)? })
}

fn numbers<T: Number>(halves: &[f16]) -> Vec<T> {
    T::from_f32s(halves.iter().map(|v| v.to_f32()).collect())
}
