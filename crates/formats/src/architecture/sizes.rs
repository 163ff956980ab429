//! The sizes in the files of a plain decoder: one number for all of its layers.

use super::family;
use super::graph::{
    Architecture, Attention, Dense, FeedForward, Layer, NormKind, NormPlaces, Normalization,
};
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
    pub fn decoder(&self, family: &'static str) -> Architecture {
        let rope = Rope {
            scaling: self.rope_scaling.clone(),
            ..Rope::plain(self.rope_theta, self.head_dim)
        };
        let layer = Layer {
            attention: Attention {
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
            },
            feed_forward: FeedForward::Dense(Dense::swiglu(self.intermediate_size)),
            norms: NormPlaces::PRE,
            parallel: false,
            residual_scale: 1.0,
            output_scale: false,
        };
        Architecture {
            family,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            embed_scale: 1.0,
            per_layer_input: None,
            layers: vec![layer; self.layers],
            norm: Normalization {
                kind: NormKind::Rms,
                bias: false,
                eps: self.norm_eps,
                offset: 0.0,
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
        let of = |size: fn(&Attention) -> usize| first.map_or(0, |l| size(&l.attention));
        let ropes = self.layers.iter().filter_map(|layer| layer.attention.rope.clone());
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
        if self.resized(|_| {}) == *self {
            return Ok(());
        }
        Err(Error::Unsupported {
            file: file.into(),
            name: format!("this decoder as {}", self.family),
            reason: "its layers are not those of the family".into(),
        })
    }

    /// The decoder of the same family with other sizes.
    pub fn resized(&self, change: impl FnOnce(&mut Sizes)) -> Self {
        let mut sizes = self.sizes();
        change(&mut sizes);
        family::of(self).graph(&sizes)
    }
}
