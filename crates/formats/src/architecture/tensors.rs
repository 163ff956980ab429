//! The tensors of a decoder: names, shapes and roles. These are the names inside; what files call
//! them is their family's knowledge.

use super::graph::{Architecture, LinearSpec, NormKind};
use super::sites::ActivationSite;
use std::borrow::Cow;

/// Name of the embedding `[V, hidden_size]`.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the weight `[hidden_size]` of the norm after the last layer.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name of the bias of the same, where norms have one.
pub const FINAL_NORM_BIAS: &str = "model.norm.bias";
/// Name of the head `[V, hidden_size]`; a tied head has no tensor.
pub const HEAD: &str = "lm_head.weight";
/// Name of the second embedding `[V, layers * width]`.
pub const PER_LAYER_EMBEDDING: &str = "model.embed_tokens_per_layer.weight";
/// Name of the matrix `[layers * width, hidden_size]` through which the first embedding joins it.
pub const PER_LAYER_MODEL_PROJECTION: &str = "model.per_layer_model_projection.weight";
/// Name of the weight `[width]` of the norm of what that matrix gives.
pub const PER_LAYER_NORM: &str = "model.per_layer_projection_norm.weight";

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
    /// Queries, keys and values of a delta rule before its convolution.
    DeltaQkv,
    /// What the output of a delta rule is gated by.
    DeltaGate,
    /// Output of a delta rule.
    DeltaOut,
    /// The three inputs of a convolution, `[3 hidden_size, hidden_size]`.
    ConvolutionIn,
    /// Output of a convolution, `[hidden_size, hidden_size]`.
    ConvolutionOut,
    /// Gate of the feed-forward, `[F, hidden_size]`.
    Gate,
    /// What the gate is multiplied with, `[F, hidden_size]`.
    Up,
    /// Output of the feed-forward, `[hidden_size, F]`.
    Down,
    /// Gate of an expert.
    ExpertGate(u16),
    /// What the gate of an expert is multiplied with.
    ExpertUp(u16),
    /// Output of an expert.
    ExpertDown(u16),
    /// Gate of the expert that all tokens use.
    SharedGate,
    /// What that gate is multiplied with.
    SharedUp,
    /// Output of the expert that all tokens use.
    SharedDown,
    /// From the layer's output to the width of the per-layer input.
    PerLayerGate,
    /// Back to the hidden size.
    PerLayerProjection,
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
    /// What the heads give, before the output linear.
    AttentionOutput,
    /// What each head of a delta rule gives, before it is gated: always divided by the root of the
    /// mean square, its weight whole in all files.
    Delta,
    /// What the attention gives, before it is added.
    PostAttention,
    /// The input of down.
    DownInput,
    /// What the feed-forward gives, before it is added.
    PostFeedForward,
    /// What the per-layer input adds.
    PerLayer,
}

/// A tensor of a layer that is neither of a norm nor of a linear; it is never quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parameter {
    /// A score for each head that joins the softmax, `[H]`.
    Sinks,
    /// What each channel of a delta rule is convolved with, `[channels, kernel]`, the last for the
    /// token itself.
    DeltaKernel,
    /// How much of a value a delta rule writes, `[value heads, hidden_size]`.
    DeltaWrite,
    /// How fast it forgets, `[value heads, hidden_size]`.
    DeltaDecay,
    /// Added to the same, `[value heads]`.
    DeltaDecayBias,
    /// What the same is multiplied by, in the form of [`super::Decay`], `[value heads]`.
    DeltaRate,
    /// What each channel of a convolution is convolved with, `[hidden_size, kernel]`.
    ConvolutionKernel,
    /// The scores of the experts, `[E, hidden_size]`.
    Router,
    /// Added to them, `[E]`.
    RouterBias,
    /// Added to them for the choice alone, `[E]`.
    ChoiceBias,
    /// How much the shared expert counts, `[1, hidden_size]`.
    SharedGate,
    /// What the layer's output is multiplied by, `[1]`.
    OutputScale,
}

/// What a tensor is for: decides which site's quantizer, which optimizer group, which name in a
/// file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The embedding of the tokens.
    Embedding,
    /// The head: a row for each token, of which the product is the logit.
    Head,
    /// The norm between the last layer and the head.
    FinalNorm,
    /// A norm of a layer.
    Norm(Norm),
    /// The weight of a linear of a layer.
    Linear(Linear),
    /// The bias of a linear of a layer.
    Bias(Linear),
    /// The bias of the norm between the last layer and the head.
    FinalNormBias,
    /// The bias of a norm of a layer.
    NormBias(Norm),
    /// Another tensor of a layer.
    Parameter(Parameter),
    /// The second embedding.
    PerLayerEmbedding,
    /// The matrix through which the first embedding joins the second.
    PerLayerModelProjection,
    /// The norm of what that matrix gives.
    PerLayerNorm,
}

impl Role {
    /// Whether it is kept in float: norms, biases and the like, which train as vectors.
    pub const fn is_vector(self) -> bool {
        !matches!(self, Role::Embedding | Role::Head | Role::Linear(_) | Role::PerLayerEmbedding)
    }

    /// Whether it is the weight of a norm, to which the offset of norms is added.
    pub const fn is_norm(self) -> bool {
        match self {
            Role::Norm(norm) => !matches!(norm, Norm::Delta),
            role => matches!(role, Role::FinalNorm | Role::PerLayerNorm),
        }
    }
}

/// One tensor of the model: name, shape (`[out, in]` or `[width]`), role.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name inside a [`Model`](crate::Model): that of Hugging Face's Llama, where it has one.
    pub name: String,
    /// `[out, in]` of a matrix, `[width]` of a vector.
    pub shape: Vec<usize>,
    /// What the tensor is for.
    pub role: Role,
    /// The layer it belongs to; None for embedding, final norm and head.
    pub layer: Option<usize>,
}

impl Architecture {
    /// Every tensor, in the order of the forward. A tied head has no tensor of its own.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let end = |name: &str, shape: &[usize], role| TensorSpec {
            name: name.into(),
            shape: shape.to_vec(),
            role,
            layer: None,
        };
        let (d, table) = (self.hidden_size, [self.vocab_size, self.hidden_size]);
        let mut out = vec![end(EMBEDDING, &table, Role::Embedding)];
        if let Some(input) = self.per_layer_input {
            let all = self.layers.len() * input.width;
            let role = Role::PerLayerModelProjection;
            out.push(end(PER_LAYER_EMBEDDING, &[self.vocab_size, all], Role::PerLayerEmbedding));
            out.push(end(PER_LAYER_MODEL_PROJECTION, &[all, d], role));
            out.push(end(PER_LAYER_NORM, &[input.width], Role::PerLayerNorm));
        }
        (0..self.layers.len()).for_each(|layer| out.extend(self.layer_tensors(layer)));
        out.push(end(FINAL_NORM, &[d], Role::FinalNorm));
        if self.norm.bias {
            out.push(end(FINAL_NORM_BIAS, &[d], Role::FinalNormBias));
        }
        if !self.tied_head {
            out.push(end(HEAD, &table, Role::Head));
        }
        out
    }

    /// The tensors of one layer, in the order of the forward: each norm before the linears that are
    /// computed after it.
    pub fn layer_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let spec = |name, shape, role| TensorSpec { name, shape, role, layer: Some(layer) };
        let mut norms = vec![];
        for (norm, shape) in self.norms(layer) {
            if self.norm.bias && !norm.is_of_heads() {
                let bias = spec(norm.bias_name(layer), shape.clone(), Role::NormBias(norm));
                norms.push((norm, spec(norm.weight_name(layer), shape, Role::Norm(norm))));
                norms.push((norm, bias));
            } else {
                norms.push((norm, spec(norm.weight_name(layer), shape, Role::Norm(norm))));
            }
        }
        let mut norms = norms.into_iter().peekable();
        let mut out = vec![];
        for LinearSpec { kind, shape, bias } in self.linears(layer) {
            while let Some((_, norm)) = norms.next_if(|(norm, _)| norm.place() <= kind.place()) {
                out.push(norm);
            }
            out.push(spec(kind.weight_name(layer), shape.to_vec(), Role::Linear(kind)));
            if bias {
                out.push(spec(kind.bias_name(layer), vec![shape[0]], Role::Bias(kind)));
            }
        }
        out.extend(norms.map(|(_, norm)| norm));
        for (parameter, shape) in self.parameters_of(layer) {
            out.push(spec(parameter.name_in(layer), shape, Role::Parameter(parameter)));
        }
        out
    }

    /// Number of values of all tensors; a tied head counts once.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum()
    }

    /// How the norm of queries and keys, or any other one, computes: that of [`Self::norm`], but for
    /// norms of each head in the way of layer norms.
    pub fn norm_kind(&self, layer: usize, norm: Norm) -> NormKind {
        let attention = self.layers[layer].attention();
        let per_head = attention.is_some_and(|a| a.qk_norm == Some(super::QkNorm::PerHead));
        match norm {
            Norm::Delta => NormKind::Rms,
            norm if norm.is_of_heads() && per_head => NormKind::Layer,
            _ => self.norm.kind,
        }
    }
}

impl Linear {
    /// The linears of a layer with one gated feed-forward for all tokens, in the order of the
    /// forward. [`Architecture::linears`] knows those of any layer.
    pub const USUAL: [Linear; 7] =
        [Linear::Q, Linear::K, Linear::V, Linear::O, Linear::Gate, Linear::Up, Linear::Down];
    /// Gate, up and down of the expert that all tokens use.
    pub const SHARED: [Linear; 3] = [Linear::SharedGate, Linear::SharedUp, Linear::SharedDown];

    /// Those of other mixers and of the per-layer input.
    const OTHERS: [Linear; 7] = [
        Linear::DeltaQkv,
        Linear::DeltaGate,
        Linear::DeltaOut,
        Linear::ConvolutionIn,
        Linear::ConvolutionOut,
        Linear::PerLayerGate,
        Linear::PerLayerProjection,
    ];

    /// Gate, up and down of an expert.
    pub const fn expert(expert: u16) -> [Linear; 3] {
        [Linear::ExpertGate(expert), Linear::ExpertUp(expert), Linear::ExpertDown(expert)]
    }

    /// The expert whose linear it is, if it is one's.
    pub const fn expert_number(self) -> Option<u16> {
        match self {
            Linear::ExpertGate(e) | Linear::ExpertUp(e) | Linear::ExpertDown(e) => Some(e),
            _ => None,
        }
    }

    /// Name inside a layer.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Linear::Q => "self_attn.q_proj",
            Linear::K => "self_attn.k_proj",
            Linear::V => "self_attn.v_proj",
            Linear::O => "self_attn.o_proj",
            Linear::DeltaQkv => "linear_attn.in_proj_qkv",
            Linear::DeltaGate => "linear_attn.in_proj_z",
            Linear::DeltaOut => "linear_attn.out_proj",
            Linear::ConvolutionIn => "conv.in_proj",
            Linear::ConvolutionOut => "conv.out_proj",
            Linear::Gate => "mlp.gate_proj",
            Linear::Up => "mlp.up_proj",
            Linear::Down => "mlp.down_proj",
            Linear::ExpertGate(e) => return format!("mlp.experts.{e}.gate_proj").into(),
            Linear::ExpertUp(e) => return format!("mlp.experts.{e}.up_proj").into(),
            Linear::ExpertDown(e) => return format!("mlp.experts.{e}.down_proj").into(),
            Linear::SharedGate => "mlp.shared_expert.gate_proj",
            Linear::SharedUp => "mlp.shared_expert.up_proj",
            Linear::SharedDown => "mlp.shared_expert.down_proj",
            Linear::PerLayerGate => "per_layer_input_gate",
            Linear::PerLayerProjection => "per_layer_projection",
        })
    }

    /// The last part of the name: what linears of the same kind have in common.
    pub const fn short_name(self) -> &'static str {
        match self {
            Linear::Q => "q_proj",
            Linear::K => "k_proj",
            Linear::V => "v_proj",
            Linear::O => "o_proj",
            Linear::DeltaQkv => "in_proj_qkv",
            Linear::DeltaGate => "in_proj_z",
            Linear::ConvolutionIn => "in_proj",
            Linear::DeltaOut | Linear::ConvolutionOut => "out_proj",
            Linear::Gate | Linear::ExpertGate(_) | Linear::SharedGate => "gate_proj",
            Linear::Up | Linear::ExpertUp(_) | Linear::SharedUp => "up_proj",
            Linear::Down | Linear::ExpertDown(_) | Linear::SharedDown => "down_proj",
            Linear::PerLayerGate => "per_layer_input_gate",
            Linear::PerLayerProjection => "per_layer_projection",
        }
    }

    /// The activation site whose quantizer prepares this linear's input.
    pub const fn input(self) -> ActivationSite {
        match self {
            Linear::Q | Linear::K | Linear::V => ActivationSite::AttnIn,
            Linear::DeltaQkv | Linear::DeltaGate | Linear::ConvolutionIn => ActivationSite::AttnIn,
            Linear::O | Linear::DeltaOut | Linear::ConvolutionOut => ActivationSite::OIn,
            Linear::Gate | Linear::Up => ActivationSite::FfnIn,
            Linear::Down => ActivationSite::DownIn,
            Linear::ExpertGate(e) | Linear::ExpertUp(e) => ActivationSite::ExpertIn(e),
            Linear::ExpertDown(e) => ActivationSite::ExpertDownIn(e),
            Linear::SharedGate | Linear::SharedUp => ActivationSite::SharedIn,
            Linear::SharedDown => ActivationSite::SharedDownIn,
            Linear::PerLayerGate => ActivationSite::PerLayerIn,
            Linear::PerLayerProjection => ActivationSite::PerLayerProjectionIn,
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

    /// Layer and linear of [`Self::weight_name`]. None: it is no weight of a linear.
    pub fn parse(name: &str) -> Option<(usize, Linear)> {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (layer, rest) = (layer.parse().ok()?, rest.strip_suffix(".weight")?);
        let linear = match rest.strip_prefix("mlp.experts.").and_then(|rest| rest.split_once('.')) {
            Some((e, part)) => {
                let expert = Linear::expert(e.parse().ok()?);
                expert.into_iter().find(|linear| linear.short_name() == part)?
            }
            None => {
                let all = Self::USUAL.into_iter().chain(Self::SHARED).chain(Self::OTHERS);
                all.into_iter().find(|linear| linear.name() == rest)?
            }
        };
        (linear.weight_name(layer) == name).then_some((layer, linear))
    }

    /// Where in the forward it is computed; see [`Norm::place`].
    const fn place(self) -> u8 {
        match self {
            Linear::Q | Linear::K | Linear::V => 1,
            Linear::DeltaQkv | Linear::DeltaGate | Linear::ConvolutionIn => 1,
            Linear::O | Linear::DeltaOut | Linear::ConvolutionOut => 3,
            Linear::Gate | Linear::Up => 5,
            Linear::ExpertGate(_) | Linear::ExpertUp(_) | Linear::ExpertDown(_) => 5,
            Linear::SharedGate | Linear::SharedUp | Linear::SharedDown => 5,
            Linear::Down => 7,
            Linear::PerLayerGate | Linear::PerLayerProjection => 9,
        }
    }
}

impl Norm {
    /// Name inside a layer. That of the norm before the feed-forward is Llama's.
    pub const fn name(self) -> &'static str {
        match self {
            Norm::Attention => "input_layernorm",
            Norm::FeedForward => "post_attention_layernorm",
            Norm::Query => "self_attn.q_norm",
            Norm::Key => "self_attn.k_norm",
            Norm::AttentionOutput => "self_attn.attn_sub_norm",
            Norm::Delta => "linear_attn.norm",
            Norm::PostAttention => "post_attention_norm",
            Norm::DownInput => "mlp.ffn_sub_norm",
            Norm::PostFeedForward => "post_feedforward_norm",
            Norm::PerLayer => "post_per_layer_input_norm",
        }
    }

    /// Whether it is one of single heads, which never has a bias.
    pub const fn is_of_heads(self) -> bool {
        matches!(self, Norm::Query | Norm::Key | Norm::Delta)
    }

    /// Where in the forward it is computed: 0 before q, 2 before o, and so on.
    const fn place(self) -> u8 {
        match self {
            Norm::Attention => 0,
            Norm::Query | Norm::Key | Norm::AttentionOutput | Norm::Delta => 2,
            Norm::PostAttention | Norm::FeedForward => 4,
            Norm::DownInput => 6,
            Norm::PostFeedForward => 8,
            Norm::PerLayer => 10,
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

impl Parameter {
    /// Name inside a layer.
    pub const fn name(self) -> &'static str {
        match self {
            Parameter::Sinks => "self_attn.sinks",
            Parameter::DeltaKernel => "linear_attn.conv1d.weight",
            Parameter::DeltaWrite => "linear_attn.in_proj_b.weight",
            Parameter::DeltaDecay => "linear_attn.in_proj_a.weight",
            Parameter::DeltaDecayBias => "linear_attn.dt_bias",
            Parameter::DeltaRate => "linear_attn.A_log",
            Parameter::ConvolutionKernel => "conv.conv.weight",
            Parameter::Router => "mlp.gate.weight",
            Parameter::RouterBias => "mlp.gate.bias",
            Parameter::ChoiceBias => "mlp.gate.e_score_correction_bias",
            Parameter::SharedGate => "mlp.shared_expert_gate.weight",
            Parameter::OutputScale => "layer_scalar",
        }
    }

    /// `model.layers.<layer>.<name>`.
    pub fn name_in(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.name())
    }
}
