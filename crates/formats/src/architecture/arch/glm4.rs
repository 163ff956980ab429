//! GLM-4 of April 2025: norms around both halves of a layer, biases on queries, keys and values,
//! neighbours in the first half of a head turned as pairs, gate and up in one matrix.

use crate::architecture::fields::{self, Fields, Form};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family, Linear, NormPlaces};
use crate::error::Result;
use halfstep_kernels::ops::rope::RopePairs;

pub struct Glm4;

const QKV_BIAS: fields::Key = fields::Key { config: &["attention_bias"], gguf: None };

impl Family for Glm4 {
    fn name(&self) -> &'static str {
        "glm4"
    }

    fn class(&self) -> &'static str {
        "Glm4ForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        let mut bias = graph.attentions().next().is_some_and(|a| a.qkv_bias);
        if io.form() == Form::HuggingFace {
            fields::flag(io, &QKV_BIAS, &mut bias)?;
        }
        bias = io.has_tensor("blk.0.attn_q.bias").unwrap_or(bias);
        fields::each(graph, |layer| layer.norms = NormPlaces::AROUND);
        fields::each_attention(graph, |a| a.qkv_bias = bias);
        super::interleaved(graph, RopePairs::Interleaved);
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        Readers { partial_rotation: true, ..Readers::PLAIN }
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("rms_norm_eps", 1.5625e-7),
            ("max_position_embeddings", 131_072.0),
            ("head_dim", 128.0),
            ("num_key_value_heads", 2.0),
            ("partial_rotary_factor", 0.5),
            ("attention_bias", 1.0),
        ]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("post_attention_norm", "post_self_attn_layernorm"),
            ("post_feedforward_norm", "post_mlp_layernorm"),
        ]
    }

    fn fused(&self, form: Form) -> &'static [(&'static [Linear], &'static str)] {
        match form {
            Form::HuggingFace => &[(&[Linear::Gate, Linear::Up], "mlp.gate_up_proj")],
            Form::Gguf => &[(&[Linear::Gate, Linear::Up], "ffn_up")],
        }
    }
}
