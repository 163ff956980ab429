//! Granite 3 and the dense ones of 4: Llama with four factors.

use crate::architecture::fields::{
    self, ATTENTION_SCALE, EMBED_SCALE, Fields, Key, LOGIT_DIVISOR, RESIDUAL_SCALE,
};
use crate::architecture::readers::Readers;
use crate::architecture::{Architecture, Family};
use crate::error::Result;

pub struct Granite;

/// Whether queries and keys turn at all.
const TURNS: Key = Key { config: &[], gguf: Some("rope.scaling.finetuned") };

impl Family for Granite {
    fn name(&self) -> &'static str {
        "granite"
    }

    fn class(&self) -> &'static str {
        "GraniteForCausalLM"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        fields::number(io, &EMBED_SCALE, &mut graph.embed_scale)?;
        let mut residual = graph.layers.first().map_or(1.0, |layer| layer.residual_scale);
        fields::number(io, &RESIDUAL_SCALE, &mut residual)?;
        fields::each(graph, |layer| layer.residual_scale = residual);
        fields::of_attention(io, &ATTENTION_SCALE, graph, |attention| &mut attention.scale)?;
        let mut divisor = 1.0 / graph.logit_scale;
        fields::number(io, &LOGIT_DIVISOR, &mut divisor)?;
        graph.logit_scale = 1.0 / divisor;
        let mut turns = None;
        io.flag(&TURNS, &mut turns)?;
        if turns == Some(false) {
            return Err(io.refuse(&TURNS, "it is false: layers without rotation".into()));
        }
        Ok(())
    }

    fn gguf_readers(&self) -> Readers {
        Readers::LLAMA
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[("attention_multiplier", 1.0)]
    }

    fn interleaves_rows(&self) -> bool {
        true
    }
}
