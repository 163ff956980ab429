//! Llama 1 to 3, SmolLM2, TinyLlama and whatever else is stored as one: the plain decoder.

use crate::architecture::fields::Fields;
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family};
use crate::error::Result;
use serde_json::Value;

pub struct Llama;

impl Family for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn class(&self) -> &'static str {
        "LlamaForCausalLM"
    }

    fn describe(&self, _: &mut dyn Fields, _: &mut Architecture) -> Result<()> {
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        Readers::LLAMA
    }

    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![("attention_bias", false.into()), ("mlp_bias", false.into())]
    }

    fn interleaves_rows(&self) -> bool {
        true
    }
}
