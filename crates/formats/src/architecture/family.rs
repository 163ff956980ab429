//! Families of models: what each is called, and how its files spell the graph.
//!
//! Files of different families differ little: the reader of config.json ([`crate::config`]) and
//! that of GGUF metadata take the sizes, and the family fills the graph with them. A family states
//! what of its own it has; whatever else would change the maths stays refused by name.

use super::arch;
use super::graph::Architecture;
use super::sizes::Sizes;
use super::tensors::{Linear, Norm, Parameter, Role, TensorSpec};
use serde_json::Value;

/// One family.
pub trait Family: Sync {
    /// `general.architecture` of a GGUF file, and the name by which the graph refers to its family.
    fn name(&self) -> &'static str;

    /// The name in `architectures` of a config.json.
    fn class(&self) -> &'static str;

    /// `model_type` of a config.json.
    fn model_type(&self) -> &'static str {
        self.name()
    }

    /// The decoder of these sizes.
    fn graph(&self, sizes: &Sizes) -> Architecture;

    /// What a key means that a config.json does not have.
    fn defaults(&self) -> Defaults {
        Defaults::default()
    }

    /// Keys of a config.json that change the maths in other families, not in this one: here the
    /// graph already has what they would switch on, or nothing reads them.
    fn settled_keys(&self) -> &'static [&'static str] {
        &[]
    }

    /// Keys of its config.json in addition to those that are written for every family.
    fn own_keys(&self) -> Vec<(&'static str, Value)> {
        vec![]
    }

    /// Name of a tensor in a Hugging Face folder.
    fn hugging_face_name(&self, tensor: &TensorSpec) -> String {
        tensor.name.clone()
    }

    /// Name of a tensor in a GGUF file.
    fn gguf_name(&self, tensor: &TensorSpec) -> String {
        usual_gguf_name(tensor)
    }

    /// Whether GGUF has the rows of q and k, and their biases, in the order of interleaved rotary
    /// pairs. A model never has.
    fn interleaves_rows(&self) -> bool {
        false
    }
}

/// The values of absent keys of config.json, as in transformers' configuration class.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `rms_norm_eps`.
    pub norm_eps: f64,
    /// `rope_theta`.
    pub rope_theta: f64,
    /// `max_position_embeddings`, in tokens.
    pub positions: usize,
    /// None: as many as there are query heads.
    pub kv_heads: Option<usize>,
    /// None: the hidden size over the heads.
    pub head_dim: Option<usize>,
    /// Whether a sliding window applies if `use_sliding_window` is absent.
    pub use_sliding_window: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            norm_eps: 1e-6,
            rope_theta: 10_000.0,
            positions: 2048,
            kv_heads: None,
            head_dim: None,
            use_sliding_window: true,
        }
    }
}

/// Every family there is.
pub fn all() -> &'static [&'static dyn Family] {
    arch::ALL
}

/// The first family for which this holds.
pub fn find(is: impl Fn(&dyn Family) -> bool) -> Option<&'static dyn Family> {
    all().iter().copied().find(|family| is(*family))
}

/// The family of a decoder.
pub fn of(architecture: &Architecture) -> &'static dyn Family {
    find(|family| family.name() == architecture.family).expect("a graph is made by its family")
}

/// What is read, for messages: `"LlamaForCausalLM (llama), ..."`.
pub fn listed() -> String {
    let one = |family: &&dyn Family| format!("{} ({})", family.class(), family.name());
    all().iter().map(one).collect::<Vec<_>>().join(", ")
}

pub(crate) const EMBEDDING_GGUF: &str = "token_embd.weight";
pub(crate) const FINAL_NORM_GGUF: &str = "output_norm.weight";
pub(crate) const HEAD_GGUF: &str = "output.weight";

/// Name of a tensor in the GGUF files of most families.
fn usual_gguf_name(tensor: &TensorSpec) -> String {
    let in_layer =
        |name: &str, part: &str| format!("blk.{}.{name}.{part}", tensor.layer.unwrap_or_default());
    match tensor.role {
        Role::Embedding => EMBEDDING_GGUF.into(),
        Role::FinalNorm => FINAL_NORM_GGUF.into(),
        Role::Head => HEAD_GGUF.into(),
        Role::Norm(norm) => in_layer(norm_gguf(norm), "weight"),
        Role::Linear(linear) => in_layer(linear_gguf(linear), "weight"),
        Role::Bias(linear) => in_layer(linear_gguf(linear), "bias"),
        Role::FinalNormBias => "output_norm.bias".into(),
        Role::NormBias(norm) => in_layer(norm_gguf(norm), "bias"),
        Role::Parameter(parameter) => {
            let (name, part) = parameter_gguf(parameter);
            in_layer(name, part)
        }
        Role::PerLayerEmbedding => "per_layer_token_embd.weight".into(),
        Role::PerLayerModelProjection => "per_layer_model_proj.weight".into(),
        Role::PerLayerNorm => "per_layer_proj_norm.weight".into(),
    }
}

const fn norm_gguf(norm: Norm) -> &'static str {
    match norm {
        Norm::Attention => "attn_norm",
        Norm::FeedForward => "ffn_norm",
        Norm::Query => "attn_q_norm",
        Norm::Key => "attn_k_norm",
        Norm::AttentionOutput => "attn_sub_norm",
        Norm::PostAttention => "post_attention_norm",
        Norm::DownInput => "ffn_sub_norm",
        Norm::PostFeedForward => "post_ffw_norm",
        Norm::PerLayer => "post_norm",
    }
}

const fn linear_gguf(linear: Linear) -> &'static str {
    match linear {
        Linear::Q => "attn_q",
        Linear::K => "attn_k",
        Linear::V => "attn_v",
        Linear::O => "attn_output",
        Linear::Gate => "ffn_gate",
        Linear::Up => "ffn_up",
        Linear::Down => "ffn_down",
        // Those of all experts are one tensor.
        Linear::ExpertGate(_) => "ffn_gate_exps",
        Linear::ExpertUp(_) => "ffn_up_exps",
        Linear::ExpertDown(_) => "ffn_down_exps",
        Linear::SharedGate => "ffn_gate_shexp",
        Linear::SharedUp => "ffn_up_shexp",
        Linear::SharedDown => "ffn_down_shexp",
        Linear::PerLayerGate => "inp_gate",
        Linear::PerLayerProjection => "proj",
    }
}

const fn parameter_gguf(parameter: Parameter) -> (&'static str, &'static str) {
    match parameter {
        Parameter::Sinks => ("attn_sinks", "weight"),
        Parameter::Router => ("ffn_gate_inp", "weight"),
        Parameter::RouterBias => ("ffn_gate_inp", "bias"),
        Parameter::ChoiceBias => ("exp_probs_b", "bias"),
        Parameter::SharedGate => ("ffn_gate_inp_shexp", "weight"),
        Parameter::OutputScale => ("layer_output_scale", "weight"),
    }
}
