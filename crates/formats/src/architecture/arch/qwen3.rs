//! Qwen3, dense: norms of the heads of queries and keys, and a head width of its own.

use crate::architecture::{Architecture, Defaults, Family, QkNorm, Sizes};
use serde_json::Value;

pub struct Qwen3;

impl Family for Qwen3 {
    fn name(&self) -> &'static str {
        "qwen3"
    }

    fn class(&self) -> &'static str {
        "Qwen3ForCausalLM"
    }

    fn graph(&self, sizes: &Sizes) -> Architecture {
        let mut decoder = sizes.decoder(self.name());
        let layers = decoder.layers.iter_mut();
        layers.for_each(|layer| layer.attention.qk_norm = Some(QkNorm::Head));
        decoder
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            positions: 32_768,
            kv_heads: Some(32),
            head_dim: Some(128),
            use_sliding_window: false,
            ..Defaults::default()
        }
    }

    /// The norms are there whatever these say.
    fn settled_keys(&self) -> &'static [&'static str] {
        &["qk_norm", "use_qk_norm"]
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("attention_bias", false.into()), ("use_sliding_window", false.into())]
    }
}
