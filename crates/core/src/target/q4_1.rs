//! `gguf:q4_1`: groups of 32, codes 0 to 15, an f16 scale of at most 7 significant bits and a zero
//! point, which the block holds as its minimum, -zero_point * scale.
//!
//! llama.cpp multiplies Q4_1 with activations in Q8_1: the codes and scales of Q8_0, and the sum of
//! each block, which it rounds to f16 before the minimum multiplies it. Our products sum the codes
//! exactly, so the two differ by that rounding.

use super::TargetId;
use super::ggml::Ggml;
use halfstep_kernels::{ActivationSpec, QuantSpec};

pub(super) const TARGET: Ggml = Ggml {
    id: TargetId::GgufQ4_1,
    weights: QuantSpec::Q4_1,
    mixes: &[QuantSpec::Q4_1, QuantSpec::Q4_0, QuantSpec::Q8_0],
    activation: ActivationSpec::BLOCK_32,
};
