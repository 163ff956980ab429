//! Nemotron and Minitron: layer norms whose weights are stored less 1, a squared ReLU without a gate,
//! a rotation of a part of each head.

use crate::architecture::fields::{self, Fields};
use crate::architecture::readers::Readers;
use crate::architecture::{Activation, Architecture, Family, FeedForward, NormKind};
use crate::error::Result;

pub struct Nemotron;

impl Family for Nemotron {
    fn name(&self) -> &'static str {
        "nemotron"
    }

    fn class(&self) -> &'static str {
        "NemotronForCausalLM"
    }

    fn describe(&self, _: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        graph.norm.bias = true;
        fields::each(graph, |layer| {
            if let FeedForward::Dense(dense) = &mut layer.feed_forward {
                dense.gated = false;
            }
        });
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        super::NARROW
    }

    fn activation(&self) -> Activation {
        Activation::SquaredRelu
    }

    fn norm_kind(&self) -> NormKind {
        NormKind::Layer
    }

    fn norm_eps_key(&self) -> &'static str {
        "norm_eps"
    }

    fn norm_offset(&self) -> f64 {
        1.0
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("norm_eps", 1e-5), ("max_position_embeddings", 4096.0), ("partial_rotary_factor", 0.5)]
    }
}
