//! Qwen3, dense: norms of the heads of queries and keys, and a head width of its own.

use crate::architecture::fields::{self, Fields};
use crate::architecture::{Architecture, Family, QkNorm};
use crate::error::Result;
use serde_json::Value;

pub struct Qwen3;

impl Family for Qwen3 {
    fn name(&self) -> &'static str {
        "qwen3"
    }

    fn class(&self) -> &'static str {
        "Qwen3ForCausalLM"
    }

    fn describe(&self, _: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::each_attention(graph, |a| a.qk_norm = Some(QkNorm::Head));
        Ok(())
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        super::QWEN3
    }

    fn text_model_types(&self) -> &'static [&'static str] {
        &["qwen3_vl_text"]
    }

    /// The norms are there whatever these say.
    fn settled_keys(&self) -> &'static [&'static str] {
        &["qk_norm", "use_qk_norm"]
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("attention_bias", false.into()), ("use_sliding_window", false.into())]
    }
}
