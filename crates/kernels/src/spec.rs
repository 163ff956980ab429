//! The words that decide bytes: which codes exist, who shares a scale, how a scale is stored.

use serde::{Deserialize, Serialize};

/// Which integers a grid of `bits` bits uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum CodeRange {
    /// `-2^(b-1) ..= 2^(b-1)-1`, no zero point.
    Symmetric,
    /// `-(2^(b-1)-1) ..= 2^(b-1)-1`, no zero point (ggml's Q8_0: -127..=127).
    Narrow,
    /// `0 ..= 2^b-1` with an integer zero point `z`: value = (code - z) * scale.
    Affine,
}

/// A uniform integer grid, 2 to 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct IntGrid {
    /// Number of bits of a code, 2 to 8.
    pub bits: u8,
    /// Which of the integers with so many bits are codes.
    pub range: CodeRange,
}

impl IntGrid {
    pub const fn symmetric(bits: u8) -> Self {
        Self { bits, range: CodeRange::Symmetric }
    }
    pub const fn narrow(bits: u8) -> Self {
        Self { bits, range: CodeRange::Narrow }
    }
    pub const fn affine(bits: u8) -> Self {
        Self { bits, range: CodeRange::Affine }
    }
    /// Smallest code, often written n or QN.
    pub const fn min(self) -> i32 {
        match self.range {
            CodeRange::Symmetric => -(1 << (self.bits - 1)),
            CodeRange::Narrow => -((1 << (self.bits - 1)) - 1),
            CodeRange::Affine => 0,
        }
    }
    /// Largest code, often written p or QP.
    pub const fn max(self) -> i32 {
        match self.range {
            CodeRange::Affine => (1 << self.bits) - 1,
            _ => (1 << (self.bits - 1)) - 1,
        }
    }
}

/// Which elements of a matrix `[O, I]` share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum Granularity {
    /// The whole matrix: one scale.
    Tensor,
    /// One row: `[O]` scales.
    Channel,
    /// `n` consecutive columns of one row: `[O, ceil(I / n)]` scales. The last group of a row may
    /// be short.
    Group(usize),
}

impl Granularity {
    /// Columns that share a scale, for a row of `cols` columns.
    pub fn group_size(self, cols: usize) -> usize {
        match self {
            Granularity::Group(n) => n.min(cols.max(1)),
            _ => cols,
        }
    }
    /// Scales per row (1 for `Channel`; `Tensor` has one for all rows together).
    pub fn groups(self, cols: usize) -> usize {
        cols.div_ceil(self.group_size(cols).max(1))
    }
    /// Number of scales of a matrix `[rows, cols]`.
    pub fn scales(self, rows: usize, cols: usize) -> usize {
        if self == Granularity::Tensor { 1 } else { rows * self.groups(cols) }
    }
    /// Index of the scale of element (row, col).
    pub fn scale_index(self, row: usize, col: usize, cols: usize) -> usize {
        match self {
            Granularity::Tensor => 0,
            Granularity::Channel => row,
            Granularity::Group(n) => row * self.groups(cols) + col / n,
        }
    }
}

/// How a scale is stored. Arithmetic always uses the scale *as stored*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum ScaleCodec {
    F32,
    F16,
}

/// What decides the bytes of a quantized weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuantSpec {
    /// Which codes there are.
    pub grid: IntGrid,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// How a scale is stored.
    pub scale_codec: ScaleCodec,
}

impl QuantSpec {
    /// ggml's Q4_0: groups of 32, codes -8..=7, f16 scale.
    pub const Q4_0: Self = Self {
        grid: IntGrid::symmetric(4),
        granularity: Granularity::Group(32),
        scale_codec: ScaleCodec::F16,
    };
    /// ggml's Q8_0: groups of 32, codes -127..=127, f16 scale.
    pub const Q8_0: Self = Self {
        grid: IntGrid::narrow(8),
        granularity: Granularity::Group(32),
        scale_codec: ScaleCodec::F16,
    };
    /// ggml's TQ2_0: groups of 256, codes -1, 0, 1, f16 scale.
    pub const TQ2_0: Self = Self {
        grid: IntGrid::narrow(2),
        granularity: Granularity::Group(256),
        scale_codec: ScaleCodec::F16,
    };
}

/// How the input of a quantized matmul becomes integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum ActivationQuantizer {
    /// Left in floating point.
    #[default]
    None,
    /// Per token (row): scale = max|x| / p in f32, code = nearest-even(x / scale), value = code *
    /// scale.
    DynamicToken {
        /// Number of bits of a code, 2 to 8.
        bits: u8,
    },
    /// ggml's Q8_0 activations, blocks of 32: id = 127 / max|x| in f32 (0 for an all-zero block),
    /// code = nearest-even(x * id), value = code * f16(max|x| / 127).
    DynamicBlock32,
    /// ggml's Q8_K activations, which its K and ternary types are multiplied with, blocks of 256:
    /// id = -127 / m in f32, m the first x of largest magnitude with its sign (id 0 for an all-zero
    /// block), code = nearest-even(x * id), value = code * (1 / id).
    DynamicBlock256,
    /// One step for the site, found by calibration or learned, stored with the model:
    /// code = clip(nearest-even(x / step)), value = code * step.
    Static { bits: u8 },
}

/// How K (after RoPE) and V are kept between tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum CacheQuantizer {
    F32,
    /// Rounded to f16 (what llama.cpp does unless asked).
    #[default]
    F16,
    /// Per token and key/value head: scale = max|x| / p, code = nearest-even(x / scale).
    DynamicHead {
        bits: u8,
    },
    /// ggml's Q8_0 along the head width: blocks of 32, same rule as
    /// [`ActivationQuantizer::DynamicBlock32`].
    Q8_0,
    /// One step per site (k_cache, v_cache) and layer, stored with the model.
    Static {
        bits: u8,
    },
}
