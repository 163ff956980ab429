//! How the tensors of a model lie in the tensors of a file: under other names, several as one, or
//! in another order of rows.

use super::family::{self, Family};
use super::fields::Form;
use super::graph::Architecture;
use super::mixer::{DeltaRule, HeadOrder, Mixer};
use super::tensors::{Linear, Norm, Parameter, Role, TensorSpec};
use std::collections::{HashMap, HashSet};

/// A tensor of a file.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Its shape; all but the last size count rows.
    pub shape: Vec<usize>,
    /// The tensors of the model that it holds.
    pub pieces: Vec<Piece>,
    /// Whether each matrix of a stack `[E, in, out]` is transposed.
    pub transposed: bool,
}

/// A tensor of the model inside one of a file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The tensor of the model.
    pub tensor: TensorSpec,
    /// Which rows it has there.
    pub rows: Rows,
    /// In which order its columns are there.
    pub columns: Columns,
}

/// The order of columns in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// That of the model.
    Same,
    /// Those of single heads in another order.
    Heads {
        /// Columns of a head.
        width: usize,
        /// For each head of the model, the one of the file.
        at: Vec<usize>,
    },
}

/// Which rows of a file's tensor are those of a model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All, in order.
    All,
    /// From `first` on every `step`-th.
    From {
        /// The row of the file that is the first one.
        first: usize,
        /// 1, or 2 where two matrices alternate.
        step: usize,
    },
    /// All, each of so many heads in the order of interleaved rotary pairs.
    Interleaved {
        /// Number of heads.
        heads: usize,
    },
    /// For each row of the model, the one of the file.
    At(Vec<usize>),
}

/// What the tensors of a file of the architecture's family hold, in the order of the forward.
pub fn stored(architecture: &Architecture, form: Form) -> Vec<Stored> {
    let family = family::of(architecture);
    family.stored(architecture, form).unwrap_or_else(|| usual(family, architecture, form))
}

/// Tensors that files may hold and nothing reads: keys and values of layers that read those of
/// others.
pub fn unread(architecture: &Architecture, form: Form) -> Vec<String> {
    if architecture.attentions().all(|a| a.kv_from.is_none()) {
        return vec![];
    }
    let mut all = architecture.clone();
    all.attentions_mut().for_each(|a| a.kv_from = None);
    let names = |graph: &Architecture| stored(graph, form).into_iter().map(|stored| stored.name);
    let read: HashSet<String> = names(architecture).collect();
    names(&all).filter(|name| !read.contains(name)).collect()
}

/// A tensor of the file for each of the model, but for what the family fuses, and for experts in
/// GGUF, which are stacked.
pub(super) fn usual(family: &dyn Family, architecture: &Architecture, form: Form) -> Vec<Stored> {
    let mut out: Vec<Stored> = vec![];
    // Where each name is: a model of many experts has too many to search them.
    let mut places: HashMap<String, usize> = HashMap::new();
    for tensor in architecture.tensors() {
        let name = name_in(family, &tensor, form);
        let rows = rows_of(family, architecture, &tensor, form);
        match places.get(&name) {
            Some(&place) => out[place].add(tensor),
            None => {
                places.insert(name.clone(), out.len());
                let shape = shape_in(&tensor, form);
                let columns = columns_of(family, architecture, &tensor, form);
                let pieces = vec![Piece { tensor, rows, columns }];
                out.push(Stored { name, shape, pieces, transposed: false });
            }
        }
    }
    if form == Form::Gguf {
        out.iter_mut().for_each(Stored::stack_experts);
    }
    out
}

impl Stored {
    /// One more tensor after the rows that are there. Its elements are rows where it is a vector.
    fn add(&mut self, tensor: TensorSpec) {
        if let [Piece { rows: rows @ Rows::All, .. }] = &mut self.pieces[..] {
            *rows = Rows::From { first: 0, step: 1 };
        }
        let rows = Rows::From { first: self.shape[0], step: 1 };
        self.shape[0] += tensor.shape[0];
        self.pieces.push(Piece { tensor, rows, columns: Columns::Same });
    }

    /// The same rows as a stack of matrices or vectors, where they are those of experts.
    fn stack_experts(&mut self) {
        if self.is_of_experts() {
            self.shape[0] /= self.pieces.len();
            self.shape.insert(0, self.pieces.len());
        }
    }
}

fn rows_of(
    family: &dyn Family,
    architecture: &Architecture,
    tensor: &TensorSpec,
    form: Form,
) -> Rows {
    if let Some((delta, held)) = reordered(family, architecture, tensor, form) {
        return value_rows(delta, held, tensor.role);
    }
    let attention = tensor.layer.and_then(|layer| architecture.layers[layer].attention());
    let Some(attention) = attention.filter(|_| form == Form::Gguf && family.interleaves_rows())
    else {
        return Rows::All;
    };
    match tensor.role {
        Role::Linear(Linear::Q) | Role::Bias(Linear::Q) => {
            Rows::Interleaved { heads: attention.heads }
        }
        Role::Linear(Linear::K) | Role::Bias(Linear::K) => {
            Rows::Interleaved { heads: attention.kv_heads }
        }
        _ => Rows::All,
    }
}

/// The delta rule of a tensor's layer and the order of value heads in a file, if that is another
/// one than the model's.
fn reordered<'a>(
    family: &dyn Family,
    architecture: &'a Architecture,
    tensor: &TensorSpec,
    form: Form,
) -> Option<(&'a DeltaRule, HeadOrder)> {
    let Mixer::DeltaRule(delta) = &architecture.layers[tensor.layer?].mixer else { return None };
    let held = family.head_order(form);
    let moves = delta.order != held && delta.key_heads != delta.value_heads;
    moves.then_some((delta, held))
}

/// Rows of a tensor of a delta rule, those of value heads in another order.
pub(crate) fn value_rows(delta: &DeltaRule, held: HeadOrder, role: Role) -> Rows {
    let (before, width) = match role {
        Role::Linear(Linear::DeltaQkv) | Role::Parameter(Parameter::DeltaKernel) => {
            (2 * delta.key_width(), delta.value_dim)
        }
        Role::Linear(Linear::DeltaGate) => (0, delta.value_dim),
        Role::Parameter(
            Parameter::DeltaWrite
            | Parameter::DeltaDecay
            | Parameter::DeltaDecayBias
            | Parameter::DeltaRate,
        ) => (0, 1),
        _ => return Rows::All,
    };
    let moved = (0..delta.value_heads * width)
        .map(|row| before + delta.head_in(row / width, held) * width + row % width);
    Rows::At((0..before).chain(moved).collect())
}

fn columns_of(
    family: &dyn Family,
    architecture: &Architecture,
    tensor: &TensorSpec,
    form: Form,
) -> Columns {
    reordered(family, architecture, tensor, form)
        .map_or(Columns::Same, |(delta, held)| value_columns(delta, held, tensor.role))
}

/// Columns of a tensor of a delta rule, those of value heads in another order.
pub(crate) fn value_columns(delta: &DeltaRule, held: HeadOrder, role: Role) -> Columns {
    match role {
        Role::Linear(Linear::DeltaOut) => Columns::Heads {
            width: delta.value_dim,
            at: (0..delta.value_heads).map(|head| delta.head_in(head, held)).collect(),
        },
        _ => Columns::Same,
    }
}

/// The shape that a file gives a tensor: folders have kernels of one channel each.
fn shape_in(tensor: &TensorSpec, form: Form) -> Vec<usize> {
    let mut shape = tensor.shape.clone();
    let kernel = matches!(
        tensor.role,
        Role::Parameter(Parameter::DeltaKernel | Parameter::ConvolutionKernel)
    );
    if kernel && form == Form::HuggingFace {
        shape.insert(1, 1);
    }
    shape
}

/// What a file calls the tensor that holds a tensor of the model.
fn name_in(family: &dyn Family, tensor: &TensorSpec, form: Form) -> String {
    if let (Role::Linear(linear) | Role::Bias(linear), Some(layer)) = (tensor.role, tensor.layer)
        && let Some((_, name)) = family.fused(form).iter().find(|(all, _)| all.contains(&linear))
    {
        let part = if matches!(tensor.role, Role::Bias(_)) { "bias" } else { "weight" };
        return match form {
            Form::HuggingFace => format!("model.layers.{layer}.{name}.{part}"),
            Form::Gguf => format!("blk.{layer}.{name}.{part}"),
        };
    }
    match form {
        Form::HuggingFace => hugging_face_name(family, tensor),
        Form::Gguf => gguf_name(family, tensor),
    }
}

fn hugging_face_name(family: &dyn Family, tensor: &TensorSpec) -> String {
    let prefix =
        tensor.layer.map_or("model.".to_string(), |layer| format!("model.layers.{layer}."));
    let Some(rest) = tensor.name.strip_prefix(&prefix) else { return tensor.name.clone() };
    let renamed = family.hugging_face_parts().iter().find_map(|(ours, theirs)| {
        let end = rest.strip_prefix(ours)?;
        (end.is_empty() || end.starts_with('.')).then(|| format!("{prefix}{theirs}{end}"))
    });
    renamed.unwrap_or_else(|| tensor.name.clone())
}

pub(crate) const EMBEDDING_GGUF: &str = "token_embd.weight";
pub(crate) const HEAD_GGUF: &str = "output.weight";

/// Name of a tensor in a GGUF file.
fn gguf_name(family: &dyn Family, tensor: &TensorSpec) -> String {
    let own = |ours: &str, name: &'static str| {
        let own = family.gguf_parts().iter().find(|(inside, _)| *inside == ours);
        own.map_or(name, |(_, theirs)| theirs)
    };
    let in_layer = |ours: &str, name: &'static str, part: &str| {
        let (name, dot) = (own(ours, name), if part.is_empty() { "" } else { "." });
        format!("blk.{}.{name}{dot}{part}", tensor.layer.unwrap_or_default())
    };
    match tensor.role {
        Role::Embedding => EMBEDDING_GGUF.into(),
        Role::FinalNorm => format!("{}.weight", own("norm", "output_norm")),
        Role::FinalNormBias => "output_norm.bias".into(),
        Role::Head => HEAD_GGUF.into(),
        Role::Norm(norm) => in_layer(norm.name(), norm_gguf(norm), "weight"),
        Role::NormBias(norm) => in_layer(norm.name(), norm_gguf(norm), "bias"),
        Role::Linear(linear) => in_layer(&linear.name(), linear_gguf(linear), "weight"),
        Role::Bias(linear) => in_layer(&linear.name(), linear_gguf(linear), "bias"),
        Role::Parameter(parameter) => {
            let (name, part) = parameter_gguf(parameter);
            in_layer(parameter.name().trim_end_matches(".weight"), name, part)
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
        Norm::Delta => "ssm_norm",
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
        Linear::DeltaQkv => "attn_qkv",
        Linear::DeltaGate => "attn_gate",
        Linear::DeltaOut => "ssm_out",
        Linear::ConvolutionIn => "shortconv.in_proj",
        Linear::ConvolutionOut => "shortconv.out_proj",
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
        Parameter::DeltaKernel => ("ssm_conv1d", "weight"),
        Parameter::DeltaWrite => ("ssm_beta", "weight"),
        Parameter::DeltaDecay => ("ssm_alpha", "weight"),
        Parameter::DeltaDecayBias => ("ssm_dt", "bias"),
        Parameter::DeltaRate => ("ssm_a", ""),
        Parameter::ConvolutionKernel => ("shortconv.conv", "weight"),
        Parameter::Router => ("ffn_gate_inp", "weight"),
        Parameter::RouterBias => ("ffn_gate_inp", "bias"),
        Parameter::ChoiceBias => ("exp_probs_b", "bias"),
        Parameter::SharedGate => ("ffn_gate_inp_shexp", "weight"),
        Parameter::OutputScale => ("layer_output_scale", "weight"),
    }
}
