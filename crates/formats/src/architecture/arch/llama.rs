//! Llama 1 to 3, SmolLM2, TinyLlama and whatever else is stored as one: the plain decoder.

use crate::architecture::{Architecture, Family, Sizes};
use serde_json::Value;

pub struct Llama;

impl Family for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn class(&self) -> &'static str {
        "LlamaForCausalLM"
    }

    fn graph(&self, sizes: &Sizes) -> Architecture {
        sizes.decoder(self.name())
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("attention_bias", false.into()), ("mlp_bias", false.into())]
    }

    fn interleaves_rows(&self) -> bool {
        true
    }
}
