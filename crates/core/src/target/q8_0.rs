//! `gguf:q8_0`: groups of 32, codes -127 to 127, an f16 scale.

use super::TargetId;
use super::ggml::Ggml;
use halfstep_kernels::{ActivationSpec, QuantSpec};

pub(super) const TARGET: Ggml = Ggml {
    id: TargetId::GgufQ8_0,
    weights: QuantSpec::Q8_0,
    mixes: &[QuantSpec::Q8_0, QuantSpec::Q4_0],
    activation: ActivationSpec::BLOCK_32,
};
