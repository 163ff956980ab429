//! Gemma 3, its text part: norms around both halves of a layer and of the heads, five layers with a
//! window and a rotation of their own before each one without.

use crate::architecture::fields::{self, FINAL_SOFTCAP, Fields, Form, Key, Sliding};
use crate::architecture::readers::Readers;
use crate::architecture::{
    Activation, Architecture, Family, QkNorm, Rope, RopeScaling, YarnScaling,
};
use crate::error::Result;

pub struct Gemma3;

/// Cap of scores, which no published model has.
const SOFTCAP: Key = Key { config: &["attn_logit_softcapping"], gguf: None };
/// What YaRN multiplies cos and sin by.
const MAGNITUDE: Key = Key { config: &["attention_factor"], gguf: None };
/// Layers of the largest one.
const LARGEST: usize = 62;

/// Base of the frequencies of layers with a window, where a file does not give it.
const SLIDING_THETA: f64 = 10_000.0;

impl Family for Gemma3 {
    fn name(&self) -> &'static str {
        "gemma3"
    }

    fn class(&self) -> &'static str {
        "Gemma3ForCausalLM"
    }

    fn model_type(&self) -> &'static str {
        "gemma3_text"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        super::gemma(graph);
        fields::each_attention(graph, |a| a.qk_norm = Some(QkNorm::Head));
        fields::query_scalar(io, graph, LARGEST)?;
        fields::of_attention(io, &SOFTCAP, graph, |attention| &mut attention.softcap)?;
        let capped = graph.attentions().any(|a| a.softcap.is_some());
        if capped && io.form() == Form::Gguf {
            let reason = "readers of GGUF files leave it out".into();
            return Err(fields::beyond_gguf(io, &SOFTCAP, reason));
        }
        io.number(&FINAL_SOFTCAP, &mut graph.logit_softcap)?;
        let sliding = fields::windows(io, graph, Sliding::ButEvery(6))?;
        let usual = |rope: &Rope| Rope::plain(SLIDING_THETA, rope.turned);
        fields::sliding_rope(io, graph, &sliding, usual)?;
        self.one_magnitude(io, graph)
    }

    fn gguf_readers(&self) -> Readers {
        Readers { partial_rotation: true, ..Readers::PLAIN }
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
            ("vocab_size", 262_208.0),
            ("hidden_size", 2304.0),
            ("intermediate_size", 9216.0),
            ("num_hidden_layers", 26.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 131_072.0),
            ("rope_theta", 1_000_000.0),
            ("query_pre_attn_scalar", 256.0),
            ("sliding_window", 4096.0),
        ]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        super::AROUND
    }
}

impl Gemma3 {
    /// Refuses a GGUF file whose key for the magnitude of YaRN its readers would take for the layers
    /// with a window too, which turn plainly.
    fn one_magnitude(&self, io: &dyn Fields, graph: &Architecture) -> Result<()> {
        let layers = || graph.attentions();
        let other = layers().find_map(|attention| match attention.rope.as_ref()?.scaling {
            Some(RopeScaling::Yarn(yarn)) => Some(yarn.magnitude)
                .filter(|&magnitude| magnitude != YarnScaling::usual_magnitude(yarn.factor)),
            _ => None,
        });
        let writes = !io.reads() && io.form() == Form::Gguf;
        match other.filter(|_| writes && layers().any(|attention| attention.window.is_some())) {
            None => Ok(()),
            Some(magnitude) => {
                let reason = format!(
                    "it is {magnitude}, and readers of GGUF files multiply in layers with a window \
                     too"
                );
                Err(fields::beyond_gguf(io, &MAGNITUDE, reason))
            }
        }
    }
}
