//! SmolLM3: Llama without a rotation in every fourth layer.

use crate::architecture::fields::{self, Fields};
use crate::architecture::{Architecture, Family};
use crate::error::Result;

pub struct SmolLm3;

impl Family for SmolLm3 {
    fn name(&self) -> &'static str {
        "smollm3"
    }

    fn class(&self) -> &'static str {
        "SmolLM3ForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::rope_layers(io, graph, 4)
    }

    fn tied_head(&self) -> bool {
        true
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("rope_theta", 2_000_000.0),
            ("max_position_embeddings", 32_768.0),
            ("num_key_value_heads", 4.0),
            ("use_sliding_window", 0.0),
        ]
    }

    /// The list of layers says it.
    fn settled_keys(&self) -> &'static [&'static str] {
        &["no_rope_layer_interval"]
    }

    fn interleaves_rows(&self) -> bool {
        true
    }
}
