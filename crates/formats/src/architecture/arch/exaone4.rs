//! EXAONE 4: norms after both halves of a layer and of the heads; in the larger ones a window in
//! three of four layers, and no rotation in the others.

use crate::architecture::fields::{self, Fields, Form, Sliding};
use crate::architecture::readers::{Readers, RopeFactors};
use crate::architecture::{Architecture, Family, NormPlaces, QkNorm};
use crate::error::Result;

pub struct Exaone4;

/// Layers of the one with windows: readers of GGUF files know it by their number, whatever keys say.
const WINDOWED: usize = 64;
/// Its window.
const WINDOW: usize = 4096;

impl Family for Exaone4 {
    fn name(&self) -> &'static str {
        "exaone4"
    }

    fn class(&self) -> &'static str {
        "Exaone4ForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::each(graph, |layer| layer.norms = NormPlaces::POST);
        fields::each_attention(graph, |a| a.qk_norm = Some(QkNorm::Head));
        let windowed = graph.layers.len() == WINDOWED;
        if io.reads() && io.form() == Form::Gguf {
            fields::each_attention(graph, |a| a.window = Some(WINDOW));
        }
        fields::windows(io, graph, Sliding::ButEveryStored(4))?;
        if io.form() == Form::Gguf && !windowed {
            let which = format!("with other than {WINDOWED} layers");
            fields::unheeded_window(io, graph, &which, usize::MAX)?;
        } else if windowed {
            fields::needs_window(io, graph)?;
        }
        if graph.attentions().any(|a| a.window.is_some()) {
            let full = graph.attentions_mut().filter(|a| a.window.is_none());
            full.for_each(|a| a.rope = None);
        }
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        Readers { head_width: false, factors: RopeFactors::Maybe, ..Readers::PLAIN }
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("rms_norm_eps", 1e-5), ("sliding_window", 4096.0), ("num_key_value_heads", 32.0)]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        super::AFTER
    }
}
