//! The penalty weighted by saliency; formulas in `statistics/saliency.rs`.

use super::{Tap, Term};
use crate::autograd::parameter::Parameters;
use crate::device::{Device, DeviceWeight, Number};
use crate::layer::weights::BlockWeights;
use crate::quantizer::low_rank::Factors;
use crate::quantizer::matrix::Matrix;
use crate::{Error, Result};
use halfstep_formats::architecture::Linear;
use halfstep_kernels::ops::gemm::{self, Dense, Precision};
use halfstep_kernels::{Pool, Real, uninit_vec};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The penalty sum S (Wq - W)^2, S being squared gradients of the teacher (SAPR, arXiv
/// 2504.13932).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct SaliencyConfig {
    /// Weight of the penalty, 0 or more.
    pub lambda: f64,
    /// How the squared gradients are scaled before lambda multiplies them.
    pub scale: SaliencyScale,
    /// Which difference to the original weights is penalised.
    pub difference: SaliencyDifference,
    /// Number of sequences whose gradients are squared, one at a time.
    pub samples: usize,
    /// Number of tokens of each of these sequences.
    pub sequence_length: usize,
}

/// What lambda multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum SaliencyScale {
    /// S over its mean in the layer, the sum over the number of weights: the same lambda for any
    /// number of texts.
    #[default]
    ScaleFree,
    /// S over its mean in each matrix: compares weights of the same matrix only.
    PerMatrix,
    /// S as summed (the authors' code).
    Raw,
}

/// Which difference is penalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum SaliencyDifference {
    /// Wq - W: reaches the ranges only.
    #[default]
    BeforeLowRank,
    /// Wq + (alpha / rank) B A - W: binds the factors too.
    AfterLowRank,
}

impl Term for SaliencyConfig {
    const TAP: Tap = Tap::Weights;

    fn check(&self) -> Result<()> {
        if !(self.lambda.is_finite() && self.lambda >= 0.0) {
            let reason = format!("must be 0 or more, got {}", self.lambda);
            return Err(Error::config("lambda", reason));
        }
        let (samples, length) = (self.samples, self.sequence_length);
        for (field, value, least) in [("samples", samples, 1), ("sequenceLength", length, 2)] {
            if value < least {
                let reason = format!("must be at least {least}, got {value}");
                return Err(Error::config(field, reason));
            }
        }
        Ok(())
    }
}

/// R of one layer: S of its linears, each with its factor.
pub struct Penalty {
    s: Vec<Vec<f32>>,
    factors: Vec<f64>,
    difference: SaliencyDifference,
}

impl Penalty {
    /// Returns the penalty of one layer from the squared gradients `s` of each of its linears, `[O,
    /// I]` row after row.
    pub fn new(s: Vec<Vec<f32>>, config: &SaliencyConfig) -> Self {
        // mean of S times the number of weights is the sum of S.
        let over = |sum: f64| if sum > 0.0 { config.lambda / sum } else { 0.0 };
        let block = s.iter().map(|s| sum(s)).sum::<f64>();
        let factor = |s: &Vec<f32>| match config.scale {
            SaliencyScale::Raw => config.lambda,
            SaliencyScale::ScaleFree => over(block),
            SaliencyScale::PerMatrix => over(sum(s)),
        };
        Self { factors: s.iter().map(factor).collect(), s, difference: config.difference }
    }

    /// The penalty of each linear by itself; their sum is this one.
    pub(crate) fn by_linears(self) -> Vec<Self> {
        let Self { s, factors, difference } = self;
        let one = |(s, factor)| Self { s: vec![s], factors: vec![factor], difference };
        s.into_iter().zip(factors).map(one).collect()
    }

    /// The factor f of each linear, by which its penalty is multiplied.
    pub fn factors(&self) -> &[f64] {
        &self.factors
    }

    /// Adds the penalty's gradients to the sinks of a layer's `matrices`, whose forward used
    /// `weights`, times `weight`; returns R times it. The formula is computed on the host.
    pub fn add<D: Device>(
        &self,
        weight: f64,
        matrices: &[Matrix<D>],
        parameters: &Parameters<D>,
        weights: &BlockWeights<D>,
    ) -> Result<f64> {
        let (mut total, device) = (0.0, &parameters.device);
        let rows = |of: usize| (0..of as u32).collect::<Vec<_>>();
        for (i, matrix) in matrices.iter().enumerate() {
            let parameter = &parameters.list[matrix.index];
            let linear = Linear::parse(&parameter.name).map(|(_, linear)| linear);
            let found = linear.and_then(|linear| weights.linears.get_key_value(&linear));
            let (linear, used) = found.ok_or_else(|| Error::Internal {
                reason: format!("{} is no linear of the layer", parameter.name),
            })?;
            let beside = matrix
                .low_rank
                .as_ref()
                .zip(weights.low_rank.get(linear))
                .filter(|_| self.difference == SaliencyDifference::AfterLowRank);
            let factors = match beside {
                Some((_, Factors { a, b })) => {
                    let values = |w: &D::Weight| device.embedding(w, &rows(w.rows()));
                    Some([values(a)?, values(b)?])
                }
                None => None,
            };
            let factors = match &factors {
                Some([a, b]) => Some([device.read(a)?, device.read(b)?]),
                None => None,
            };
            let w = device.read(&parameter.value)?;
            let mut wq = device.embedding(used, &rows(matrix.rows))?;
            let (value, by_factors) = device.on_host(&mut wq, |wq| {
                let (s, factor) = (&self.s[i], self.factors[i] * weight);
                let factors = factors.as_ref().map(|[a, b]| [&a[..], &b[..]]);
                let values = std::mem::take(wq);
                let (value, gradients) =
                    penalty(device.pool(), &w, values, s, factor, matrix.cols, factors);
                *wq = gradients.wq;
                (value, gradients.factors)
            })?;
            total += value;
            parameter.sink.add_buffer(device, wq)?;
            if let (Some((part, _)), Some([da, db])) = (beside, by_factors)
                && let Some(sinks) = part.sinks(parameters)
            {
                sinks.a.add_buffer(device, device.upload(da)?)?;
                sinks.b.add_buffer(device, device.upload(db)?)?;
            }
        }
        Ok(total)
    }
}

/// Gradients of the penalty of one matrix.
pub struct PenaltyGradients<T> {
    /// dR/dWq `[O, I]`.
    pub wq: Vec<T>,
    /// dR/dA `[r, I]` and dR/dB `[O, r]`; None without factors.
    pub factors: Option<[Vec<T>; 2]>,
}

/// `f sum S D^2` of one matrix and its gradients; `factors`: A and B (alpha / r included) if D
/// holds them.
pub fn penalty<T: Number>(
    pool: &Pool,
    w: &[T],
    mut wq: Vec<T>,
    s: &[f32],
    f: f64,
    cols: usize,
    factors: Option<[&[T]; 2]>,
) -> (f64, PenaltyGradients<T>) {
    let rows = w.len() / cols;
    if let Some([a, b]) = factors {
        // Wq + B A.
        gemm::linear_backward_input(
            pool,
            Precision::F32,
            &Dense::new(b, a.len() / cols),
            &Dense::new(a, cols),
            &mut wq,
            true,
        );
    }
    let slope = <T as Real>::from_f64(2.0 * f);
    let mut sums = vec![0.0f64; rows];
    pool.parts(
        wq.chunks_mut(cols).zip(&mut sums).collect(),
        |row, (wq, sum): (&mut [T], &mut f64)| {
            for ((wq, &w), &s) in wq.iter_mut().zip(&w[row * cols..]).zip(&s[row * cols..]) {
                let weighted = <T as Real>::from_f32(s) * (*wq - w);
                *sum += Real::to_f64(weighted) * Real::to_f64(*wq - w);
                *wq = slope * weighted;
            }
        },
    );
    let by_factors = factors.map(|[a, b]| {
        let rank = a.len() / cols;
        let (mut da, mut db) = (uninit_vec(a.len()), uninit_vec(b.len()));
        gemm::linear(pool, Precision::F32, &Dense::new(&wq, cols), &Dense::new(a, cols), &mut db); // [O, r]
        gemm::linear_backward_weight(
            pool,
            Precision::F32,
            &Dense::new(b, rank),
            &Dense::new(&wq, cols),
            &mut da,
            false,
        ); // [r, I]
        [da, db]
    });
    (f * sums.iter().sum::<f64>(), PenaltyGradients { wq, factors: by_factors })
}

fn sum(s: &[f32]) -> f64 {
    s.iter().map(|&s| f64::from(s)).sum()
}
