//! Mistral 7B, Nemo and Small 3 as Hugging Face folders: Llama, with a window in every layer in the
//! oldest ones. Without a window it is read as the Llama it is; with one, no GGUF file holds it,
//! since those of Llama have no window.

use crate::architecture::fields::{self, Fields, Form, SLIDING_WINDOW, Sliding};
use crate::architecture::{Architecture, Family};
use crate::error::Result;

pub struct Mistral;

impl Family for Mistral {
    fn name(&self) -> &'static str {
        "mistral"
    }

    fn class(&self) -> &'static str {
        "MistralForCausalLM"
    }

    fn gguf_architecture(&self) -> Option<&'static str> {
        None
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        if io.form() == Form::Gguf {
            let reason = "GGUF files of this family have no window; write a Hugging Face folder or \
                          the halfstep format";
            return Err(io.refuse(&SLIDING_WINDOW, reason.into()));
        }
        fields::windows(io, graph, Sliding::All)?;
        if io.reads() && graph.attentions().all(|a| a.window.is_none()) {
            graph.family = "llama";
        }
        Ok(())
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("sliding_window", 4096.0),
            ("max_position_embeddings", 131_072.0),
            ("num_key_value_heads", 8.0),
        ]
    }
}
