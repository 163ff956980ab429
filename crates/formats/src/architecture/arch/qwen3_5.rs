//! Qwen3.5, its text part: three layers with a delta rule for each one with attention.

use crate::architecture::fields::{self, Fields, Form, Key};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family, HeadOrder, hybrid};
use crate::error::Result;
use serde_json::{Value, json};

pub struct Qwen35;

/// Pairs that turn by time, height and width, and in GGUF a 0.
const SECTIONS: Key =
    Key { config: &["rope_parameters.mrope_section"], gguf: Some("rope.dimension_sections") };
/// Whether pairs of the three take turns. They always do.
const INTERLEAVED: Key = Key { config: &["rope_parameters.mrope_interleaved"], gguf: None };
/// What files mean that do not name the sections.
const USUAL_SECTIONS: [usize; 3] = [11, 11, 10];

impl Family for Qwen35 {
    fn name(&self) -> &'static str {
        "qwen35"
    }

    fn class(&self) -> &'static str {
        "Qwen3_5ForCausalLM"
    }

    fn model_type(&self) -> &'static str {
        "qwen3_5_text"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        hybrid::describe(self, io, graph)?;
        let of_graph = graph.attentions().find_map(|a| a.rope.as_ref()?.sections);
        let sections = of_graph.unwrap_or(USUAL_SECTIONS);
        let mut all = Some(sections.to_vec());
        if io.form() == Form::Gguf {
            all.get_or_insert_default().push(0);
        }
        io.numbers(&SECTIONS, &mut all)?;
        let all = all.unwrap_or(sections.to_vec());
        let (&[time, height, width] | &[time, height, width, 0]) = &all[..] else {
            let reason = format!("it is {all:?}, and pairs turn by time, height and width");
            return Err(io.refuse(&SECTIONS, reason));
        };
        fields::each_attention(graph, |a| {
            if let Some(rope) = &mut a.rope {
                rope.sections = Some([time, height, width]);
            }
        });
        fields::flag(io, &INTERLEAVED, &mut true)
    }

    fn gguf_readers(&self) -> Readers {
        Readers { partial_rotation: true, ..Readers::PLAIN }
    }

    fn norm_offset(&self) -> f64 {
        1.0
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("vocab_size", 248_320.0),
            ("hidden_size", 4096.0),
            ("intermediate_size", 12_288.0),
            ("num_hidden_layers", 32.0),
            ("num_attention_heads", 16.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 32_768.0),
            ("partial_rotary_factor", 0.25),
        ]
    }

    fn rope_parameters(&self) -> Value {
        json!({ "rope_type": "default" })
    }

    fn head_order(&self, form: Form) -> HeadOrder {
        match form {
            Form::HuggingFace => HeadOrder::Grouped,
            Form::Gguf => HeadOrder::Tiled,
        }
    }

    fn has_prediction_layers(&self) -> bool {
        true
    }

    fn gguf_parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("post_attention_layernorm", "post_attention_norm")]
    }

    fn settled_keys(&self) -> &'static [&'static str] {
        &["qk_norm", "use_qk_norm"]
    }
}
