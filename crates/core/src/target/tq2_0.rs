//! `gguf:tq2_0`: groups of 256, codes -1 to 1, an f16 scale.

use super::TargetId;
use super::ggml::Ggml;
use halfstep_kernels::{ActivationSpec, QuantSpec};

pub(super) const TARGET: Ggml = Ggml {
    id: TargetId::GgufTQ2_0,
    weights: QuantSpec::TQ2_0,
    mixes: &[QuantSpec::TQ2_0],
    activation: ActivationSpec::BLOCK_256,
};
