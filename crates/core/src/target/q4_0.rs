//! `gguf:q4_0`: groups of 32, codes -8 to 7, an f16 scale.

use super::TargetId;
use super::ggml::Ggml;
use halfstep_kernels::{ActivationSpec, QuantSpec};

pub(super) const TARGET: Ggml = Ggml {
    id: TargetId::GgufQ4_0,
    weights: QuantSpec::Q4_0,
    mixes: &[QuantSpec::Q4_0, QuantSpec::Q8_0],
    activation: ActivationSpec::BLOCK_32,
};
