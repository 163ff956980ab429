//! `gguf:q8_0`: groups of 32, codes -127 to 127, an f16 scale.

use super::TargetId;
use super::ggml::Ggml;
use halfstep_kernels::{ActivationQuantizer, WeightQuantizer};

pub(super) const TARGET: Ggml = Ggml {
    id: TargetId::GgufQ8_0,
    weights: WeightQuantizer::Q8_0,
    mixes: &[WeightQuantizer::Q8_0, WeightQuantizer::Q4_0],
    activation: ActivationQuantizer::DynamicBlock32,
};
