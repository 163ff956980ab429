//! A quantized scale with a scale of its own: the K types of ggml (whole numbers under an f16 scale
//! for 256 columns) and NVFP4 (E4M3 under an f32 scale for the whole tensor).
//!
//!     outer = max|scale| / largest, as stored
//!     inner = nearest(scale / outer)       scale = inner * outer
//!
//! A scale that rounds to 0 makes its group zeros.

use super::e4m3::{MAX_E4M3, nearest_e4m3};
use super::{Codec, ScaleCodec};
use serde::{Deserialize, Serialize};

/// How the inner scale is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum InnerScale {
    /// Whole numbers 0 to 15, four bits (Q2_K).
    Uint4,
    /// Whole numbers 0 to 63, six bits (Q4_K, Q5_K).
    Uint6,
    /// Eight-bit floats up to 448 (NVFP4).
    E4M3,
}

/// How the outer scale is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum OuterScale {
    /// As f32.
    F32,
    /// As f16, not below 2^-14.
    F16,
}

/// A scale with a scale of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Nested {
    /// How the inner scale is stored.
    pub inner: InnerScale,
    /// How the outer scale is stored.
    pub outer: OuterScale,
    /// Scales of a row that share an outer one, 1 or more; None: those of the whole tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub scales: Option<usize>,
}

impl InnerScale {
    fn largest(self) -> f32 {
        match self {
            InnerScale::Uint4 => 15.0,
            InnerScale::Uint6 => 63.0,
            InnerScale::E4M3 => MAX_E4M3,
        }
    }

    fn nearest(self, x: f32) -> f32 {
        match self {
            InnerScale::Uint4 | InnerScale::Uint6 => x.abs().round_ties_even().min(self.largest()),
            InnerScale::E4M3 => nearest_e4m3(x.clamp(-MAX_E4M3, MAX_E4M3)),
        }
    }

    fn encode(self, inner: f32) -> u8 {
        match self {
            InnerScale::Uint4 | InnerScale::Uint6 => inner as u8,
            InnerScale::E4M3 => {
                let mut code = vec![];
                super::e4m3::E4M3::encode(inner, &mut code);
                code[0]
            }
        }
    }

    fn decode(self, code: u8) -> f32 {
        match self {
            InnerScale::Uint4 | InnerScale::Uint6 if f32::from(code) > self.largest() => f32::NAN,
            InnerScale::Uint4 | InnerScale::Uint6 => code.into(),
            InnerScale::E4M3 => super::e4m3::E4M3::decode(&[code]),
        }
    }
}

impl OuterScale {
    pub(super) const fn codec(self) -> ScaleCodec {
        match self {
            OuterScale::F32 => ScaleCodec::F32,
            OuterScale::F16 => ScaleCodec::F16,
        }
    }
}

impl Nested {
    /// Scales that share an outer one, of rows with `per_row` scales: a run of a row, or all.
    pub(super) fn run(self, scales: usize, per_row: usize) -> Runs {
        Runs { row: if self.scales.is_some() { per_row } else { scales }, run: self.scales }
    }

    /// Number of outer scales.
    pub(super) fn outer_scales(self, scales: usize, per_row: usize) -> usize {
        self.run(scales, per_row).count(scales)
    }

    /// The outer scales of `scales`, and in their place what is read back.
    pub(super) fn store(self, scales: &mut [f32], per_row: usize) -> Vec<f32> {
        let mut outer = vec![];
        for run in self.run(scales.len(), per_row).over_mut(scales) {
            let most = run
                .iter()
                .fold(0.0f32, |most, s| if s.is_nan() { f32::NAN } else { most.max(s.abs()) });
            let of_run = self.outer.codec().store(most / self.inner.largest());
            for scale in run {
                let inner = if of_run == 0.0 { 0.0 } else { self.inner.nearest(*scale / of_run) };
                *scale = inner * of_run;
            }
            outer.push(of_run);
        }
        outer
    }

    /// A byte for each scale as it was stored under these outer ones. Err: the index of a scale
    /// that was not.
    pub(super) fn encode(
        self,
        scales: &[f32],
        outer: &[f32],
        per_row: usize,
    ) -> Result<Vec<u8>, usize> {
        let mut bytes = Vec::with_capacity(scales.len());
        for (run, &outer) in self.run(scales.len(), per_row).over(scales).zip(outer) {
            for &scale in run {
                let inner = if outer == 0.0 { 0.0 } else { self.inner.nearest(scale / outer) };
                if (inner * outer).to_bits() != scale.to_bits() {
                    return Err(bytes.len());
                }
                bytes.push(self.inner.encode(inner));
            }
        }
        if bytes.len() == scales.len() { Ok(bytes) } else { Err(bytes.len()) }
    }

    /// The scales of the bytes that [`Self::encode`] makes.
    pub(super) fn decode(self, bytes: &[u8], outer: &[f32], per_row: usize) -> Vec<f32> {
        let runs = self.run(bytes.len(), per_row);
        runs.over(bytes)
            .zip(outer)
            .flat_map(|(run, &outer)| run.iter().map(move |&code| self.inner.decode(code) * outer))
            .collect()
    }
}

/// How scales fall into runs: every row into runs of so many, the last of which may be short.
#[derive(Clone, Copy)]
pub(super) struct Runs {
    row: usize,
    run: Option<usize>,
}

impl Runs {
    fn len(self) -> usize {
        self.run.unwrap_or(self.row).max(1)
    }

    fn count(self, scales: usize) -> usize {
        let row = self.row.max(1);
        scales / row * row.div_ceil(self.len())
    }

    fn over<T>(self, scales: &[T]) -> impl Iterator<Item = &[T]> {
        scales.chunks(self.row.max(1)).flat_map(move |row| row.chunks(self.len()))
    }

    fn over_mut<T>(self, scales: &mut [T]) -> impl Iterator<Item = &mut [T]> {
        scales.chunks_mut(self.row.max(1)).flat_map(move |row| row.chunks_mut(self.len()))
    }
}
