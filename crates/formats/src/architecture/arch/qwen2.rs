//! Qwen 1.5, 2 and 2.5, and what is distilled into them: biases on queries, keys and values.

use crate::architecture::{Architecture, Defaults, Family, Sizes};
use serde_json::Value;

pub struct Qwen2;

impl Family for Qwen2 {
    fn name(&self) -> &'static str {
        "qwen2"
    }

    fn class(&self) -> &'static str {
        "Qwen2ForCausalLM"
    }

    fn graph(&self, sizes: &Sizes) -> Architecture {
        let mut decoder = sizes.decoder(self.name());
        decoder.layers.iter_mut().for_each(|layer| layer.attention.qkv_bias = true);
        decoder
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            positions: 32_768,
            kv_heads: Some(32),
            use_sliding_window: false,
            ..Defaults::default()
        }
    }

    /// The biases are there whatever these say.
    fn settled_keys(&self) -> &'static [&'static str] {
        &["attention_bias", "qkv_bias", "use_qkv_bias"]
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("use_sliding_window", false.into())]
    }
}
