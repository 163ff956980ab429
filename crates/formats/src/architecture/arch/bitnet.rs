//! BitNet b1.58: a squared ReLU with a gate, and norms before o and down. Its weights are ternary and
//! its activations 8-bit where a config says so; see [`crate::bitnet_folder`].

use crate::architecture::fields::{self, Fields};
use crate::architecture::{Activation, Architecture, Family, FeedForward};
use crate::error::Result;

pub struct BitNet;

impl Family for BitNet {
    fn name(&self) -> &'static str {
        "bitnet"
    }

    fn class(&self) -> &'static str {
        "BitNetForCausalLM"
    }

    /// What GGUF calls bitnet is an older form with another activation.
    fn gguf_architecture(&self) -> Option<&'static str> {
        None
    }

    fn describe(&self, _: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::each_attention(graph, |a| a.sub_norm = true);
        fields::each(graph, |layer| {
            if let FeedForward::Dense(dense) = &mut layer.feed_forward {
                dense.sub_norm = true;
            }
        });
        Ok(())
    }

    fn activation(&self) -> Activation {
        Activation::SquaredRelu
    }

    fn quantization_method(&self) -> Option<&'static str> {
        Some("bitnet")
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 500_000.0),
            ("num_key_value_heads", 5.0),
            ("use_sliding_window", 0.0),
        ]
    }
}
