//! Seed-OSS: Llama with biases on queries, keys and values, and a head width of its own.

use crate::architecture::fields::{self, Fields, Form, Key};
use crate::architecture::{Architecture, Family};
use crate::error::Result;
use serde_json::Value;

pub struct SeedOss;

const QKV_BIAS: Key = Key { config: &["attention_bias"], gguf: None };

impl Family for SeedOss {
    fn name(&self) -> &'static str {
        "seed_oss"
    }

    fn class(&self) -> &'static str {
        "SeedOssForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        let first = graph.attentions().next();
        let mut bias = io.reads() || first.is_some_and(|a| a.qkv_bias);
        if io.form() == Form::HuggingFace {
            fields::flag(io, &QKV_BIAS, &mut bias)?;
        }
        bias = io.has_tensor("blk.0.attn_q.bias").unwrap_or(bias);
        fields::each_attention(graph, |a| a.qkv_bias = bias);
        Ok(())
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("max_position_embeddings", 524_288.0), ("num_key_value_heads", 8.0), ("head_dim", 128.0)]
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("attention_out_bias", false.into()), ("mlp_bias", false.into())]
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("post_attention_layernorm", "post_attention_norm")]
    }
}
