//! Qwen 1.5, 2 and 2.5, and what is distilled into them: biases on queries, keys and values.

use crate::architecture::fields::{self, Fields};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family};
use crate::error::Result;
use serde_json::Value;

pub struct Qwen2;

impl Family for Qwen2 {
    fn name(&self) -> &'static str {
        "qwen2"
    }

    fn class(&self) -> &'static str {
        "Qwen2ForCausalLM"
    }

    fn describe(&self, _: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::each_attention(graph, |a| a.qkv_bias = true);
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        Readers { head_width: false, ..Readers::PLAIN }
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        super::QWEN
    }

    fn text_model_types(&self) -> &'static [&'static str] {
        &["qwen2_vl_text", "qwen2_5_vl_text"]
    }

    /// The biases are there whatever these say.
    fn settled_keys(&self) -> &'static [&'static str] {
        &["attention_bias", "qkv_bias", "use_qkv_bias"]
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("use_sliding_window", false.into())]
    }
}
