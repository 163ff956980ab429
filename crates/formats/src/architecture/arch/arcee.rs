//! Arcee's AFM: Llama with a squared ReLU without a gate.

use crate::architecture::fields::{self, Fields};
use crate::architecture::readers::Readers;
use crate::architecture::{Activation, Architecture, Family, FeedForward};
use crate::error::Result;

pub struct Arcee;

impl Family for Arcee {
    fn name(&self) -> &'static str {
        "arcee"
    }

    fn class(&self) -> &'static str {
        "ArceeForCausalLM"
    }

    fn describe(&self, _: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::each(graph, |layer| {
            if let FeedForward::Dense(dense) = &mut layer.feed_forward {
                dense.gated = false;
            }
        });
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        Readers { long_rope: false, ..Readers::LLAMA }
    }

    fn activation(&self) -> Activation {
        Activation::SquaredRelu
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("rms_norm_eps", 1e-5), ("max_position_embeddings", 4096.0)]
    }

    fn interleaves_rows(&self) -> bool {
        true
    }
}
