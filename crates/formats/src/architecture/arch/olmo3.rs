//! OLMo 3: OLMo 2 with a window in three of four layers; only the others stretch their rotation.

use crate::architecture::fields::{self, Fields, Form, Key, Sliding};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family, Rope};
use crate::error::Result;

pub struct Olmo3;

/// Base of the frequencies of layers with a window.
const SLIDING_THETA: Key = Key { config: &["rope_theta"], gguf: None };

impl Family for Olmo3 {
    fn name(&self) -> &'static str {
        "olmo3"
    }

    fn class(&self) -> &'static str {
        "Olmo3ForCausalLM"
    }

    fn gguf_architecture(&self) -> Option<&'static str> {
        Some("olmo2")
    }

    fn is_gguf(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("attention.sliding_window")
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        super::olmo(graph);
        let sliding = fields::windows(io, graph, Sliding::ButEveryStored(4))?;
        let usual = |rope: &Rope| Rope::plain(rope.theta, rope.turned);
        if io.form() == Form::Gguf {
            // Readers turn them by the base of the others, whatever another key says.
            let rope = |slides: bool| {
                let of = graph.attentions().zip(&sliding).filter(move |(_, s)| **s == slides);
                of.filter_map(|(a, _)| a.rope.as_ref()).next()
            };
            let implied = rope(false).or(rope(true)).map(usual);
            if io.reads() {
                for (a, _) in graph.attentions_mut().zip(&sliding).filter(|(_, s)| **s) {
                    a.rope = implied.clone();
                }
                return Ok(());
            }
            if rope(true).is_some_and(|rope| Some(rope) != implied.as_ref()) {
                let reason = "readers of GGUF files turn layers with a window plainly, by the base \
                              of the others";
                return Err(fields::beyond_gguf(io, &SLIDING_THETA, reason.into()));
            }
        }
        fields::sliding_rope(io, graph, &sliding, usual)
    }

    fn gguf_readers(&self) -> Readers {
        super::OLMO
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("rms_norm_eps", 1e-5), ("sliding_window", 4096.0), ("rope_theta", 500_000.0)]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        super::AFTER
    }
}
