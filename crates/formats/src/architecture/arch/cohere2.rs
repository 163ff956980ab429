//! Command R7B and A, Aya of 2025: Command R with a window in three of four layers, and no rotation
//! in the others.

use crate::architecture::fields::{self, Fields, LOGIT_SCALE, Sliding};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family, NormKind};
use crate::error::Result;

pub struct Cohere2;

impl Family for Cohere2 {
    fn name(&self) -> &'static str {
        "cohere2"
    }

    fn class(&self) -> &'static str {
        "Cohere2ForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        super::cohere(graph);
        fields::number(io, &LOGIT_SCALE, &mut graph.logit_scale)?;
        fields::windows(io, graph, Sliding::ButEvery(4))?;
        let full = graph.attentions_mut().filter(|a| a.window.is_none());
        full.for_each(|a| a.rope = None);
        fields::needs_window(io, graph)
    }

    fn gguf_readers(&self) -> Readers {
        super::COHERE
    }

    fn norm_kind(&self) -> NormKind {
        NormKind::Layer
    }

    fn tied_head(&self) -> bool {
        true
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("max_position_embeddings", 8192.0), ("logit_scale", 0.0625), ("sliding_window", 4096.0)]
    }
}
