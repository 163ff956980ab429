//! config.json of Hugging Face: to and from [`crate::Architecture`].
//!
//! A key that does not change the maths may be anything. One that does, with a value this library
//! does not compute, is refused by its name: a model that runs but answers differently is worse
//! than an error.

use crate::architecture::family::{self, Defaults, Family};
use crate::architecture::{Architecture, RopeScaling, Sizes};
use crate::error::{Error, Result};
use crate::json;
use halfstep_kernels::ops::rope::Llama3Scaling;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

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

/// Keys that must be absent, null or false unless the family has settled them: each switches on
/// something that no graph here has, or only that of another family.
const MUST_BE_OFF: &[&str] = &[
    "attention_bias",
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
    "text_config",
    "vision_config",
    "auto_map",
    "num_nextn_predict_layers",
    "pruned_heads",
    "kv_lora_rank",
    "q_lora_rank",
    "sliding_window_pattern",
    "rope_local_base_freq",
    "num_kv_shared_layers",
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
    "partial_rotary_factor",
    "rotary_pct",
    "rope_pct",
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
    let Value::Object(keys) = json::parse(file, bytes)? else {
        return Err(Error::Format {
            file: file.into(),
            offset: 0,
            reason: "a config must be a JSON object".into(),
        });
    };
    let config = Config { file, bytes, keys: &keys };
    let family = config.family()?;
    config.check_maths(family)?;
    Ok(family.graph(&config.sizes(family.defaults())?))
}

/// A config.json that `parse` reads back equal; rope in the spelling that all versions of
/// transformers read.
pub fn to_json(architecture: &Architecture) -> Value {
    let (family, a) = (family::of(architecture), architecture.sizes());
    let llama3 = |s| if let RopeScaling::Llama3(s) = s { Some(s) } else { None };
    let scaling = a.rope_scaling.and_then(llama3).map(|s| {
        let pairs: BTreeMap<&str, Value> = BTreeMap::from([
            ("factor", s.factor.into()),
            ("high_freq_factor", s.high_freq_factor.into()),
            ("low_freq_factor", s.low_freq_factor.into()),
            ("original_max_position_embeddings", s.original_max_position.into()),
            ("rope_type", "llama3".into()),
        ]);
        pairs.into_iter().map(|(k, v)| (k.to_string(), v)).collect::<Map<_, _>>()
    });
    // Sorted, so that the bytes do not depend on how a JSON map keeps its keys.
    let mut pairs: BTreeMap<&str, Value> = BTreeMap::from([
        ("architectures", json!([family.class()])),
        ("head_dim", a.head_dim.into()),
        ("hidden_act", "silu".into()),
        ("hidden_size", a.hidden_size.into()),
        ("intermediate_size", a.intermediate_size.into()),
        ("max_position_embeddings", a.max_positions.into()),
        ("model_type", family.model_type().into()),
        ("num_attention_heads", a.heads.into()),
        ("num_hidden_layers", a.layers.into()),
        ("num_key_value_heads", a.kv_heads.into()),
        ("rms_norm_eps", a.norm_eps.into()),
        ("rope_scaling", scaling.map_or(Value::Null, Value::Object)),
        ("rope_theta", a.rope_theta.into()),
        ("tie_word_embeddings", a.tied_head.into()),
        ("vocab_size", a.vocab_size.into()),
    ]);
    pairs.extend(family.own_keys());
    Value::Object(pairs.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
}

struct Config<'a> {
    file: &'a str,
    bytes: &'a [u8],
    keys: &'a Map<String, Value>,
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
        Error::Unsupported { file: self.file.into(), name: key.into(), reason: reason.into() }
    }

    /// The key's value; null counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|v| !v.is_null())
    }

    fn size(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().filter(|&v| v > 0).ok_or_else(|| {
            self.wrong(key, format!("{} is not a positive integer", brief(value)))
        })?;
        if size > max as u64 {
            return Err(self.wrong(key, format!("{size} is more than {max}")));
        }
        Ok(Some(size as usize))
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

    /// The family that `architectures` and `model_type` name.
    fn family(&self) -> Result<&'static dyn Family> {
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
            self.unsupported(name, format!("the architectures read here are {}", family::listed()))
        };
        let mut named = vec![];
        for name in architectures {
            named.push(family::find(|f| f.class() == name).ok_or_else(|| unknown(name))?);
        }
        if let Some(name) = model_type {
            named.push(family::find(|f| f.model_type() == name).ok_or_else(|| unknown(name))?);
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

    fn check_maths(&self, family: &dyn Family) -> Result<()> {
        for key in ["hidden_act", "hidden_activation", "activation_function"] {
            match self.get(key) {
                None => {}
                Some(Value::String(act)) if act == "silu" || act == "swish" => {}
                Some(other) => {
                    return Err(
                        self.unsupported(key, format!("{}, where silu is computed", brief(other)))
                    );
                }
            }
        }
        for key in MUST_BE_OFF.iter().filter(|key| !family.settled_keys().contains(key)) {
            match self.get(key) {
                None | Some(Value::Bool(false)) => {}
                Some(Value::Object(o)) if o.is_empty() => {}
                Some(Value::Array(a)) if a.is_empty() => {}
                Some(Value::Number(n)) if n.as_f64() == Some(0.0) => {}
                Some(other) => {
                    return Err(
                        self.unsupported(key, format!("{} changes the computation", brief(other)))
                    );
                }
            }
        }
        for key in MUST_BE_ONE {
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
            && !types.as_array().is_some_and(|t| t.iter().all(|t| t == "full_attention"))
        {
            return Err(self.unsupported(
                "layer_types",
                format!("{}: every layer is full_attention here", brief(types)),
            ));
        }
        self.check_attention_scale()?;
        self.check_window(family.defaults())
    }

    /// A window no shorter than the positions, or switched off, changes nothing.
    fn check_window(&self, default: Defaults) -> Result<()> {
        let Some(window) = self.get("sliding_window") else { return Ok(()) };
        let used = match self.get("use_sliding_window") {
            None => default.use_sliding_window,
            Some(used) => used != &Value::Bool(false),
        };
        let off = !used || window == &Value::Bool(false);
        let positions = self
            .size("max_position_embeddings", MAX_POSITIONS)?
            .unwrap_or(default.positions) as u64;
        if off || window.as_u64().is_some_and(|w| w >= positions) {
            return Ok(());
        }
        Err(self.unsupported(
            "sliding_window",
            format!("{} of {positions} positions: attention here sees all of them", brief(window)),
        ))
    }

    /// `attention_multiplier` replaces 1 / sqrt(head_dim).
    fn check_attention_scale(&self) -> Result<()> {
        match self.get("attention_multiplier") {
            None => Ok(()),
            Some(other) => Err(self.unsupported(
                "attention_multiplier",
                format!("{}: attention here is scaled by 1 / sqrt(head_dim)", brief(other)),
            )),
        }
    }

    fn sizes(&self, default: Defaults) -> Result<Sizes> {
        let hidden_size = self.required_size("hidden_size", MAX_HIDDEN)?;
        let heads = self.required_size("num_attention_heads", MAX_HIDDEN)?;
        let kv_heads = self.size("num_key_value_heads", MAX_HIDDEN)?;
        let kv_heads = kv_heads.or(default.kv_heads).unwrap_or(heads);
        let head_dim = match self.size("head_dim", MAX_HIDDEN)?.or(default.head_dim) {
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
            None => false,
            Some(Value::Bool(tied)) => *tied,
            Some(other) => {
                return Err(self.wrong(
                    "tie_word_embeddings",
                    format!("{} is not true or false", brief(other)),
                ));
            }
        };
        let (rope_theta, rope_scaling) = self.rope(default)?;
        Ok(Sizes {
            vocab_size: self.required_size("vocab_size", MAX_VOCABULARY)?,
            hidden_size,
            intermediate_size: self.required_size("intermediate_size", MAX_INTERMEDIATE)?,
            layers: self.required_size("num_hidden_layers", MAX_LAYERS)?,
            heads,
            kv_heads,
            head_dim,
            norm_eps: self.positive("rms_norm_eps", self.keys)?.unwrap_or(default.norm_eps),
            rope_theta,
            rope_scaling: rope_scaling.map(RopeScaling::Llama3),
            tied_head,
            max_positions: self
                .size("max_position_embeddings", MAX_POSITIONS)?
                .unwrap_or(default.positions),
        })
    }

    /// Theta and scaling from `rope_theta` + `rope_scaling`, from `rope_parameters`, or from both
    /// if they are equal.
    fn rope(&self, default: Defaults) -> Result<(f64, Option<Llama3Scaling>)> {
        let object = |key: &str| match self.get(key) {
            None => Ok(None),
            Some(Value::Object(o)) => Ok(Some(o)),
            Some(other) => Err(self.wrong(key, format!("{} is not an object", brief(other)))),
        };
        let (old, new) = (object("rope_scaling")?, object("rope_parameters")?);
        let mut thetas = vec![self.positive("rope_theta", self.keys)?];
        let mut scalings = vec![];
        for (key, fields) in [("rope_scaling", old), ("rope_parameters", new)] {
            if let Some(fields) = fields {
                thetas.push(self.positive("rope_theta", fields)?);
                scalings.push(self.scaling(key, fields)?);
            }
        }
        let thetas: Vec<f64> = thetas.into_iter().flatten().collect();
        if thetas.windows(2).any(|t| t[0] != t[1]) {
            return Err(self.wrong(
                "rope_theta",
                format!("given as {} and as {}", thetas[0], thetas[thetas.len() - 1]),
            ));
        }
        if scalings.windows(2).any(|s| s[0] != s[1]) {
            return Err(self.wrong("rope_scaling", "differs from rope_parameters"));
        }
        Ok((
            thetas.first().copied().unwrap_or(default.rope_theta),
            scalings.first().copied().flatten(),
        ))
    }

    fn scaling(&self, key: &str, fields: &Map<String, Value>) -> Result<Option<Llama3Scaling>> {
        let kinds: Vec<&Value> = ["rope_type", "type"]
            .iter()
            .filter_map(|k| fields.get(*k))
            .filter(|v| !v.is_null())
            .collect();
        if kinds.len() == 2 && kinds[0] != kinds[1] {
            return Err(self.wrong(
                key,
                format!("rope_type {} against type {}", brief(kinds[0]), brief(kinds[1])),
            ));
        }
        for factor in ["partial_rotary_factor", "attention_factor", "mscale"] {
            if fields.get(factor).is_some_and(|v| !v.is_null() && v.as_f64() != Some(1.0)) {
                return Err(self.unsupported(
                    factor,
                    format!("{} changes the computation, 1 does not", brief(&fields[factor])),
                ));
            }
        }
        if let Some((layers, _)) = fields.iter().find(|(_, v)| v.is_object()) {
            return Err(self.unsupported(key, format!("rope by kind of layer ({layers:?})")));
        }
        let number = |name: &str| {
            self.positive(name, fields)?
                .ok_or_else(|| self.wrong(key, format!("rope type llama3 needs {name}")))
        };
        match kinds.first().map(|v| v.as_str()) {
            None | Some(Some("default")) => match fields.get("factor") {
                Some(f) if !f.is_null() && f.as_f64() != Some(1.0) => {
                    Err(self.wrong(key, format!("a factor of {} without a rope type", brief(f))))
                }
                _ => Ok(None),
            },
            Some(Some("llama3")) => {
                let original = number("original_max_position_embeddings")?;
                let scaling = Llama3Scaling {
                    factor: number("factor")?,
                    low_freq_factor: number("low_freq_factor")?,
                    high_freq_factor: number("high_freq_factor")?,
                    original_max_position: original as usize,
                };
                if original.fract() != 0.0 || original > MAX_POSITIONS as f64 {
                    return Err(self.wrong(
                        "original_max_position_embeddings",
                        format!("{original} is no number of positions"),
                    ));
                }
                // The formula divides by their difference.
                if scaling.high_freq_factor <= scaling.low_freq_factor {
                    return Err(self.wrong(
                        "high_freq_factor",
                        format!("{} is not above low_freq_factor", scaling.high_freq_factor),
                    ));
                }
                Ok(Some(scaling))
            }
            Some(Some(other)) => {
                Err(self
                    .unsupported(&format!("rope type {other}"), "default and llama3 are computed"))
            }
            Some(None) => Err(self.wrong(key, "rope_type is not a string")),
        }
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
