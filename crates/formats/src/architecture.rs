//! The Llama family described once, as data: sizes, options, and the list of tensors with their
//! names and shapes. Runtime and trainer both read it.

use halfstep_kernels::ops::rope::Llama3Scaling;

/// Sizes and options of a Llama-type model.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<Llama3Scaling>,
    pub tied_head: bool,
    pub max_positions: usize,
}

/// What a tensor is for: decides which site's quantizer, which optimizer group, which GGUF name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Embedding,
    Head,
    Norm,
    /// A block linear.
    Linear(Linear),
}

/// The seven linears of a block, in the order the forward uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linear {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

/// Where an activation or cache quantizer may stand in a block; q, k, v share `AttnIn`, gate and up
/// share `FfnIn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActivationSite {
    AttnIn,
    OIn,
    FfnIn,
    DownIn,
    KCache,
    VCache,
}

impl ActivationSite {
    pub const ALL: [ActivationSite; 6] = [
        ActivationSite::AttnIn,
        ActivationSite::OIn,
        ActivationSite::FfnIn,
        ActivationSite::DownIn,
        ActivationSite::KCache,
        ActivationSite::VCache,
    ];
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
    /// Name of the step parameter of a static quantizer here: `model.layers.<layer>.<site>.step`.
    pub fn step_name(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.step", self.name())
    }
}

impl Linear {
    pub const ALL: [Linear; 7] =
        [Linear::Q, Linear::K, Linear::V, Linear::O, Linear::Gate, Linear::Up, Linear::Down];
    /// Place in [`Linear::ALL`].
    pub const fn place(self) -> usize {
        self as usize
    }
    /// Hugging Face name inside a layer.
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
}

pub const EMBEDDING: &str = "model.embed_tokens.weight";
pub const FINAL_NORM: &str = "model.norm.weight";
pub const HEAD: &str = "lm_head.weight";

pub fn attn_norm(layer: usize) -> String {
    format!("model.layers.{layer}.input_layernorm.weight")
}

pub fn ffn_norm(layer: usize) -> String {
    format!("model.layers.{layer}.post_attention_layernorm.weight")
}

/// One tensor of the model: Hugging Face name, shape (`[out, in]` or `[width]`), role.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    pub name: String,
    pub shape: Vec<usize>,
    pub role: Role,
}

impl Architecture {
    /// Shape `[out, in]` of a block linear.
    pub fn linear_shape(&self, linear: Linear) -> [usize; 2] {
        let (d, q, kv, f) = (
            self.hidden_size,
            self.heads * self.head_dim,
            self.kv_heads * self.head_dim,
            self.intermediate_size,
        );
        match linear {
            Linear::Q => [q, d],
            Linear::K | Linear::V => [kv, d],
            Linear::O => [d, q],
            Linear::Gate | Linear::Up => [f, d],
            Linear::Down => [d, f],
        }
    }

    /// Every tensor, in the order of the forward. A tied head has no tensor of its own.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let norm =
            |name: String| TensorSpec { name, shape: vec![self.hidden_size], role: Role::Norm };
        let linear = |layer: usize, l: Linear| TensorSpec {
            name: l.weight_name(layer),
            shape: self.linear_shape(l).to_vec(),
            role: Role::Linear(l),
        };
        let table = |name: &str, role| TensorSpec {
            name: name.into(),
            shape: vec![self.vocab_size, self.hidden_size],
            role,
        };
        let mut out = vec![table(EMBEDDING, Role::Embedding)];
        for layer in 0..self.layers {
            out.push(norm(attn_norm(layer)));
            out.extend(Linear::ALL[..4].iter().map(|&l| linear(layer, l)));
            out.push(norm(ffn_norm(layer)));
            out.extend(Linear::ALL[4..].iter().map(|&l| linear(layer, l)));
        }
        out.push(norm(FINAL_NORM.into()));
        if !self.tied_head {
            out.push(table(HEAD, Role::Head));
        }
        out
    }

    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum()
    }
}
