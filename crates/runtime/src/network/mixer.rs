//! The first half of a layer: what lets a row know of the rows before it.

use super::attention::Attention;
use super::convolution::Convolution;
use super::delta_rule::DeltaRule;
use crate::cache::LayerCache;

pub(super) enum Mixer {
    Attention(Box<Attention>),
    DeltaRule(Box<DeltaRule>),
    Convolution(Box<Convolution>),
}

impl Mixer {
    /// What is kept of a sequence without tokens.
    pub fn empty_cache(&self) -> LayerCache {
        match self {
            Mixer::Attention(attention) => attention.empty_cache(),
            Mixer::DeltaRule(delta) => LayerCache::State(delta.empty_state()),
            Mixer::Convolution(convolution) => LayerCache::State(convolution.empty_state()),
        }
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Mixer::Attention(attention) => attention.bytes(),
            Mixer::DeltaRule(delta) => delta.bytes(),
            Mixer::Convolution(convolution) => convolution.bytes(),
        }
    }
}
