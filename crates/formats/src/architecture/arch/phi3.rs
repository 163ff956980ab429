//! Phi-3, 3.5 and 4 (mini): q, k and v in one matrix, gate and up in one, frequencies by tables.

use crate::architecture::fields::{self, Fields, Form, Sliding};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family, Linear};
use crate::error::Result;

pub struct Phi3;

impl Family for Phi3 {
    fn name(&self) -> &'static str {
        "phi3"
    }

    fn class(&self) -> &'static str {
        "Phi3ForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::windows(io, graph, Sliding::All)?;
        match io.form() {
            Form::HuggingFace => Ok(()),
            Form::Gguf => {
                let positions = graph.max_positions;
                fields::unheeded_window(io, graph, "of this family", positions)
            }
        }
    }

    fn gguf_readers(&self) -> Readers {
        Readers { head_width: false, partial_rotation: true, long_rope: true, ..Readers::PLAIN }
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("rms_norm_eps", 1e-5), ("max_position_embeddings", 4096.0)]
    }

    fn fused(&self, form: Form) -> &'static [(&'static [Linear], &'static str)] {
        match form {
            Form::HuggingFace => &[
                (&[Linear::Q, Linear::K, Linear::V], "self_attn.qkv_proj"),
                (&[Linear::Gate, Linear::Up], "mlp.gate_up_proj"),
            ],
            Form::Gguf => &[
                (&[Linear::Q, Linear::K, Linear::V], "attn_qkv"),
                (&[Linear::Gate, Linear::Up], "ffn_up"),
            ],
        }
    }
}
