//! config.json of Hugging Face: to and from [`crate::Architecture`].
//!
//! A key that does not change the maths may be anything. One that does, with a value this library
//! does not compute, is refused by its name: a model that runs but answers differently is worse
//! than an error.

mod fields;
mod rope;
mod write;

use crate::architecture::family::{self, Family};
use crate::architecture::refused;
use crate::architecture::{Activation, Architecture, Decay, HeadOrder, Rope, Sizes};
use crate::error::{Error, Result};
use crate::json;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

pub(crate) use write::has_spelling;
pub use write::to_json;

/// Most bytes that a config.json may have.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;
/// Most layers that a model may have.
pub const MAX_LAYERS: usize = 1024;
/// Largest hidden size, and largest number of heads times their elements.
pub const MAX_HIDDEN: usize = 1 << 18;
/// Most outputs that gate and up may have.
pub const MAX_INTERMEDIATE: usize = 1 << 20;
/// Most rows that the embedding may have.
pub const MAX_VOCABULARY: usize = 1 << 24;
/// Longest context in tokens that a model may have.
pub const MAX_POSITIONS: usize = 1 << 31;

/// Keys that must be absent, null or false unless the family reads or has settled them: each
/// switches on something that no graph here has, or only that of another family.
const MUST_BE_OFF: &[&str] = &[
    "attention_bias",
    "attention_out_bias",
    "mlp_bias",
    "use_bias",
    "bias",
    "qkv_bias",
    "use_qkv_bias",
    "lm_head_bias",
    "add_bias_linear",
    "use_qk_norm",
    "qk_norm",
    "qk_layernorm",
    "alibi",
    "use_alibi",
    "use_parallel_residual",
    "parallel_attn",
    "rope_interleaved",
    "rope_interleave",
    "is_encoder_decoder",
    "add_cross_attention",
    "use_bidirectional_attention",
    "attn_temperature_tuning",
    "scale_emb",
    "scale_depth",
    "dim_model_base",
    "clip_qkv",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_softcap",
    "logits_soft_cap",
    "attention_chunk_size",
    "no_rope_layers",
    "no_rope_layer_interval",
    "query_pre_attn_scalar",
    "quantization_config",
    "compression_config",
    "vision_config",
    "auto_map",
    "num_nextn_predict_layers",
    "pruned_heads",
    "kv_lora_rank",
    "q_lora_rank",
    "sliding_window_pattern",
    "num_kv_shared_layers",
    "hidden_size_per_layer_input",
    "global_head_dim",
    "per_layer_config",
    "attention_k_eq_v",
    "enable_moe_block",
    "use_double_wide_mlp",
    "mlp_only_layers",
    "swiglu_limit",
    "cla_share_factor",
];

/// Factors that must be absent, null or 1.
const MUST_BE_ONE: &[&str] = &[
    "logit_scale",
    "logits_scaling",
    "logits_scale",
    "residual_multiplier",
    "embedding_multiplier",
    "lm_head_multiplier",
    "decoder_sparse_step",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
];

/// Reads a config.json. Errors: `Format` (broken, missing or impossible value), `Unsupported`
/// (named key or architecture), `Memory` (a cap).
pub fn parse(file: &str, bytes: &[u8]) -> Result<Architecture> {
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(Error::Memory {
            file: file.into(),
            what: "config.json".into(),
            bytes: bytes.len() as u64,
            cap: MAX_CONFIG_BYTES as u64,
        });
    }
    let Value::Object(mut keys) = json::parse(file, bytes)? else {
        return Err(Error::Format {
            file: file.into(),
            offset: 0,
            reason: "a config must be a JSON object".into(),
        });
    };
    if let Some(Value::Object(text)) = keys.get("text_config") {
        keys = text_part(text, &keys);
    }
    let family = Config { file, bytes, keys: &keys, family: family::all()[0] }.named_family()?;
    if !keys.contains_key("rope_parameters") && !keys.contains_key("rope_scaling") {
        keys.insert("rope_parameters".into(), family.rope_parameters());
    }
    let config = Config { file, bytes, keys: &keys, family };
    let sizes = config.sizes()?;
    let mut graph = sizes.decoder(config.family.name());
    let (full, sliding) = config.ropes(sizes.head_dim)?;
    graph.attentions_mut().for_each(|a| a.rope = Some(full.clone()));
    if let Some(offset) = config.number(NORM_OFFSET)? {
        graph.norm.offset = offset;
    }
    let mut reader = fields::Reader { config: &config, sliding, claimed: BTreeSet::new() };
    config.family.describe(&mut reader, &mut graph)?;
    reader.finish(&config, &mut graph)?;
    config.delta_forms(&mut graph)?;
    Ok(graph)
}

/// A rotation as text: the object of a config.json, with its base and what turns.
pub(crate) fn rope_to_json(rope: &Rope, head_dim: usize) -> String {
    let mut fields = rope::written(rope).unwrap_or_default();
    fields.insert("rope_theta".into(), rope.theta.into());
    if rope.turned != head_dim {
        let share = rope.turned as f64 / head_dim as f64;
        fields.entry("partial_rotary_factor").or_insert(share.into());
    }
    Value::Object(fields).to_string()
}

/// The rotation of [`rope_to_json`].
///
/// Errors: as those of the rotation of a config.json.
pub(crate) fn rope_from_json(file: &str, text: &str, head_dim: usize) -> Result<Rope> {
    let bytes = text.as_bytes();
    let fields = json::parse(file, bytes)?;
    let keys = Map::from_iter([
        ("rope_parameters".to_string(), fields),
        ("max_position_embeddings".to_string(), MAX_POSITIONS.into()),
    ]);
    let config = Config { file, bytes, keys: &keys, family: family::all()[0] };
    Ok(config.ropes(head_dim)?.0)
}

/// The text part of a config that wraps several models: it alone is read.
fn text_part(text: &Map<String, Value>, whole: &Map<String, Value>) -> Map<String, Value> {
    let mut keys = text.clone();
    let named = ["architectures", "model_type"].iter().any(|key| keys.contains_key(*key));
    let names: &[&str] = if named { &[] } else { &["architectures", "model_type"] };
    let common = ["tie_word_embeddings", "eos_token_id", "bos_token_id", "pad_token_id"];
    for &key in common.iter().chain(names) {
        if let (false, Some(value)) = (keys.contains_key(key), whole.get(key)) {
            keys.insert(key.into(), value.clone());
        }
    }
    keys
}

/// Our own key: what is added to the weights of norms, where it is not what the family adds.
const NORM_OFFSET: &str = "halfstep_norm_offset";
/// Our own key: how the value heads of delta rules follow one another, where it is not as in the
/// family's folders.
const HEAD_ORDER: &str = "halfstep_head_order";
/// Our own key: what the tensors of rates of delta rules hold, where it is no logarithm.
const DECAY: &str = "halfstep_decay";

struct Config<'a> {
    file: &'a str,
    bytes: &'a [u8],
    keys: &'a Map<String, Value>,
    family: &'static dyn Family,
}

impl Config<'_> {
    fn wrong(&self, key: &str, reason: impl std::fmt::Display) -> Error {
        Error::Format {
            file: self.file.into(),
            offset: json::key_offset(self.bytes, key),
            reason: format!("{key}: {reason}"),
        }
    }

    fn unsupported(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::Unsupported {
            file: self.file.into(),
            name: key.into(),
            reason: reason.into(),
            offset: None,
        }
    }

    /// The forms of tensors of delta rules, where our own keys name them.
    fn delta_forms(&self, graph: &mut Architecture) -> Result<()> {
        let unknown = |key: &str, value: &Value| {
            self.unsupported(key, format!("{} is not known", brief(value)))
        };
        if let Some(value) = self.get(HEAD_ORDER) {
            let all = [HeadOrder::Grouped, HeadOrder::Tiled];
            let order = all.into_iter().find(|order| value == order.name());
            let order = order.ok_or_else(|| unknown(HEAD_ORDER, value))?;
            graph.delta_rules_mut().for_each(|delta| delta.order = order);
        }
        if let Some(value) = self.get(DECAY) {
            let all = [Decay::Logarithm, Decay::Negative];
            let decay = all.into_iter().find(|decay| value == decay.name());
            let decay = decay.ok_or_else(|| unknown(DECAY, value))?;
            graph.delta_rules_mut().for_each(|delta| delta.decay = decay);
        }
        Ok(())
    }

    /// The key's value; null counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|v| !v.is_null())
    }

    /// What the family takes an absent key for.
    fn default(&self, key: &str) -> Option<f64> {
        let lists = [self.family.defaults(), family::DEFAULTS];
        let find = |list: &[(&str, f64)]| list.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        lists.into_iter().find_map(find)
    }

    fn size(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(self.default(key).map(|default| default as usize));
        };
        self.size_of(key, value, max).map(Some)
    }

    fn size_of(&self, key: &str, value: &Value, max: usize) -> Result<usize> {
        let size = value.as_u64().filter(|&v| v > 0).ok_or_else(|| {
            self.wrong(key, format!("{} is not a positive integer", brief(value)))
        })?;
        if size > max as u64 {
            return Err(self.wrong(key, format!("{size} is more than {max}")));
        }
        Ok(size as usize)
    }

    fn required_size(&self, key: &str, max: usize) -> Result<usize> {
        self.size(key, max)?.ok_or_else(|| self.wrong(key, "missing"))
    }

    /// A finite number above 0.
    fn positive(&self, key: &str, within: &Map<String, Value>) -> Result<Option<f64>> {
        let Some(value) = within.get(key).filter(|v| !v.is_null()) else { return Ok(None) };
        let number = value.as_f64().filter(|v| v.is_finite() && *v > 0.0);
        number
            .map(Some)
            .ok_or_else(|| self.wrong(key, format!("{} is not a positive number", brief(value))))
    }

    /// A finite number.
    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|v| v.is_finite());
        let wrong = || self.wrong(key, format!("{} is not a finite number", brief(value)));
        number.map(Some).ok_or_else(wrong)
    }

    /// The family that `architectures` and `model_type` name.
    fn named_family(&self) -> Result<&'static dyn Family> {
        let model_type = self
            .get("model_type")
            .map(|v| v.as_str().ok_or_else(|| self.wrong("model_type", "not a string")))
            .transpose()?;
        let architectures = match self.get("architectures") {
            None => vec![],
            Some(Value::Array(list)) => list
                .iter()
                .map(|v| v.as_str())
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| self.wrong("architectures", "not strings"))?,
            Some(_) => return Err(self.wrong("architectures", "not a list")),
        };
        let unknown = |name: &str| {
            let listed = || format!("the architectures read here are {}", family::listed());
            self.unsupported(name, refused::in_config(name).map_or_else(listed, str::to_string))
        };
        let mut named = vec![];
        for name in architectures {
            named.push(family::find(|f| f.class() == name).ok_or_else(|| unknown(name))?);
        }
        if let Some(name) = model_type {
            let is =
                |f: &dyn Family| f.model_type() == name || f.text_model_types().contains(&name);
            named.push(family::find(is).ok_or_else(|| unknown(name))?);
        }
        let Some(family) = named.last().copied() else {
            return Err(self.wrong("model_type", "missing, and no architectures either"));
        };
        match named.iter().find(|other| other.name() != family.name()) {
            Some(other) => Err(self.wrong(
                "architectures",
                format!("{} together with {}", other.class(), family.model_type()),
            )),
            None => Ok(family),
        }
    }

    /// Refuses what would change the maths and was not `claimed`.
    fn check_maths(&self, claimed: &BTreeSet<&str>) -> Result<()> {
        let (names, computed) = activation_names(self.family.activation());
        for key in ["hidden_act", "hidden_activation", "activation_function"] {
            match self.get(key) {
                None => {}
                Some(Value::String(act)) if names.contains(&act.as_str()) => {}
                Some(other) => {
                    let reason = format!("{}, where {computed} is computed", brief(other));
                    return Err(self.unsupported(key, reason));
                }
            }
        }
        let (family, open) = (self.family, |key: &&&str| !claimed.contains(**key));
        let unsettled = |key: &&&str| open(key) && !family.settled_keys().contains(*key);
        for key in MUST_BE_OFF.iter().filter(unsettled) {
            match self.get(key) {
                None | Some(Value::Bool(false)) => {}
                Some(Value::Object(o)) if o.is_empty() => {}
                Some(Value::Array(a)) if a.is_empty() => {}
                Some(Value::Number(n)) if n.as_f64() == Some(0.0) => {}
                // Its tensors are read as what they are.
                Some(Value::Object(o))
                    if *key == "quantization_config"
                        && family
                            .quantization_method()
                            .is_some_and(|m| o.get("quant_method").is_some_and(|v| v == m)) => {}
                Some(other) => {
                    return Err(
                        self.unsupported(key, format!("{} changes the computation", brief(other)))
                    );
                }
            }
        }
        for key in MUST_BE_ONE.iter().filter(open) {
            match self.get(key) {
                None => {}
                Some(v) if v.as_f64() == Some(1.0) => {}
                Some(other) => {
                    return Err(self.unsupported(
                        key,
                        format!("{} changes the computation, 1 does not", brief(other)),
                    ));
                }
            }
        }
        if self.get("is_causal").or(self.get("causal")).is_some_and(|v| v != &Value::Bool(true)) {
            return Err(self.unsupported("is_causal", "attention here is causal"));
        }
        if let Some(types) = self.get("layer_types")
            && !claimed.contains("layer_types")
            && !types.as_array().is_some_and(|t| t.iter().all(|t| t == "full_attention"))
        {
            return Err(self.unsupported(
                "layer_types",
                format!("{}: every layer is full_attention here", brief(types)),
            ));
        }
        if let (false, Some(other)) =
            (claimed.contains("attention_multiplier"), self.get("attention_multiplier"))
        {
            // It replaces 1 / sqrt(head_dim).
            return Err(self.unsupported(
                "attention_multiplier",
                format!("{}: attention here is scaled by 1 / sqrt(head_dim)", brief(other)),
            ));
        }
        if claimed.contains("sliding_window") { Ok(()) } else { self.check_window() }
    }

    /// Whether a window of a config applies.
    fn uses_window(&self) -> bool {
        let used = match self.keys.get("use_sliding_window") {
            None => self.default("use_sliding_window") != Some(0.0),
            Some(used) => used != &Value::Bool(false),
        };
        used && self.get("sliding_window") != Some(&Value::Bool(false))
    }

    /// A window no shorter than the positions, or switched off, changes nothing.
    fn check_window(&self) -> Result<()> {
        let Some(window) = self.get("sliding_window") else { return Ok(()) };
        let positions = self.size("max_position_embeddings", MAX_POSITIONS)?.unwrap_or(0) as u64;
        if !self.uses_window() || window.as_u64().is_some_and(|w| w >= positions) {
            return Ok(());
        }
        Err(self.unsupported(
            "sliding_window",
            format!("{} of {positions} positions: attention here sees all of them", brief(window)),
        ))
    }

    fn sizes(&self) -> Result<Sizes> {
        let hidden_size = self.required_size("hidden_size", MAX_HIDDEN)?;
        let heads = self.required_size("num_attention_heads", MAX_HIDDEN)?;
        let kv_heads = self.size("num_key_value_heads", MAX_HIDDEN)?.unwrap_or(heads);
        let head_dim = match self.size("head_dim", MAX_HIDDEN)? {
            Some(d) => d,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(self.wrong(
                    "num_attention_heads",
                    format!("{heads} does not divide hidden_size {hidden_size}"),
                ));
            }
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.wrong(
                "num_key_value_heads",
                format!("{kv_heads} does not divide the {heads} attention heads"),
            ));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(self.wrong("head_dim", format!("{head_dim} is odd: RoPE turns pairs")));
        }
        if heads as u64 * head_dim as u64 > MAX_HIDDEN as u64 {
            return Err(self.wrong(
                "num_attention_heads",
                format!("{heads} heads of {head_dim} are wider than {MAX_HIDDEN}"),
            ));
        }
        let tied_head = match self.get("tie_word_embeddings") {
            None => self.family.tied_head(),
            Some(Value::Bool(tied)) => *tied,
            Some(other) => {
                return Err(self.wrong(
                    "tie_word_embeddings",
                    format!("{} is not true or false", brief(other)),
                ));
            }
        };
        let eps = self.family.norm_eps_key();
        let norm_eps = match self.positive(eps, self.keys)? {
            Some(eps) => eps,
            None => self.default(eps).ok_or_else(|| self.wrong(eps, "missing"))?,
        };
        Ok(Sizes {
            vocab_size: self.required_size("vocab_size", MAX_VOCABULARY)?,
            hidden_size,
            intermediate_size: self.required_size("intermediate_size", MAX_INTERMEDIATE)?,
            layers: self.required_size("num_hidden_layers", MAX_LAYERS)?,
            heads,
            kv_heads,
            head_dim,
            norm_eps,
            rope_theta: self.default("rope_theta").unwrap_or(10_000.0),
            rope_scaling: None,
            tied_head,
            max_positions: self.required_size("max_position_embeddings", MAX_POSITIONS)?,
        })
    }
}

/// What configs call a function, the first name being the one that is written, and what it is
/// called in messages.
fn activation_names(activation: Activation) -> (&'static [&'static str], &'static str) {
    match activation {
        Activation::Silu | Activation::Clamped { .. } => (&["silu", "swish"], "silu"),
        Activation::GeluTanh => {
            (&["gelu_pytorch_tanh", "gelu_new", "gelu_fast"], "gelu_pytorch_tanh")
        }
        Activation::SquaredRelu => (&["relu2"], "relu2"),
    }
}

/// A value for a message, never long.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 {
        text
    } else {
        text.chars().take(77).chain("...".chars()).collect()
    }
}
