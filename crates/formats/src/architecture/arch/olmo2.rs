//! OLMo 2: norms after both halves of a layer, and of all queries and all keys at once.

use crate::architecture::fields::Fields;
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family};
use crate::error::Result;

pub struct Olmo2;

impl Family for Olmo2 {
    fn name(&self) -> &'static str {
        "olmo2"
    }

    fn class(&self) -> &'static str {
        "Olmo2ForCausalLM"
    }

    fn is_gguf(&self, has: &dyn Fn(&str) -> bool) -> bool {
        !has("attention.sliding_window")
    }

    fn describe(&self, _: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        super::olmo(graph);
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        super::OLMO
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("rms_norm_eps", 1e-5)]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        super::AFTER
    }
}
