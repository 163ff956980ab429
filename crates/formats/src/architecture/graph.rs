//! What a decoder is: the embedding, layers of attention and feed-forward, the final norm, the
//! head. A field belongs here if runtime and trainer compute it.
//!
//! Each layer computes `h = x + O attend(rope(norm_q(Q n)), rope(norm_k(K n)), V n)` with `n =
//! norm(x)`, then `y = h + Down (silu(Gate m) * Up m)` with `m = norm(h)`. Norms are RMS; each
//! capital is a linear, its bias added after the product where it has one.

use halfstep_kernels::ops::rope::{Llama3Scaling, RopeTable};

/// A decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Name of the [`super::Family`] that describes its files. No computation reads it.
    pub family: &'static str,
    /// V: rows of the embedding and of the head; at least as many as there are tokens.
    pub vocab_size: usize,
    /// Width of the rows that go from layer to layer.
    pub hidden_size: usize,
    /// Transformer layers, in the order of the forward.
    pub layers: Vec<Layer>,
    /// Number that every norm adds to the mean square.
    pub norm_eps: f64,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Longest context in tokens that the model was made for.
    pub max_positions: usize,
}

/// A transformer layer: attention, then feed-forward, each with a norm before it and a residual
/// connection around both.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The attention of the layer.
    pub attention: Attention,
    /// The feed-forward of the layer.
    pub feed_forward: FeedForward,
}

/// Causal attention; each key/value head serves `heads / kv_heads` query heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// H: number of query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// K: number of key/value heads.
    pub kv_heads: usize,
    /// D: elements of each head, an even number.
    pub head_dim: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// The norm of queries and keys before they are rotated.
    pub qk_norm: Option<QkNorm>,
    /// The rotation of queries and keys by their position.
    pub rope: Rope,
}

/// What queries and keys are normalised over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself; all share one weight `[head_dim]`.
    Head,
}

/// Rotary positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies `theta^(-2i / D)`.
    pub theta: f64,
    /// How frequencies are changed for contexts longer than those of the training, if they are.
    pub scaling: Option<Llama3Scaling>,
}

/// The gated feed-forward.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedForward {
    /// F: outputs of gate and up, inputs of down.
    pub intermediate_size: usize,
}

/// What a linear of a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Linear {
    /// Queries, `[H D, hidden_size]`.
    Q,
    /// Keys, `[K D, hidden_size]`.
    K,
    /// Values, `[K D, hidden_size]`.
    V,
    /// Output of the attention, `[hidden_size, H D]`.
    O,
    /// Gate of the feed-forward, `[F, hidden_size]`.
    Gate,
    /// What the gate is multiplied with, `[F, hidden_size]`.
    Up,
    /// Output of the feed-forward, `[hidden_size, F]`.
    Down,
}

/// A linear as a layer has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// Which of the linears it is.
    pub kind: Linear,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Whether a bias `[out]` is added after the product.
    pub bias: bool,
}

/// What a norm of a layer is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Norm {
    /// The input of queries, keys and values.
    Attention,
    /// The input of gate and up.
    FeedForward,
    /// Queries before they are rotated.
    Query,
    /// Keys before they are rotated.
    Key,
}

/// Where a layer may have an activation or cache quantizer; q, k, v share `AttnIn`, gate and up
/// share `FfnIn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActivationSite {
    /// Input of q, k and v: the output of the norm before the attention.
    AttnIn,
    /// Input of o: the outputs of all heads.
    OIn,
    /// Input of gate and up: the output of the norm before the feed-forward.
    FfnIn,
    /// Input of down: `silu(gate) * up`.
    DownIn,
    /// Keys after the rotation, as they are cached.
    KCache,
    /// Values, as they are cached.
    VCache,
}

/// A site of which every channel may be made larger in its consumers (the linears that read it) and
/// smaller in its producer, the layer computing what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The site whose channels are scaled.
    pub site: ActivationSite,
    /// What is scaled the other way.
    pub producer: Producer,
}

/// What computes the channels of a site, so that a factor of theirs can be merged into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// The weight of a norm.
    Norm(Norm),
    /// The rows of a linear, and its bias.
    Linear(Linear),
}

impl Architecture {
    /// Linears of a layer in the order of the forward.
    pub fn linears(&self, layer: usize) -> Vec<LinearSpec> {
        let Layer { attention: a, feed_forward: f } = &self.layers[layer];
        let (d, q, kv, f) = (self.hidden_size, a.query_width(), a.key_width(), f.intermediate_size);
        let linear = |kind, shape, bias| LinearSpec { kind, shape, bias };
        vec![
            linear(Linear::Q, [q, d], a.qkv_bias),
            linear(Linear::K, [kv, d], a.qkv_bias),
            linear(Linear::V, [kv, d], a.qkv_bias),
            linear(Linear::O, [d, q], false),
            linear(Linear::Gate, [f, d], false),
            linear(Linear::Up, [f, d], false),
            linear(Linear::Down, [d, f], false),
        ]
    }

    /// Norms of a layer with their widths, in the order of the forward.
    pub fn norms(&self, layer: usize) -> Vec<(Norm, usize)> {
        let (d, attention) = (self.hidden_size, &self.layers[layer].attention);
        let mut norms = vec![(Norm::Attention, d)];
        if let Some(QkNorm::Head) = attention.qk_norm {
            norms.extend([(Norm::Query, attention.head_dim), (Norm::Key, attention.head_dim)]);
        }
        norms.push((Norm::FeedForward, d));
        norms
    }
}

impl Layer {
    /// The sites that can be folded, in the order of the forward.
    pub fn folds(&self) -> Vec<Fold> {
        let fold = |site, producer| Fold { site, producer };
        let mut folds = vec![fold(ActivationSite::AttnIn, Producer::Norm(Norm::Attention))];
        // A row of v that several query heads read would need one factor for all of them.
        if self.attention.heads == self.attention.kv_heads {
            folds.push(fold(ActivationSite::OIn, Producer::Linear(Linear::V)));
        }
        folds.push(fold(ActivationSite::FfnIn, Producer::Norm(Norm::FeedForward)));
        folds.push(fold(ActivationSite::DownIn, Producer::Linear(Linear::Up)));
        folds
    }
}

impl Attention {
    /// Width of all queries of a row.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all keys of a row, and of all values.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The frequencies that queries and keys are rotated by.
    pub fn rope_table(&self) -> RopeTable {
        RopeTable::new(self.head_dim, self.rope.theta, self.rope.scaling)
    }
}

impl Linear {
    /// All linears, in the order of the forward.
    pub const ALL: [Linear; 7] =
        [Linear::Q, Linear::K, Linear::V, Linear::O, Linear::Gate, Linear::Up, Linear::Down];

    /// Name inside a layer.
    pub const fn name(self) -> &'static str {
        match self {
            Linear::Q => "self_attn.q_proj",
            Linear::K => "self_attn.k_proj",
            Linear::V => "self_attn.v_proj",
            Linear::O => "self_attn.o_proj",
            Linear::Gate => "mlp.gate_proj",
            Linear::Up => "mlp.up_proj",
            Linear::Down => "mlp.down_proj",
        }
    }

    /// The activation site whose quantizer prepares this linear's input.
    pub const fn input(self) -> ActivationSite {
        match self {
            Linear::Q | Linear::K | Linear::V => ActivationSite::AttnIn,
            Linear::O => ActivationSite::OIn,
            Linear::Gate | Linear::Up => ActivationSite::FfnIn,
            Linear::Down => ActivationSite::DownIn,
        }
    }

    /// `model.layers.<layer>.<name>.weight`.
    pub fn weight_name(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.weight", self.name())
    }

    /// `model.layers.<layer>.<name>.bias`.
    pub fn bias_name(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.bias", self.name())
    }
}

impl Norm {
    /// Name inside a layer.
    pub const fn name(self) -> &'static str {
        match self {
            Norm::Attention => "input_layernorm",
            Norm::FeedForward => "post_attention_layernorm",
            Norm::Query => "self_attn.q_norm",
            Norm::Key => "self_attn.k_norm",
        }
    }

    /// The first linear that is computed after it.
    pub(super) const fn before(self) -> Linear {
        match self {
            Norm::Attention => Linear::Q,
            Norm::Query | Norm::Key => Linear::O,
            Norm::FeedForward => Linear::Gate,
        }
    }

    /// `model.layers.<layer>.<name>.weight`.
    pub fn weight_name(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.weight", self.name())
    }
}

impl ActivationSite {
    /// All sites: inputs of linears in the order of the forward, then the cache.
    pub const ALL: [ActivationSite; 6] = [
        ActivationSite::AttnIn,
        ActivationSite::OIn,
        ActivationSite::FfnIn,
        ActivationSite::DownIn,
        ActivationSite::KCache,
        ActivationSite::VCache,
    ];

    /// Name in recipes and files: `attn_in`, `o_in`, `ffn_in`, `down_in`, `k_cache` or `v_cache`.
    pub const fn name(self) -> &'static str {
        match self {
            ActivationSite::AttnIn => "attn_in",
            ActivationSite::OIn => "o_in",
            ActivationSite::FfnIn => "ffn_in",
            ActivationSite::DownIn => "down_in",
            ActivationSite::KCache => "k_cache",
            ActivationSite::VCache => "v_cache",
        }
    }

    /// Whether keys or values are kept here; at the other sites linears read.
    pub const fn is_cache(self) -> bool {
        matches!(self, ActivationSite::KCache | ActivationSite::VCache)
    }

    /// `model.layers.<layer>.<site>`.
    pub fn name_in(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.name())
    }

    /// The layer and site of [`Self::name_in`]. None: it is no such name.
    pub fn parse(name: &str) -> Option<(usize, ActivationSite)> {
        let (layer, site) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let site = Self::ALL.into_iter().find(|known| known.name() == site)?;
        let layer = layer.parse().ok()?;
        (site.name_in(layer) == name).then_some((layer, site))
    }

    /// Name of the step parameter of a static quantizer here: `model.layers.<layer>.<site>.step`.
    pub fn static_scale_name(self, layer: usize) -> String {
        format!("{}.step", self.name_in(layer))
    }
}
