//! The sizes in the files of a plain decoder: one number for all of its layers.

use super::family;
use super::fields::Form;
use super::graph::{Architecture, Dense, FeedForward, Layer, NormPlaces, Normalization};
use super::mixer::{Attention, Mixer};
use super::rope::{Rope, RopeScaling};
use crate::error::{Error, Result};

/// Sizes and options by which a family fills its graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the rows that go from layer to layer.
    pub hidden_size: usize,
    /// Outputs of gate and up, in every layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of query heads, in every layer.
    pub heads: usize,
    /// Number of key/value heads, in every layer.
    pub kv_heads: usize,
    /// Elements of each head.
    pub head_dim: usize,
    /// What every norm adds to the mean square.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies, if there is one.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Longest context in tokens.
    pub max_positions: usize,
}

impl Sizes {
    /// The decoder of these sizes whose layers are alike, without biases and without norms of
    /// queries and keys: what a family's graph begins as.
    ///
    /// # Panics
    /// Where no family has the name.
    pub fn decoder(&self, family: &str) -> Architecture {
        let family = family::find(|known| known.name() == family).expect("a family's name");
        let rope = Rope {
            scaling: self.rope_scaling.clone(),
            ..Rope::plain(self.rope_theta, self.head_dim)
        };
        let layer = Layer {
            mixer: Mixer::Attention(Attention {
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                qkv_bias: false,
                o_bias: false,
                qk_norm: None,
                v_norm: false,
                rope: Some(rope),
                scale: None,
                softcap: None,
                window: None,
                sinks: false,
                temper: None,
                sub_norm: false,
                kv_from: None,
                gate: false,
            }),
            feed_forward: FeedForward::Dense(Dense {
                activation: family.activation(),
                ..Dense::swiglu(self.intermediate_size)
            }),
            norms: NormPlaces::PRE,
            parallel: false,
            residual_scale: 1.0,
            output_scale: false,
        };
        Architecture {
            family: family.name(),
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            embed_scale: 1.0,
            per_layer_input: None,
            layers: vec![layer; self.layers],
            norm: Normalization {
                kind: family.norm_kind(),
                bias: false,
                eps: self.norm_eps,
                offset: family.norm_offset(),
            },
            tied_head: self.tied_head,
            logit_scale: 1.0,
            logit_softcap: None,
            max_positions: self.max_positions,
        }
    }
}

impl Architecture {
    /// The sizes, those of a layer taken from the first one.
    pub fn sizes(&self) -> Sizes {
        let first = self.layers.first();
        let attention = self.attentions().next();
        let of = |size: fn(&Attention) -> usize| attention.map_or(0, size);
        let ropes = self.attentions().filter_map(|a| a.rope.clone());
        let rope = ropes.into_iter().next().unwrap_or_else(|| Rope::plain(1.0, 2));
        Sizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: first.map_or(0, |l| l.feed_forward.widest()),
            layers: self.layers.len(),
            heads: of(|a| a.heads),
            kv_heads: of(|a| a.kv_heads),
            head_dim: of(|a| a.head_dim),
            norm_eps: self.norm.eps,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            tied_head: self.tied_head,
            max_positions: self.max_positions,
        }
    }

    /// Refuses a graph that is not one of its family: no file could describe it.
    pub(crate) fn check_family(&self, file: &str) -> Result<()> {
        let again = crate::config::to_json(self);
        let again = again.and_then(|json| crate::config::parse(file, json.to_string().as_bytes()));
        if again.as_ref().is_ok_and(|again| again == self) {
            return Ok(());
        }
        let because = again.err().map_or(String::new(), |error| format!(": {error}"));
        Err(Error::Unsupported {
            file: file.into(),
            name: format!("this decoder as {}", self.family),
            reason: format!("its layers are not those of the family{because}"),
            offset: None,
        })
    }

    /// Its config.json in one line, which a field that another version adds does not change; where
    /// configs of its family cannot say all of it, its fields.
    pub fn config_text(&self) -> String {
        let json = crate::config::to_json(self);
        json.map_or_else(|_| format!("{self:?}"), |json| json.to_string())
    }

    /// The same decoder as files of a kind hold it: what is added to the weights of norms differs,
    /// and the order of a delta rule's value heads, and what its tensor of rates holds.
    pub fn in_form(&self, form: Form) -> Self {
        let (mut graph, family) = (self.clone(), family::of(self));
        graph.norm.offset = match form {
            Form::HuggingFace => family.norm_offset(),
            Form::Gguf => 0.0,
        };
        for delta in graph.delta_rules_mut() {
            (delta.order, delta.decay) = (family.head_order(form), form.decay());
        }
        graph
    }

    /// The decoder with other sizes, the same in all layers; the fields beyond sizes stay.
    pub fn resized(&self, change: impl FnOnce(&mut Sizes)) -> Self {
        let (mut sizes, mut graph, old) = (self.sizes(), self.clone(), self.sizes());
        change(&mut sizes);
        graph.vocab_size = sizes.vocab_size;
        graph.hidden_size = sizes.hidden_size;
        graph.tied_head = sizes.tied_head;
        graph.norm.eps = sizes.norm_eps;
        graph.max_positions = sizes.max_positions;
        if let Some(last) = graph.layers.last().cloned() {
            graph.layers.resize(sizes.layers, last);
        }
        for Layer { mixer, feed_forward, .. } in &mut graph.layers {
            let set = |value: &mut usize, [old, new]: [usize; 2]| {
                if old != new {
                    *value = new;
                }
            };
            if let Mixer::Attention(a) = mixer {
                set(&mut a.heads, [old.heads, sizes.heads]);
                set(&mut a.kv_heads, [old.kv_heads, sizes.kv_heads]);
                if old.head_dim != sizes.head_dim {
                    if let Some(rope) = &mut a.rope {
                        rope.turned = sizes.head_dim * rope.turned / a.head_dim;
                    }
                    a.head_dim = sizes.head_dim;
                }
                if let Some(rope) = &mut a.rope {
                    if old.rope_theta != sizes.rope_theta {
                        rope.theta = sizes.rope_theta;
                    }
                    if old.rope_scaling != sizes.rope_scaling {
                        rope.scaling = sizes.rope_scaling.clone();
                    }
                }
            }
            let dense = match feed_forward {
                FeedForward::Dense(dense) => dense,
                FeedForward::Experts(experts) => &mut experts.expert,
            };
            set(&mut dense.intermediate_size, [old.intermediate_size, sizes.intermediate_size]);
        }
        graph
    }
}
