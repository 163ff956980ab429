//! StableLM 2: layer norms with biases, a rotation of a part of each head; in the larger ones
//! layers whose halves read the same rows, and a norm of each head.

use crate::architecture::fields::{self, Fields, Form, Key, PARALLEL};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family, NormKind, QkNorm};
use crate::error::Result;

pub struct StableLm;

const QKV_BIAS: Key = Key { config: &["use_qkv_bias"], gguf: None };
const QK_NORM: Key = Key { config: &["qk_layernorm"], gguf: None };

impl Family for StableLm {
    fn name(&self) -> &'static str {
        "stablelm"
    }

    fn class(&self) -> &'static str {
        "StableLmForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        graph.norm.bias = true;
        let Some(first) = graph.attentions().next() else { return Ok(()) };
        let (mut parallel, mut bias) = (graph.layers[0].parallel, first.qkv_bias);
        let mut qk_norm = first.qk_norm.is_some();
        fields::flag(io, &PARALLEL, &mut parallel)?;
        if io.form() == Form::HuggingFace {
            fields::flag(io, &QKV_BIAS, &mut bias)?;
            fields::flag(io, &QK_NORM, &mut qk_norm)?;
        }
        bias = io.has_tensor("blk.0.attn_q.bias").unwrap_or(bias);
        qk_norm = io.has_tensor("blk.0.attn_q_norm.weight").unwrap_or(qk_norm);
        fields::each(graph, |layer| {
            layer.parallel = parallel;
            layer.norms.pre_feed_forward = !parallel;
        });
        fields::each_attention(graph, |a| {
            a.qkv_bias = bias;
            a.qk_norm = qk_norm.then_some(QkNorm::PerHead);
        });
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        super::NARROW
    }

    fn norm_kind(&self) -> NormKind {
        NormKind::Layer
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("max_position_embeddings", 4096.0),
            ("partial_rotary_factor", 0.25),
            ("num_key_value_heads", 32.0),
        ]
    }
}
