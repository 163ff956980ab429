//! Gemma 4, its text part: norms around both halves of a layer, of heads and of values; two widths
//! of heads, a rotation of few pairs in layers without a window; in the smallest ones a second
//! embedding that every layer reads, and last layers that read the keys and values of earlier ones.

use crate::architecture::fields::{
    self, FINAL_SOFTCAP, Fields, Form, Key, PER_LAYER_INPUT, SHARED_KV_LAYERS, Sliding,
};
use crate::architecture::readers::{Readers, RopeFactors};
use crate::architecture::{
    Activation, Architecture, Family, FeedForward, PerLayerInput, QkNorm, Rope,
};
use crate::error::Result;
use serde_json::{Value, json};

pub struct Gemma4;

/// Whether the feed-forwards of layers that read the keys of others are twice as wide; GGUF files
/// have the width of each layer.
const DOUBLE_WIDE: Key = Key { config: &["use_double_wide_mlp"], gguf: None };
/// Cap of logits where a GGUF file does not say it.
const SOFTCAP: f64 = 30.0;
/// Rows of the second embedding.
const PER_LAYER_VOCABULARY: Key = Key { config: &["vocab_size_per_layer_input"], gguf: None };

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
        fields::each(graph, |layer| layer.output_scale = true);
        fields::each_attention(graph, |a| {
            a.qk_norm = Some(QkNorm::Head);
            a.v_norm = true;
            a.scale = Some(1.0);
        });
        self.final_softcap(io, graph)?;
        let mut sliding = fields::windows(io, graph, Sliding::ButEveryStored(6))?;
        // transformers makes it one without a window, whatever a config says.
        if let (true, Some(slides), Some(last)) =
            (io.form() == Form::HuggingFace, sliding.last_mut(), graph.attentions_mut().last())
        {
            *slides = false;
            last.window = None;
        }
        fields::needs_window(io, graph)?;
        self.ropes(io, graph, &sliding)?;
        self.per_layer_input(io, graph)?;
        self.shared_layers(io, graph, &sliding)?;
        self.widths(io, graph)
    }

    fn gguf_readers(&self) -> Readers {
        Readers { partial_rotation: true, factors: RopeFactors::Always, ..Readers::PLAIN }
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
            ("global_head_dim", 512.0),
            ("hidden_size_per_layer_input", 256.0),
        ]
    }

    fn rope_parameters(&self) -> Value {
        json!({
            "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 },
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": 1e6,
            },
        })
    }

    fn hugging_face_parts(&self) -> &'static [(&'static str, &'static str)] {
        super::AROUND
    }
}

impl Gemma4 {
    /// Readers of GGUF files have a cap unless the key is 0.
    fn final_softcap(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        if io.form() == Form::HuggingFace {
            return io.number(&FINAL_SOFTCAP, &mut graph.logit_softcap);
        }
        let mut cap = if io.reads() { Some(SOFTCAP) } else { graph.logit_softcap.or(Some(0.0)) };
        io.number(&FINAL_SOFTCAP, &mut cap)?;
        graph.logit_softcap = cap.filter(|&cap| cap != 0.0);
        Ok(())
    }

    /// The width is written even where it is 0, which readers of GGUF files want to know.
    fn per_layer_input(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        let mut width = Some(graph.per_layer_input.map_or(0, |input| input.width));
        io.size(&PER_LAYER_INPUT, &mut width)?;
        let width = width.filter(|&width| width > 0);
        graph.per_layer_input = width.map(|width| PerLayerInput { width });
        let mut rows = Some(graph.vocab_size);
        io.size(&PER_LAYER_VOCABULARY, &mut rows)?;
        if width.is_some() && rows != Some(graph.vocab_size) {
            let reason = format!("it is not the vocab_size, {}", graph.vocab_size);
            return Err(io.refuse(&PER_LAYER_VOCABULARY, reason));
        }
        Ok(())
    }

    fn widths(&self, io: &mut dyn Fields, graph: &mut Architecture) -> Result<()> {
        if io.form() == Form::Gguf {
            return Ok(());
        }
        let first = graph.sizes().intermediate_size;
        let widest = graph.layers.iter().map(|layer| layer.feed_forward.widest()).max();
        let mut double = widest > Some(first);
        fields::flag(io, &DOUBLE_WIDE, &mut double)?;
        if !double || !io.reads() {
            return Ok(());
        }
        for layer in &mut graph.layers {
            let shares = layer.attention().is_some_and(|a| a.kv_from.is_some());
            if let (true, FeedForward::Dense(dense)) = (shares, &mut layer.feed_forward) {
                dense.intermediate_size *= 2;
            }
        }
        Ok(())
    }

    /// Widths of heads and rotations by kind of layer.
    fn ropes(&self, io: &mut dyn Fields, graph: &mut Architecture, sliding: &[bool]) -> Result<()> {
        let width = |slides: bool| {
            let mut layers = graph.attentions().zip(sliding);
            layers.find(|(_, other)| **other == slides).map(|(a, _)| a.head_dim)
        };
        let any = graph.attentions().next().map_or(2, |a| a.head_dim);
        let mut widths = [width(true).unwrap_or(any), width(false).unwrap_or(any)];
        io.head_dims(sliding, &mut widths)?;
        for (a, &slides) in graph.attentions_mut().zip(sliding) {
            a.head_dim = widths[usize::from(!slides)];
            // The full layers' rotation counts over their own width.
            if let (true, false, Some(rope)) = (io.reads(), slides, &mut a.rope) {
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
        let sharing = graph.attentions().filter(|a| a.kv_from.is_some()).count();
        let mut shared = Some(sharing).filter(|&sharing| sharing > 0);
        io.size(&SHARED_KV_LAYERS, &mut shared)?;
        let shared = shared.unwrap_or(0);
        for layer in count.saturating_sub(shared)..count {
            let own = (0..count - shared).rev().find(|&own| sliding[own] == sliding[layer]);
            let Some(own) = own else {
                let reason = format!("layer {layer} has none of its kind before those that share");
                return Err(io.refuse(&SHARED_KV_LAYERS, reason));
            };
            // Readers of GGUF files count on the last two layers before them being one of each kind.
            let counted = (count - shared).checked_sub(if sliding[layer] { 2 } else { 1 });
            if io.form() == Form::Gguf && counted != Some(own) {
                let reason = format!(
                    "layer {layer} reads those of layer {own}, and readers of GGUF files take \
                     another"
                );
                return Err(fields::beyond_gguf(io, &SHARED_KV_LAYERS, reason));
            }
            if let Some(a) = graph.layers[layer].attention_mut() {
                a.kv_from = Some(own);
            }
        }
        Ok(())
    }
}
