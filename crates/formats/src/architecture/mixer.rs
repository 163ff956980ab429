//! The first half of a layer: what lets a row know of the rows before it.

use super::graph::LinearSpec;
use super::rope::Rope;
use super::tensors::{Linear, Norm, Parameter};
use halfstep_kernels::ops::delta_rule::DeltaShape;
pub use halfstep_kernels::ops::delta_rule::{Decay, HeadOrder};
use halfstep_kernels::ops::rope::{RopePairs, RopeTable};

/// What mixes the rows of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Softmax attention over the keys and values of all positions, or of a window.
    Attention(Attention),
    /// A matrix of memory for each head, which every token corrects.
    DeltaRule(DeltaRule),
    /// A convolution over the last few positions.
    Convolution(Convolution),
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
    /// Whether the output has a bias.
    pub o_bias: bool,
    /// The norm of queries and keys before they are rotated.
    pub qk_norm: Option<QkNorm>,
    /// Whether the values of each head are normalised, without a weight.
    pub v_norm: bool,
    /// The rotation of queries and keys by their position; None: they have no positions.
    pub rope: Option<Rope>,
    /// What scores are multiplied by; None: `1 / sqrt(head_dim)`.
    pub scale: Option<f64>,
    /// c of `c tanh(scores / c)`, applied after the scale.
    pub softcap: Option<f64>,
    /// Number of positions that a query sees, its own included; None: all before it.
    pub window: Option<usize>,
    /// Whether one more learned score of each head joins the softmax and is dropped after it.
    pub sinks: bool,
    /// What queries are multiplied by at later positions.
    pub temper: Option<Temper>,
    /// Whether what the heads give is normalised before the output linear.
    pub sub_norm: bool,
    /// An earlier layer whose keys and values are read; None: this layer has its own.
    pub kv_from: Option<usize>,
    /// Whether what the heads give is multiplied by `sigmoid(gate)`. The rows of q are then
    /// `[heads, 2, head_dim]`: of each head the queries, then the gates.
    pub gate: bool,
}

/// What queries and keys are normalised over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself; all share one weight `[head_dim]`.
    Head,
    /// All heads together, weight `[heads * head_dim]`.
    Whole,
    /// Each head by itself in the way of layer norms, weight `[heads, head_dim]`.
    PerHead,
}

/// A factor on the query of position p: `1 + beta ln(1 + floor(p / length))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temper {
    /// What the logarithm is multiplied by.
    pub beta: f64,
    /// Positions after which the factor grows.
    pub length: usize,
}

/// The gated delta rule (Yang et al., arXiv 2412.06464), as Qwen3-Next and Qwen3.5 have it. With
/// `c = silu(conv(Qkv x))` cut into q, k and v, q and k of each head divided by their lengths and q
/// by `sqrt(key_dim)`, each value head keeps a state S `[key_dim, value_dim]`, zero at first:
///
/// ```text
/// g = exp(-rate softplus(Decay x + decay_bias)),  b = sigmoid(Write x)
/// S = g S;  S += k (b (v - S^T k))^T;  y = S^T q
/// out = Out (norm(y) * silu(Gate x))
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaRule {
    /// Number of query and key heads.
    pub key_heads: usize,
    /// Number of value heads, a multiple of `key_heads`.
    pub value_heads: usize,
    /// Elements of a query or key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Positions that the convolution sees, its own included.
    pub kernel: usize,
    /// Which key head a value head reads.
    pub order: HeadOrder,
    /// What the tensor of rates holds.
    pub decay: Decay,
}

/// `Out (c * conv(b * z))` with `[b, c, z] = In x`: LFM2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Positions that the convolution sees, its own included.
    pub kernel: usize,
}

impl Mixer {
    /// Its linears in the order of the forward, for rows of width d.
    pub(super) fn linears(&self, d: usize) -> Vec<LinearSpec> {
        let linear = |kind, shape, bias| LinearSpec { kind, shape, bias };
        match self {
            Mixer::Attention(a) => {
                let (q, kv) = (a.query_width(), a.key_width());
                let mut linears = vec![linear(Linear::Q, [a.q_width(), d], a.qkv_bias)];
                if a.kv_from.is_none() {
                    linears.push(linear(Linear::K, [kv, d], a.qkv_bias));
                    linears.push(linear(Linear::V, [kv, d], a.qkv_bias));
                }
                linears.push(linear(Linear::O, [d, q], a.o_bias));
                linears
            }
            Mixer::DeltaRule(delta) => vec![
                linear(Linear::DeltaQkv, [delta.channels(), d], false),
                linear(Linear::DeltaGate, [delta.value_width(), d], false),
                linear(Linear::DeltaOut, [d, delta.value_width()], false),
            ],
            Mixer::Convolution(_) => vec![
                linear(Linear::ConvolutionIn, [3 * d, d], false),
                linear(Linear::ConvolutionOut, [d, d], false),
            ],
        }
    }

    /// The norms inside it with the shapes of their weights, in the order of the forward.
    pub(super) fn norms(&self) -> Vec<(Norm, Vec<usize>)> {
        match self {
            Mixer::Attention(a) => a.norms(),
            Mixer::DeltaRule(delta) => vec![(Norm::Delta, vec![delta.value_dim])],
            Mixer::Convolution(_) => vec![],
        }
    }

    /// Its other tensors with their shapes, for rows of width d.
    pub(super) fn parameters(&self, d: usize) -> Vec<(Parameter, Vec<usize>)> {
        match self {
            Mixer::Attention(a) if a.sinks => vec![(Parameter::Sinks, vec![a.heads])],
            Mixer::Attention(_) => vec![],
            Mixer::DeltaRule(delta) => vec![
                (Parameter::DeltaKernel, vec![delta.channels(), delta.kernel]),
                (Parameter::DeltaWrite, vec![delta.value_heads, d]),
                (Parameter::DeltaDecay, vec![delta.value_heads, d]),
                (Parameter::DeltaDecayBias, vec![delta.value_heads]),
                (Parameter::DeltaRate, vec![delta.value_heads]),
            ],
            Mixer::Convolution(Convolution { kernel }) => {
                vec![(Parameter::ConvolutionKernel, vec![d, *kernel])]
            }
        }
    }
}

impl DeltaRule {
    /// Width of all queries of a row, and of all keys.
    pub fn key_width(&self) -> usize {
        self.key_heads * self.key_dim
    }

    /// Width of all values of a row.
    pub fn value_width(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Channels of the convolution: queries, keys, then values.
    pub fn channels(&self) -> usize {
        2 * self.key_width() + self.value_width()
    }

    /// Where a value head lies if they follow one another in that order.
    pub fn head_in(&self, value_head: usize, order: HeadOrder) -> usize {
        let (heads, each) = (self.key_heads, self.value_heads / self.key_heads);
        let (key_head, number) = match self.order {
            HeadOrder::Grouped => (value_head / each, value_head % each),
            HeadOrder::Tiled => (value_head % heads, value_head / heads),
        };
        match order {
            HeadOrder::Grouped => key_head * each + number,
            HeadOrder::Tiled => number * heads + key_head,
        }
    }

    /// The key head that a value head reads.
    pub fn key_head(&self, value_head: usize) -> usize {
        self.shape().key_head(value_head)
    }

    /// Its sizes as the operation knows them.
    pub fn shape(&self) -> DeltaShape {
        DeltaShape {
            key_heads: self.key_heads,
            value_heads: self.value_heads,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
            order: self.order,
            decay: self.decay,
        }
    }
}

impl Attention {
    /// Outputs of q: all queries of a row, and their gates.
    pub fn q_width(&self) -> usize {
        if self.gate { 2 * self.query_width() } else { self.query_width() }
    }

    /// Whether a factor on a row of v is one on the same channel of what o reads. A row of v that
    /// several query heads read would need one factor for all of them, and a norm between would
    /// undo the factors.
    pub(super) fn scales_with_values(&self) -> bool {
        self.heads == self.kv_heads && !self.v_norm && !self.sub_norm && self.kv_from.is_none()
    }

    /// Width of all queries of a row.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all keys of a row, and of all values.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The angles of the rotation for sequences of up to `length` tokens; none turns without one.
    pub fn rope_table(&self, length: usize) -> RopeTable {
        match &self.rope {
            Some(rope) => rope.table(self.head_dim, length),
            None => RopeTable {
                head_dim: self.head_dim,
                pairs: RopePairs::Half,
                factor: 1.0,
                inverse_frequencies: vec![],
            },
        }
    }

    fn norms(&self) -> Vec<(Norm, Vec<usize>)> {
        let mut norms = vec![];
        if let Some(kind) = self.qk_norm {
            let shape = |heads: usize| match kind {
                QkNorm::Head => vec![self.head_dim],
                QkNorm::Whole => vec![heads * self.head_dim],
                QkNorm::PerHead => vec![heads, self.head_dim],
            };
            norms.push((Norm::Query, shape(self.heads)));
            if self.kv_from.is_none() {
                norms.push((Norm::Key, shape(self.kv_heads)));
            }
        }
        if self.sub_norm {
            norms.push((Norm::AttentionOutput, vec![self.query_width()]));
        }
        norms
    }
}
