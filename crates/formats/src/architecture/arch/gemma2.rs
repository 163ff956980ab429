//! Gemma 2: norms around both halves of a layer, a window in every second one, and caps on scores
//! and logits.

use crate::architecture::fields::{self, ATTENTION_SOFTCAP, FINAL_SOFTCAP, Fields, Form, Sliding};
use crate::architecture::readers::{HeadTensor, Readers};
use crate::architecture::{Activation, Architecture, Family};
use crate::error::Result;

pub struct Gemma2;

/// Layers of the largest one.
const LARGEST: usize = 46;
/// Positions that sliding layers see where a GGUF file does not say it, as the first ones did not.
const WINDOW: usize = 4096;
/// Caps of scores and of logits where it does not say them.
const CAPS: [f64; 2] = [50.0, 30.0];

impl Family for Gemma2 {
    fn name(&self) -> &'static str {
        "gemma2"
    }

    fn class(&self) -> &'static str {
        "Gemma2ForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        super::gemma(graph);
        fields::query_scalar(io, graph, LARGEST)?;
        if io.reads() && io.form() == Form::Gguf {
            fields::each_attention(graph, |a| {
                a.window = Some(WINDOW);
                a.softcap = Some(CAPS[0]);
            });
            graph.logit_softcap = Some(CAPS[1]);
        }
        fields::of_attention(io, &ATTENTION_SOFTCAP, graph, |attention| &mut attention.softcap)?;
        io.number(&FINAL_SOFTCAP, &mut graph.logit_softcap)?;
        self.needs_caps(io, graph)?;
        fields::windows(io, graph, Sliding::ButEvery(2))?;
        fields::needs_window(io, graph)
    }

    fn gguf_readers(&self) -> Readers {
        Readers { partial_rotation: true, head: HeadTensor::Embedding, ..Readers::PLAIN }
    }

    fn activation(&self) -> Activation {
        Activation::GeluTanh
    }

    fn norm_offset(&self) -> f64 {
        1.0
    }

    fn tied_head(&self) -> bool {
        true
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("vocab_size", 256_000.0),
            ("hidden_size", 2304.0),
            ("intermediate_size", 9216.0),
            ("num_hidden_layers", 26.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 8192.0),
            ("query_pre_attn_scalar", 256.0),
            ("sliding_window", 4096.0),
            ("attn_logit_softcapping", 50.0),
            ("final_logit_softcapping", 30.0),
        ]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        super::AROUND
    }
}

impl Gemma2 {
    /// Refuses a GGUF file without caps: its readers have them in any case.
    fn needs_caps(&self, io: &dyn Fields, graph: &Architecture) -> Result<()> {
        if io.reads() || io.form() != Form::Gguf {
            return Ok(());
        }
        let scores = graph.attentions().all(|a| a.softcap.is_some());
        let cases = [(&ATTENTION_SOFTCAP, scores), (&FINAL_SOFTCAP, graph.logit_softcap.is_some())];
        for ((key, is_there), cap) in cases.into_iter().zip(CAPS) {
            if !is_there {
                let reason = format!("it is missing, and readers of GGUF files then take {cap}");
                return Err(fields::beyond_gguf(io, key, reason));
            }
        }
        Ok(())
    }
}
