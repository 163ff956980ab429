//! Gemma 4, its text part: norms around both halves of a layer, of heads and of values; two widths of
//! heads, a rotation of few pairs in layers without a window; in the smallest ones a second embedding
//! that every layer reads, and last layers that read the keys and values of earlier ones.

use crate::architecture::fields::{
    self, FINAL_SOFTCAP, Fields, PER_LAYER_INPUT, SHARED_KV_LAYERS, Sliding,
};
use crate::architecture::{Activation, Architecture, Family, PerLayerInput, QkNorm, Rope};
use crate::error::Result;

pub struct Gemma4;

impl Family for Gemma4 {
    fn name(&self) -> &'static str {
        "gemma4"
    }

    fn class(&self) -> &'static str {
        "Gemma4ForCausalLM"
    }

    fn model_type(&self) -> &'static str {
        "gemma4_text"
    }

    fn describe(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        super::gemma(graph);
        fields::each(graph, |layer| {
            layer.attention.qk_norm = Some(QkNorm::Head);
            layer.attention.v_norm = true;
            layer.attention.scale = Some(1.0);
            layer.output_scale = true;
        });
        io.number(&FINAL_SOFTCAP, &mut graph.logit_softcap)?;
        let sliding = fields::windows(io, graph, Sliding::ButEveryStored(6))?;
        self.ropes(io, graph, &sliding)?;
        let mut width = graph.per_layer_input.map(|input| input.width);
        io.size(&PER_LAYER_INPUT, &mut width)?;
        graph.per_layer_input = width.map(|width| PerLayerInput { width });
        self.shared_layers(io, graph, &sliding)
    }

    fn activation(&self) -> Activation {
        Activation::GeluTanh
    }

    fn tied_head(&self) -> bool {
        true
    }

    fn defaults(&self) -> &'static [(&'static str, f64)] {
        &[
            ("vocab_size", 262_144.0),
            ("hidden_size", 2304.0),
            ("intermediate_size", 9216.0),
            ("num_hidden_layers", 30.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 131_072.0),
            ("sliding_window", 512.0),
        ]
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        super::AROUND
    }
}

impl Gemma4 {
    /// Widths of heads and rotations by kind of layer.
    fn ropes(&self, io: &mut dyn Fields, graph: &mut Architecture, sliding: &[bool]) -> Result<()> {
        let width = |slides: bool| {
            let layers = graph.layers.iter().zip(sliding);
            let of = layers.filter(|(_, other)| **other == slides).map(|(layer, _)| layer);
            of.map(|layer| layer.attention.head_dim).next()
        };
        let any = graph.layers.first().map_or(2, |layer| layer.attention.head_dim);
        let mut widths = [width(true).unwrap_or(any), width(false).unwrap_or(any)];
        io.head_dims(sliding, &mut widths)?;
        for (layer, &slides) in graph.layers.iter_mut().zip(sliding) {
            layer.attention.head_dim = widths[usize::from(!slides)];
            // The full layers' rotation counts over their own width.
            if let (true, false, Some(rope)) = (io.reads(), slides, &mut layer.attention.rope) {
                rope.turned = widths[1];
            }
        }
        let usual = |_: &Rope| Rope::plain(10_000.0, widths[0]);
        fields::sliding_rope(io, graph, sliding, usual)
    }

    /// The last layers read what the last one of their own kind before them has.
    fn shared_layers(
        &self,
        io: &mut dyn Fields,
        graph: &mut Architecture,
        sliding: &[bool],
    ) -> Result<()> {
        let count = graph.layers.len();
        let sharing = graph.layers.iter().filter(|layer| layer.attention.kv_from.is_some()).count();
        let mut shared = Some(sharing).filter(|&sharing| sharing > 0);
        io.size(&SHARED_KV_LAYERS, &mut shared)?;
        let shared = shared.unwrap_or(0);
        for layer in count.saturating_sub(shared)..count {
            let own = (0..count - shared).rev().find(|&own| sliding[own] == sliding[layer]);
            let Some(own) = own else {
                let reason = format!("layer {layer} has none of its kind before those that share");
                return Err(io.refuse(&SHARED_KV_LAYERS, reason));
            };
            graph.layers[layer].attention.kv_from = Some(own);
        }
        Ok(())
    }
}
