//! What a decoder is: the embedding, layers of attention and feed-forward, the final norm, the
//! head. A field belongs here if runtime and trainer compute it.
//!
//! Each layer computes `h = x + r post(mix(n))` with `n = norm(x)`, then `y = h + r post(Down
//! (act(Gate m) * Up m))` with `m = norm(h)`, r being the residual scale. In most layers the mixer is
//! attention, `O attend(Q n, K n, V n)`. Which norms there are, what queries and keys go through,
//! which positions are seen, and whether experts share the second half, are fields. Each capital is a linear, its bias added after the product where it
//! has one.

use super::mixer::{Attention, DeltaRule, Mixer};
use super::sites::{ActivationSite, Fold, Producer};
use super::tensors::{Linear, Norm, Parameter};

/// A decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Name of the [`super::Family`] that describes its files. No computation reads it.
    pub family: &'static str,
    /// V: rows of the embedding and of the head; at least as many as there are tokens.
    pub vocab_size: usize,
    /// Width of the rows that go from layer to layer.
    pub hidden_size: usize,
    /// What a row of the embedding is multiplied by, in f32.
    pub embed_scale: f64,
    /// A second embedding, mixed into the output of every layer.
    pub per_layer_input: Option<PerLayerInput>,
    /// Transformer layers, in the order of the forward.
    pub layers: Vec<Layer>,
    /// How the norms of layers and the final norm compute.
    pub norm: Normalization,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// What logits are multiplied by.
    pub logit_scale: f64,
    /// c of `c tanh(logits / c)`, applied after the scale.
    pub logit_softcap: Option<f64>,
    /// Longest context in tokens that the model was made for.
    pub max_positions: usize,
}

/// How a norm computes. Norms of queries and keys are alike, but for [`super::QkNorm::PerHead`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// What is divided by what.
    pub kind: NormKind,
    /// Whether a bias is added; every norm but those of queries and keys has one.
    pub bias: bool,
    /// Number that is added to the mean square, or to the variance.
    pub eps: f64,
    /// 0, or 1 where the tensor holds the weight less 1.
    pub offset: f64,
}

/// What a norm divides, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps)`.
    Rms,
    /// `(x - mean(x)) / sqrt(variance(x) + eps)`.
    Layer,
}

/// A second embedding `[V, layers * width]`: Gemma 4. After layer i, with e the row's piece i,
/// `x += norm(Projection (act(Gate x) * (norm(P x_0) + e)))`; x_0 is the scaled row of the first
/// embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerLayerInput {
    /// Elements of a piece.
    pub width: usize,
}

/// A layer: a mixer, then a feed-forward, with a residual connection around both.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The first half: what mixes rows of different positions.
    pub mixer: Mixer,
    /// The feed-forward of the layer.
    pub feed_forward: FeedForward,
    /// Which norms stand around both.
    pub norms: NormPlaces,
    /// Whether the feed-forward reads what the attention reads, and both are added to x at once.
    pub parallel: bool,
    /// What a branch is multiplied by before it is added.
    pub residual_scale: f64,
    /// Whether the output of the layer is multiplied by a learned number.
    pub output_scale: bool,
}

/// Which norms a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormPlaces {
    /// Of what the attention reads.
    pub pre_attention: bool,
    /// Of what the attention gives, before it is added.
    pub post_attention: bool,
    /// Of what the feed-forward reads. A parallel layer without it reads the other one's.
    pub pre_feed_forward: bool,
    /// Of what the feed-forward gives, before it is added.
    pub post_feed_forward: bool,
}

/// The second half of a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// One for all tokens.
    Dense(Dense),
    /// Several, of which each token uses some.
    Experts(Experts),
}

/// `Down (act(Gate x) * Up x)`, or without a gate `Down act(Up x)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    /// F: outputs of gate and up, inputs of down.
    pub intermediate_size: usize,
    /// The function.
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
    /// Whether its linears have biases.
    pub bias: bool,
    /// Whether what down reads is normalised.
    pub sub_norm: bool,
}

/// The function of a feed-forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// GELU by its tanh formula.
    GeluTanh,
    /// `max(x, 0)^2`.
    SquaredRelu,
    /// `g sigmoid(alpha g) (u + 1)` with `g = min(gate, limit)` and `u` clipped to `+-limit`: a
    /// gate that changes the other factor too.
    Clamped {
        /// Slope of the sigmoid.
        alpha: f64,
        /// Largest value.
        limit: f64,
    },
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// E: number of experts.
    pub count: usize,
    /// How many of them each token uses.
    pub used: usize,
    /// What each of them is.
    pub expert: Dense,
    /// How a token finds its experts, and what they count.
    pub routing: Routing,
    /// An expert that every token uses.
    pub shared: Option<Dense>,
    /// Whether what the shared one gives is multiplied by `sigmoid(w . x)`.
    pub shared_gate: bool,
}

/// How scores of a float linear, the router, become chosen experts and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// What becomes of the router's outputs.
    pub score: Score,
    /// Whether the router has a bias.
    pub bias: bool,
    /// Whether a learned number is added to the score of each expert for the choice alone.
    pub choice_bias: bool,
    /// Groups of experts, and how many of them a token may choose from: those with the largest sum
    /// of their two best scores.
    pub groups: Option<[usize; 2]>,
    /// Whether the weights of the chosen are divided by their sum.
    pub normalise: bool,
    /// What weights are multiplied by in the end.
    pub scale: f64,
}

/// Scores of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Softmax over all experts.
    Softmax,
    /// The largest outputs are chosen; softmax over the chosen alone.
    SoftmaxOfChosen,
    /// A sigmoid of each.
    Sigmoid,
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

impl Architecture {
    /// The attentions of the layers that have one.
    pub fn attentions(&self) -> impl Iterator<Item = &Attention> {
        self.layers.iter().filter_map(Layer::attention)
    }

    /// The same, to be changed.
    pub fn attentions_mut(&mut self) -> impl Iterator<Item = &mut Attention> {
        self.layers.iter_mut().filter_map(Layer::attention_mut)
    }

    /// The delta rules of the layers that have one.
    pub fn delta_rules(&self) -> impl Iterator<Item = &DeltaRule> {
        self.layers.iter().filter_map(|layer| match &layer.mixer {
            Mixer::DeltaRule(delta) => Some(delta),
            Mixer::Attention(_) | Mixer::Convolution(_) => None,
        })
    }

    /// The same, to be changed.
    pub fn delta_rules_mut(&mut self) -> impl Iterator<Item = &mut DeltaRule> {
        self.layers.iter_mut().filter_map(|layer| match &mut layer.mixer {
            Mixer::DeltaRule(delta) => Some(delta),
            Mixer::Attention(_) | Mixer::Convolution(_) => None,
        })
    }

    /// Linears of a layer in the order of the forward.
    pub fn linears(&self, layer: usize) -> Vec<LinearSpec> {
        let Layer { mixer, feed_forward, .. } = &self.layers[layer];
        let d = self.hidden_size;
        let linear = |kind, shape, bias| LinearSpec { kind, shape, bias };
        let mut linears = mixer.linears(d);
        let mut dense = |dense: &Dense, [gate, up, down]: [Linear; 3]| {
            let f = dense.intermediate_size;
            if dense.gated {
                linears.push(linear(gate, [f, d], dense.bias));
            }
            linears.push(linear(up, [f, d], dense.bias));
            linears.push(linear(down, [d, f], dense.bias));
        };
        match feed_forward {
            FeedForward::Dense(one) => dense(one, [Linear::Gate, Linear::Up, Linear::Down]),
            FeedForward::Experts(experts) => {
                for e in 0..experts.count as u16 {
                    dense(&experts.expert, Linear::expert(e));
                }
                if let Some(shared) = &experts.shared {
                    dense(shared, Linear::SHARED);
                }
            }
        }
        if let Some(PerLayerInput { width }) = self.per_layer_input {
            linears.push(linear(Linear::PerLayerGate, [width, d], false));
            linears.push(linear(Linear::PerLayerProjection, [d, width], false));
        }
        linears
    }

    /// Norms of a layer with the shapes of their weights, in the order of the forward.
    pub fn norms(&self, layer: usize) -> Vec<(Norm, Vec<usize>)> {
        let (d, Layer { mixer, norms: places, .. }) = (self.hidden_size, &self.layers[layer]);
        let mut norms = vec![];
        if places.pre_attention {
            norms.push((Norm::Attention, vec![d]));
        }
        norms.extend(mixer.norms());
        let mut add = |there: bool, norm: Norm, shape: &[usize]| {
            if there {
                norms.push((norm, shape.to_vec()));
            }
        };
        add(places.post_attention, Norm::PostAttention, &[d]);
        add(places.pre_feed_forward, Norm::FeedForward, &[d]);
        if let FeedForward::Dense(dense) = &self.layers[layer].feed_forward {
            add(dense.sub_norm, Norm::DownInput, &[dense.intermediate_size]);
        }
        add(places.post_feed_forward, Norm::PostFeedForward, &[d]);
        add(self.per_layer_input.is_some(), Norm::PerLayer, &[d]);
        norms
    }

    /// Other tensors of a layer, none of which is ever quantized, with their shapes.
    pub fn parameters_of(&self, layer: usize) -> Vec<(Parameter, Vec<usize>)> {
        let (d, layer) = (self.hidden_size, &self.layers[layer]);
        let mut parameters = layer.mixer.parameters(d);
        if let FeedForward::Experts(experts) = &layer.feed_forward {
            parameters.push((Parameter::Router, vec![experts.count, d]));
            if experts.routing.bias {
                parameters.push((Parameter::RouterBias, vec![experts.count]));
            }
            if experts.routing.choice_bias {
                parameters.push((Parameter::ChoiceBias, vec![experts.count]));
            }
            if experts.shared_gate {
                parameters.push((Parameter::SharedGate, vec![1, d]));
            }
        }
        if layer.output_scale {
            parameters.push((Parameter::OutputScale, vec![1]));
        }
        parameters
    }

    /// The sites of a layer: inputs of linears in the order of the forward, then the cache.
    pub fn sites(&self, layer: usize) -> Vec<ActivationSite> {
        let mut sites: Vec<ActivationSite> = vec![];
        for linear in self.linears(layer) {
            let site = linear.kind.input();
            if !sites.contains(&site) {
                sites.push(site);
            }
        }
        if self.layers[layer].attention().is_some_and(|a| a.kv_from.is_none()) {
            sites.extend([ActivationSite::KCache, ActivationSite::VCache]);
        }
        sites
    }
}

impl Layer {
    /// The attention, if the mixer is one.
    pub fn attention(&self) -> Option<&Attention> {
        if let Mixer::Attention(attention) = &self.mixer { Some(attention) } else { None }
    }

    /// The same, to be changed.
    pub fn attention_mut(&mut self) -> Option<&mut Attention> {
        if let Mixer::Attention(attention) = &mut self.mixer { Some(attention) } else { None }
    }

    /// An earlier layer whose keys and values the attention reads.
    pub fn kv_from(&self) -> Option<usize> {
        self.attention().and_then(|attention| attention.kv_from)
    }

    /// The sites that can be folded, in the order of the forward.
    pub fn folds(&self) -> Vec<Fold> {
        let fold = |site, producer| Fold { site, producer };
        let mut folds = vec![];
        // What a parallel layer's norm gives, the feed-forward reads too.
        let shared = self.parallel && !self.norms.pre_feed_forward;
        // The gates of a delta rule, which are in float, read what the norm gives too.
        let alone = !matches!(self.mixer, Mixer::DeltaRule(_));
        if self.norms.pre_attention && !shared && alone {
            folds.push(fold(ActivationSite::AttnIn, Producer::Norm(Norm::Attention)));
        }
        if self.attention().is_some_and(Attention::scales_with_values) {
            folds.push(fold(ActivationSite::OIn, Producer::Linear(Linear::V)));
        }
        if let FeedForward::Dense(dense) = &self.feed_forward {
            if self.norms.pre_feed_forward {
                folds.push(fold(ActivationSite::FfnIn, Producer::Norm(Norm::FeedForward)));
            }
            if dense.scales_with_up() {
                folds.push(fold(ActivationSite::DownIn, Producer::Linear(Linear::Up)));
            }
        }
        if let FeedForward::Experts(experts) = &self.feed_forward
            && experts.expert.scales_with_up()
        {
            for e in 0..experts.count as u16 {
                let [_, up, _] = Linear::expert(e);
                folds.push(fold(ActivationSite::ExpertDownIn(e), Producer::Linear(up)));
            }
        }
        folds
    }
}

impl Dense {
    /// Whether a factor on a row of up is one on the same channel of what down reads.
    fn scales_with_up(&self) -> bool {
        let clamped = matches!(self.activation, Activation::Clamped { .. });
        self.gated && !self.sub_norm && !clamped
    }
}

impl FeedForward {
    /// Widest input of a down linear.
    pub fn widest(&self) -> usize {
        match self {
            FeedForward::Dense(dense) => dense.intermediate_size,
            FeedForward::Experts(experts) => {
                let shared = experts.shared.map_or(0, |shared| shared.intermediate_size);
                experts.expert.intermediate_size.max(shared)
            }
        }
    }

    /// What it is, if it is one for all tokens.
    pub fn dense(&self) -> Option<&Dense> {
        if let FeedForward::Dense(dense) = self { Some(dense) } else { None }
    }

    /// Its experts, if it has some.
    pub fn experts(&self) -> Option<&Experts> {
        if let FeedForward::Experts(experts) = self { Some(experts) } else { None }
    }
}

impl Routing {
    /// Scores of a kind without more.
    pub const fn of(score: Score) -> Self {
        Self { score, bias: false, choice_bias: false, groups: None, normalise: false, scale: 1.0 }
    }
}

impl Dense {
    /// The feed-forward of Llama.
    pub const fn swiglu(intermediate_size: usize) -> Self {
        let activation = Activation::Silu;
        Self { intermediate_size, activation, gated: true, bias: false, sub_norm: false }
    }
}

impl NormPlaces {
    /// One before each half.
    pub const PRE: Self = Self {
        pre_attention: true,
        post_attention: false,
        pre_feed_forward: true,
        post_feed_forward: false,
    };
    /// One after each half.
    pub const POST: Self = Self {
        pre_attention: false,
        post_attention: true,
        pre_feed_forward: false,
        post_feed_forward: true,
    };
    /// One before and one after each half.
    pub const AROUND: Self = Self {
        pre_attention: true,
        post_attention: true,
        pre_feed_forward: true,
        post_feed_forward: true,
    };
}
