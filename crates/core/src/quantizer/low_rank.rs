//! Low-rank factors of a quantized linear: `y = x Wq^T + (alpha / r) (x A^T) B^T` (ApiQ, 2024,
//! arXiv 2402.05147; LoRA, arXiv 2106.09685).
//!
//!     A [r, I] uniform in +-1/sqrt(I) (Kaiming, as the authors), B [O, r] = 0        x is the input before any quantizer
//!
//! The forward uses both as they will be stored: A and (alpha / r) B in f16; gradients pass the
//! rounding unchanged.

use crate::autograd::ops::weight::Weight;
use crate::autograd::ops::{Number, Sink};
use crate::autograd::parameter::{Group, Parameters};
use crate::quantizer::builder::{Builder, part_name};
use half::f16;
use half::vec::HalfFloatVecExt;
use halfstep_formats::LowRank;
use halfstep_formats::architecture::TensorSpec;
use halfstep_kernels::Real;
use halfstep_kernels::quant::scale::round_f16;
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

/// Places of a matrix's factors among the parameters.
#[derive(Clone, Copy, Debug)]
pub struct LowRankPart {
    a: usize,
    b: usize,
    rank: usize,
    /// alpha / rank.
    scaling: f64,
    learns: bool,
}

/// Factors as one forward uses them.
#[derive(Clone)]
pub struct Factors<T> {
    /// `[r, I]`.
    pub a: Weight<T>,
    /// `[O, r]`, alpha / r included.
    pub b: Weight<T>,
}

/// Where the gradients of both go.
#[derive(Clone)]
pub struct FactorSinks<T> {
    pub a: Sink<T>,
    pub b: Sink<T>,
}

impl LowRankPart {
    /// First factors of the weight `spec`; `number` tells the matrices of a model apart.
    pub fn new<T: Number>(
        builder: &mut Builder<T>,
        spec: &TensorSpec,
        config: LowRankConfig,
        seed: u64,
        number: u64,
    ) -> Self {
        let (rows, cols, rank) = (spec.shape[0], spec.shape[1], config.rank);
        let mut rng = Rng { seed, stream: FACTOR_STREAM + number, counter: 0 };
        let bound = 1.0 / (cols as f64).sqrt();
        let a = (0..rank * cols)
            .map(|_| <T as Real>::from_f64((2.0 * rng.next_f64() - 1.0) * bound))
            .collect();
        let b = vec![<T as Real>::ZERO; rows * rank];
        Self::register(builder, &spec.name, rank, [a, b], config.alpha / rank as f64)
    }

    /// Factors that an earlier stage stored.
    pub fn stored<T: Number>(builder: &mut Builder<T>, name: &str, stored: &LowRank) -> Self {
        let values = |factor: &[f16]| T::from_f32s(factor.iter().map(|v| v.to_f32()).collect());
        let factors = [values(&stored.a), values(&stored.b)];
        // B holds alpha / r already.
        Self::register(builder, name, stored.rank, factors, 1.0)
    }

    fn register<T: Number>(
        builder: &mut Builder<T>,
        name: &str,
        rank: usize,
        [a, b]: [Vec<T>; 2],
        scaling: f64,
    ) -> Self {
        let learns = builder.trains.low_rank;
        let mut add = |part: &str, values: Vec<T>| {
            builder.add_absolute(&part_name(name, part), Group::LowRank, values, learns)
        };
        Self { a: add("low_rank_a", a), b: add("low_rank_b", b), rank, scaling, learns }
    }

    pub fn forward<T: Number>(&self, parameters: &Parameters<T>) -> Factors<T> {
        let (a, b) = self.as_stored(parameters);
        let cols = a.len() / self.rank;
        Factors { a: Weight::values(a, cols), b: Weight::values(b, self.rank) }
    }

    /// Where the gradients of both go; None if they do not learn.
    pub fn sinks<T: Number>(&self, parameters: &Parameters<T>) -> Option<FactorSinks<T>> {
        let [a, b] = [self.a, self.b].map(|index| parameters.list[index].sink.clone());
        self.learns.then_some(FactorSinks { a, b })
    }

    /// dL/dB from dL/d((alpha / r) B), in its sink.
    pub fn backward<T: Number>(&self, parameters: &Parameters<T>) {
        if !self.learns {
            return;
        }
        let scaling = <T as Real>::from_f64(self.scaling);
        parameters.list[self.b].sink.with(|db| db.iter_mut().for_each(|g| *g *= scaling));
    }

    /// Exactly what the forward used.
    pub fn pack<T: Number>(&self, parameters: &Parameters<T>) -> LowRank {
        let (a, b) = self.as_stored(parameters);
        LowRank {
            rank: self.rank,
            a: Vec::from_f32_slice(&T::to_f32s(&a)),
            b: Vec::from_f32_slice(&T::to_f32s(&b)),
        }
    }

    fn as_stored<T: Number>(&self, parameters: &Parameters<T>) -> (Vec<T>, Vec<T>) {
        let (a, b, scaling) = (
            &parameters.list[self.a].value,
            &parameters.list[self.b].value,
            <T as Real>::from_f64(self.scaling),
        );
        (
            a.iter().map(|&v| round_f16(v)).collect(),
            b.iter().map(|&v| round_f16(v * scaling)).collect(),
        )
    }
}

/// Factors of a file as a forward uses them.
pub fn factors<T: Number>(stored: &LowRank) -> Factors<T> {
    let values = |v: &[f16]| T::from_f32s(v.iter().map(|v| v.to_f32()).collect());
    let cols = stored.a.len() / stored.rank;
    Factors {
        a: Weight::values(values(&stored.a), cols),
        b: Weight::values(values(&stored.b), stored.rank),
    }
}
