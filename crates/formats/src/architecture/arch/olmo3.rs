//! OLMo 3: OLMo 2 with a window in three of four layers; only the others stretch their rotation.

use crate::architecture::fields::{self, Fields, Sliding};
use crate::architecture::{Architecture, Family, Rope};
use crate::error::Result;

pub struct Olmo3;

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
        fields::sliding_rope(io, graph, &sliding, usual)
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("rms_norm_eps", 1e-5), ("sliding_window", 4096.0)]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        super::AFTER
    }
}
