//! How activations and the cache are quantized.

use serde::{Deserialize, Serialize};

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
