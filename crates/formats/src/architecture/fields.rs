//! The fields of a family's files, each declared once: the same line of a family reads its value
//! from config.json or from GGUF metadata into the graph, and writes it back.

use super::graph::{Activation, Architecture, Experts, FeedForward, Layer};
use super::mixer::{Attention, Decay};
use super::rope::Rope;
use crate::error::{Error, Result};

/// What a value is called in files.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Keys of config.json, of which the first is written; none: configs do not have it.
    pub config: &'static [&'static str],
    /// Key of GGUF metadata below the name of the architecture; None: GGUF has no place for it.
    pub gguf: Option<&'static str>,
}

/// The two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// config.json beside safetensors.
    HuggingFace,
    /// GGUF.
    Gguf,
}

impl Form {
    /// What its files hold of the rates of delta rules.
    pub const fn decay(self) -> Decay {
        match self {
            Form::HuggingFace => Decay::Logarithm,
            Form::Gguf => Decay::Negative,
        }
    }
}

/// A file that is read or written field by field. Reading leaves a value as it is where the file
/// has none, and makes it None where a config says null; writing leaves all values as they are.
pub trait Fields {
    /// Which kind of file it is.
    fn form(&self) -> Form;

    /// Whether values come from the file.
    fn reads(&self) -> bool;

    /// A whole number above 0.
    ///
    /// Errors: `Format`, it is none; when writing, `Unsupported` for a value without a place. The
    /// same holds for the other kinds of values.
    fn size(&mut self, key: &Key, value: &mut Option<usize>) -> Result<()>;

    /// A finite number.
    fn number(&mut self, key: &Key, value: &mut Option<f64>) -> Result<()>;

    /// True or false.
    fn flag(&mut self, key: &Key, value: &mut Option<bool>) -> Result<()>;

    /// True or false for each layer.
    fn flags(&mut self, key: &Key, value: &mut Option<Vec<bool>>) -> Result<()>;

    /// A list of whole numbers, 0 among them.
    fn numbers(&mut self, key: &Key, value: &mut Option<Vec<usize>>) -> Result<()>;

    /// Which layers have another mixer than attention, if the file names the kind of each layer.
    /// `kind`: what configs call the other one.
    fn other_mixers(&mut self, kind: &'static str, value: &mut Option<Vec<bool>>) -> Result<()>;

    /// The key/value heads of each layer in GGUF metadata, 0 where it has no attention.
    fn kv_heads(&mut self, value: &mut Option<Vec<usize>>) -> Result<()>;

    /// Which layers have a sliding window, if the file names the kind of each layer. `stored`:
    /// whether GGUF metadata must name them, since its readers would not know.
    fn sliding_layers(&mut self, value: &mut Vec<bool>, stored: bool) -> Result<()>;

    /// The rotation of the layers with a sliding window, where it is another one.
    fn sliding_rope(&mut self, value: &mut Option<Rope>) -> Result<()>;

    /// The widths of heads of layers with and without a sliding window, where they differ.
    fn head_dims(&mut self, sliding: &[bool], value: &mut [usize; 2]) -> Result<()>;

    /// Whether a GGUF file has a tensor; None where tensors are not known yet.
    fn has_tensor(&self, name: &str) -> Option<bool>;

    /// A refusal of a key's value.
    fn refuse(&self, key: &Key, reason: String) -> Error;
}

const fn key(config: &'static [&'static str], gguf: &'static str) -> Key {
    Key { config, gguf: Some(gguf) }
}

const fn config_only(config: &'static [&'static str]) -> Key {
    Key { config, gguf: None }
}

/// Number of positions that sliding layers see.
pub const SLIDING_WINDOW: Key = key(&["sliding_window"], "attention.sliding_window");
/// What the rows of the embedding are multiplied by.
pub const EMBED_SCALE: Key = key(&["embedding_multiplier"], "embedding_scale");
/// What branches are multiplied by before they are added.
pub const RESIDUAL_SCALE: Key = key(&["residual_multiplier"], "residual_scale");
/// What scores are multiplied by.
pub const ATTENTION_SCALE: Key = key(&["attention_multiplier"], "attention.scale");
/// What scores are multiplied by, to the power of -1/2.
pub const QUERY_SCALAR: Key = config_only(&["query_pre_attn_scalar"]);
/// Cap of scores.
pub const ATTENTION_SOFTCAP: Key = key(&["attn_logit_softcapping"], "attn_logit_softcapping");
/// Cap of logits.
pub const FINAL_SOFTCAP: Key = key(&["final_logit_softcapping"], "final_logit_softcapping");
/// What logits are multiplied by.
pub const LOGIT_SCALE: Key = key(&["logit_scale"], "logit_scale");
/// What logits are divided by.
pub const LOGIT_DIVISOR: Key = key(&["logits_scaling"], "logit_scale");
/// Whether attention and feed-forward read the same rows.
pub const PARALLEL: Key = key(&["use_parallel_residual"], "use_parallel_residual");
/// Which layers turn queries and keys.
pub const ROPE_LAYERS: Key = config_only(&["no_rope_layers"]);
/// Every so many-th layer does not, where there is no list.
pub const NO_ROPE_INTERVAL: Key = config_only(&["no_rope_layer_interval"]);
/// Number of experts.
pub const EXPERTS: Key = key(&["num_experts", "num_local_experts"], "expert_count");
/// How many of them a token uses.
pub const EXPERTS_USED: Key = key(&["num_experts_per_tok"], "expert_used_count");
/// Intermediate size of each.
pub const EXPERT_SIZE: Key = key(&["moe_intermediate_size"], "expert_feed_forward_length");
/// Whether their weights are divided by their sum.
pub const NORMALISE_EXPERTS: Key = config_only(&["norm_topk_prob"]);
/// Intermediate size of the expert that all tokens use.
pub const SHARED_EXPERT_SIZE: Key =
    key(&["shared_expert_intermediate_size"], "expert_shared_feed_forward_length");
/// Largest value inside an expert of GPT-OSS.
pub const SWIGLU_LIMIT: Key = config_only(&["swiglu_limit"]);
/// Slope of its sigmoid.
pub const SWIGLU_ALPHA: Key = config_only(&["swiglu_alpha"]);
/// Width of the per-layer input.
pub const PER_LAYER_INPUT: Key =
    key(&["hidden_size_per_layer_input"], "embedding_length_per_layer_input");
/// Number of the last layers that read the keys and values of an earlier one.
pub const SHARED_KV_LAYERS: Key = key(&["num_kv_shared_layers"], "attention.shared_kv_layers");
/// Growth of queries with their position.
pub const TEMPER: Key =
    key(&["rope_parameters.llama_4_scaling_beta"], "attention.temperature_scale");

/// A size that the graph needs: from the file, or as it is.
pub fn size(io: &mut dyn Fields, key: &Key, value: &mut usize) -> Result<()> {
    let mut found = Some(*value).filter(|&value| value > 0);
    io.size(key, &mut found)?;
    *value = found.ok_or_else(|| io.refuse(key, "it is missing".into()))?;
    Ok(())
}

/// A number that the graph needs: from the file, or as it is.
pub fn number(io: &mut dyn Fields, key: &Key, value: &mut f64) -> Result<()> {
    let mut found = Some(*value);
    io.number(key, &mut found)?;
    *value = found.unwrap_or(*value);
    Ok(())
}

/// A flag: from the file, or as it is.
pub fn flag(io: &mut dyn Fields, key: &Key, value: &mut bool) -> Result<()> {
    let mut found = Some(*value);
    io.flag(key, &mut found)?;
    *value = found.unwrap_or(*value);
    Ok(())
}

/// A number of every attention, the same in all layers.
pub fn of_attention(
    io: &mut dyn Fields,
    key: &Key,
    graph: &mut Architecture,
    field: impl Fn(&mut Attention) -> &mut Option<f64>,
) -> Result<()> {
    let mut value = graph.attentions_mut().next().and_then(|a| *field(a));
    io.number(key, &mut value)?;
    graph.attentions_mut().for_each(|a| *field(a) = value);
    Ok(())
}

/// Changes the attention of every layer that has one.
pub fn each_attention(graph: &mut Architecture, change: impl FnMut(&mut Attention)) {
    graph.attentions_mut().for_each(change);
}

/// Changes every layer.
pub fn each(graph: &mut Architecture, change: impl FnMut(&mut Layer)) {
    graph.layers.iter_mut().for_each(change);
}

/// Changes the feed-forward of every layer that has one for all tokens.
pub fn activation(graph: &mut Architecture, activation: Activation) {
    each(graph, |layer| match &mut layer.feed_forward {
        FeedForward::Dense(dense) => dense.activation = activation,
        FeedForward::Experts(experts) => experts.expert.activation = activation,
    });
}

/// Which layers slide where a file does not say so.
#[derive(Clone, Copy, Debug)]
pub enum Sliding {
    /// All.
    All,
    /// All but every n-th.
    ButEvery(usize),
    /// All but every n-th; readers of GGUF files know it from a key as well.
    ButEveryStored(usize),
}

/// The windows of sliding layers; returns which layers slide.
pub fn windows(
    io: &mut dyn Fields,
    graph: &mut Architecture,
    implied: Sliding,
) -> Result<Vec<bool>> {
    let mut window = graph.attentions().find_map(|a| a.window);
    io.size(&SLIDING_WINDOW, &mut window)?;
    let slides = |layer: usize| match implied {
        Sliding::All => true,
        Sliding::ButEvery(n) | Sliding::ButEveryStored(n) => !(layer + 1).is_multiple_of(n),
    };
    let usual: Vec<bool> = (0..graph.layers.len()).map(slides).collect();
    let mut sliding = usual.clone();
    if !io.reads() {
        sliding = graph.attentions().map(|a| a.window.is_some()).collect();
    }
    match implied {
        Sliding::All if !io.reads() && window.is_some() && sliding != usual => {
            let reason = "only some layers have a window, and files have one for all".into();
            return Err(io.refuse(&SLIDING_WINDOW, reason));
        }
        Sliding::All => {}
        Sliding::ButEvery(_) => {
            let stored = sliding != usual;
            io.sliding_layers(&mut sliding, stored)?;
        }
        Sliding::ButEveryStored(_) => io.sliding_layers(&mut sliding, true)?,
    }
    for (a, &slides) in graph.attentions_mut().zip(&sliding) {
        a.window = window.filter(|_| slides);
    }
    Ok(sliding)
}

/// The refusal of what the readers of a family's GGUF files do not take.
pub fn beyond_gguf(io: &dyn Fields, key: &Key, reason: String) -> Error {
    io.refuse(key, format!("{reason}; the halfstep format and Hugging Face folders hold it"))
}

/// Refuses a GGUF file without a window where readers of the family need one.
pub fn needs_window(io: &dyn Fields, graph: &Architecture) -> Result<()> {
    let none = graph.attentions().all(|a| a.window.is_none());
    match none && !io.reads() && io.form() == Form::Gguf {
        true => Err(beyond_gguf(io, &SLIDING_WINDOW, "readers of GGUF files need one".into())),
        false => Ok(()),
    }
}

/// For GGUF files in which readers do not heed a window: one that is read is none, and one is not
/// written. `idle` is the length from which on a window changes nothing, which both leave.
pub fn unheeded_window(
    io: &dyn Fields,
    graph: &mut Architecture,
    which: &str,
    idle: usize,
) -> Result<()> {
    let short = |window: usize| window < idle;
    let found = graph.attentions().find_map(|a| a.window.filter(|&w| short(w)));
    match (found, io.reads()) {
        (None, _) => Ok(()),
        (Some(_), true) => {
            each_attention(graph, |a| a.window = None);
            Ok(())
        }
        (Some(window), false) => {
            let reason = format!("it is {window}, and readers of GGUF files {which} have none");
            Err(beyond_gguf(io, &SLIDING_WINDOW, reason))
        }
    }
}

/// Gives sliding layers the rotation that a file has for them, else `usual`.
pub fn sliding_rope(
    io: &mut dyn Fields,
    graph: &mut Architecture,
    sliding: &[bool],
    usual: impl Fn(&Rope) -> Rope,
) -> Result<()> {
    let mut rope = if io.reads() {
        graph.attentions().next().and_then(|a| a.rope.as_ref()).map(usual)
    } else {
        let of = graph.attentions().zip(sliding).find(|(_, slides)| **slides);
        of.and_then(|(a, _)| a.rope.clone())
    };
    io.sliding_rope(&mut rope)?;
    for (a, _) in graph.attentions_mut().zip(sliding).filter(|(_, slides)| **slides) {
        a.rope = rope.clone();
    }
    Ok(())
}

/// The scale of scores by `query_pre_attn_scalar`. GGUF has no place for it; its readers take the
/// width of a head, or in the largest model of a family, which they know by its number of layers,
/// the hidden size over the heads. No other value is written.
pub fn query_scalar(io: &mut dyn Fields, graph: &mut Architecture, largest: usize) -> Result<()> {
    let Some(first) = graph.attentions().next() else { return Ok(()) };
    let width = first.head_dim as f64;
    let implied = match graph.layers.len() == largest {
        true => (graph.hidden_size / first.heads) as f64,
        false => width,
    };
    let mut scalar = match first.scale {
        Some(scale) if !io.reads() => (1.0 / (scale * scale)).round(),
        None if !io.reads() => width,
        _ if io.form() == Form::Gguf => implied,
        _ => width,
    };
    if io.form() == Form::HuggingFace {
        number(io, &QUERY_SCALAR, &mut scalar)?;
    } else if scalar != implied {
        let reason = format!("it is {scalar}, and readers of GGUF files take {implied}");
        return Err(beyond_gguf(io, &QUERY_SCALAR, reason));
    }
    if scalar.is_nan() || scalar <= 0.0 {
        return Err(io.refuse(&QUERY_SCALAR, format!("it is {scalar}, which is not above 0")));
    }
    let scale = (scalar != width).then(|| 1.0 / scalar.sqrt());
    each_attention(graph, |a| a.scale = scale);
    Ok(())
}

/// Takes the rotation from layers that have none: every n-th, or as a list says.
pub fn rope_layers(io: &mut dyn Fields, graph: &mut Architecture, every: usize) -> Result<()> {
    let all_but = |every: usize| -> Vec<bool> {
        (0..graph.layers.len()).map(|layer| !(layer + 1).is_multiple_of(every)).collect()
    };
    let (usual, mut interval) = (all_but(every), Some(every));
    if io.reads() {
        io.size(&NO_ROPE_INTERVAL, &mut interval)?;
    }
    let mut turning = interval.map(all_but);
    if !io.reads() {
        turning = Some(graph.attentions().map(|a| a.rope.is_some()).collect());
    }
    io.flags(&ROPE_LAYERS, &mut turning)?;
    let turning = turning.unwrap_or(usual.clone());
    if io.form() == Form::Gguf && turning != usual {
        let reason =
            format!("readers of GGUF files leave out the rotation of every {every}th layer");
        return Err(beyond_gguf(io, &ROPE_LAYERS, reason));
    }
    for (a, turns) in graph.attentions_mut().zip(turning) {
        a.rope = a.rope.take().filter(|_| turns);
    }
    Ok(())
}

/// Most experts that all layers may have together. The largest published models have fewer.
pub const MAX_EXPERTS: usize = 1 << 15;

/// The same experts in every layer; their number, size and how many are used come from the file.
pub fn experts(
    io: &mut dyn Fields,
    graph: &mut Architecture,
    usual: &Experts,
    [count_key, size_key]: [&Key; 2],
) -> Result<()> {
    let mut experts = match graph.layers.first().map(|layer| &layer.feed_forward) {
        Some(FeedForward::Experts(experts)) if !io.reads() => experts.clone(),
        _ => usual.clone(),
    };
    size(io, count_key, &mut experts.count)?;
    size(io, &EXPERTS_USED, &mut experts.used)?;
    if experts.used > experts.count {
        let reason = format!("it is {} of {} experts", experts.used, experts.count);
        return Err(io.refuse(&EXPERTS_USED, reason));
    }
    if experts.count.saturating_mul(graph.layers.len()) > MAX_EXPERTS {
        let reason = format!(
            "it is {} in each of {} layers, more than {MAX_EXPERTS} in all",
            experts.count,
            graph.layers.len()
        );
        return Err(io.refuse(count_key, reason));
    }
    let mut intermediate_size = experts.expert.intermediate_size;
    size(io, size_key, &mut intermediate_size)?;
    experts.expert.intermediate_size = intermediate_size;
    each(graph, |layer| layer.feed_forward = FeedForward::Experts(experts.clone()));
    Ok(())
}

/// A file without any of the fields, of a family that has a window without them, or none.
pub(super) struct EmptyFile {
    /// The family's window.
    pub window: Option<usize>,
    /// Number of layers.
    pub layers: usize,
}

impl Fields for EmptyFile {
    fn form(&self) -> Form {
        Form::HuggingFace
    }

    fn reads(&self) -> bool {
        true
    }

    fn size(&mut self, key: &Key, value: &mut Option<usize>) -> Result<()> {
        if key.config == SLIDING_WINDOW.config {
            *value = self.window;
        }
        Ok(())
    }

    fn number(&mut self, _: &Key, _: &mut Option<f64>) -> Result<()> {
        Ok(())
    }

    fn flag(&mut self, _: &Key, _: &mut Option<bool>) -> Result<()> {
        Ok(())
    }

    fn flags(&mut self, _: &Key, _: &mut Option<Vec<bool>>) -> Result<()> {
        Ok(())
    }

    fn numbers(&mut self, _: &Key, _: &mut Option<Vec<usize>>) -> Result<()> {
        Ok(())
    }

    fn other_mixers(&mut self, _: &'static str, value: &mut Option<Vec<bool>>) -> Result<()> {
        // However few they are, one has attention.
        let of = |layer: usize| !layer.is_multiple_of(4) && (layer != self.layers || layer > 4);
        *value = Some((1..=self.layers).map(of).collect());
        Ok(())
    }

    fn kv_heads(&mut self, _: &mut Option<Vec<usize>>) -> Result<()> {
        Ok(())
    }

    fn sliding_layers(&mut self, _: &mut Vec<bool>, _: bool) -> Result<()> {
        Ok(())
    }

    fn sliding_rope(&mut self, _: &mut Option<Rope>) -> Result<()> {
        Ok(())
    }

    fn head_dims(&mut self, _: &[bool], _: &mut [usize; 2]) -> Result<()> {
        Ok(())
    }

    fn has_tensor(&self, _: &str) -> Option<bool> {
        None
    }

    fn refuse(&self, key: &Key, reason: String) -> Error {
        let name = key.config.first().copied().or(key.gguf).unwrap_or_default();
        Error::Unsupported { file: String::new(), name: name.into(), reason, offset: None }
    }
}
