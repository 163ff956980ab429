//! A config.json that is written.

use super::rope::{FULL, SLIDING, written};
use super::{DECAY, HEAD_ORDER, NORM_OFFSET, activation_names};
use crate::architecture::fields::{Fields, Form, Key};
use crate::architecture::{Architecture, Rope, RopeScaling, family};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A config.json that `parse` reads back equal; rope in the spelling that all versions of
/// transformers read, where that spelling can say it.
///
/// Errors: `Unsupported`, a field of the decoder that configs of its family cannot hold.
pub fn to_json(architecture: &Architecture) -> Result<Value> {
    let (family, a) = (family::of(architecture), architecture.sizes());
    // Sorted, so that the bytes do not depend on how a JSON map keeps its keys.
    let mut pairs: BTreeMap<&str, Value> = BTreeMap::from([
        ("architectures", json!([family.class()])),
        ("head_dim", a.head_dim.into()),
        ("hidden_act", activation_names(family.activation()).0[0].into()),
        ("hidden_size", a.hidden_size.into()),
        ("intermediate_size", a.intermediate_size.into()),
        ("max_position_embeddings", a.max_positions.into()),
        ("model_type", family.model_type().into()),
        ("num_attention_heads", a.heads.into()),
        ("num_hidden_layers", a.layers.into()),
        ("num_key_value_heads", a.kv_heads.into()),
        (family.norm_eps_key(), a.norm_eps.into()),
        ("tie_word_embeddings", a.tied_head.into()),
        ("vocab_size", a.vocab_size.into()),
    ]);
    pairs.extend(family.own_keys());
    if architecture.norm.offset != family.norm_offset() {
        pairs.insert(NORM_OFFSET, architecture.norm.offset.into());
    }
    if let Some(delta) = architecture.delta_rules().next() {
        if delta.order != family.head_order(Form::HuggingFace) {
            pairs.insert(HEAD_ORDER, delta.order.name().into());
        }
        if delta.decay != Form::HuggingFace.decay() {
            pairs.insert(DECAY, delta.decay.name().into());
        }
    }
    let mut writer = Writer { pairs, rope: Map::new(), sliding: None };
    let mut graph = architecture.clone();
    family.describe(&mut writer, &mut graph)?;
    writer.write_ropes(architecture, family);
    let pairs = writer.pairs.into_iter().map(|(key, value)| (key.to_string(), value));
    Ok(Value::Object(pairs.collect()))
}

struct Writer {
    pairs: BTreeMap<&'static str, Value>,
    /// What the family adds to the rotation.
    rope: Map<String, Value>,
    /// The rotation of sliding layers, where the family has another one for them.
    sliding: Option<Rope>,
}

impl Writer {
    /// `rope_theta` and `rope_scaling`, or `rope_parameters` for each kind of layer.
    fn write_ropes(&mut self, architecture: &Architecture, family: &dyn family::Family) {
        let is_full = |window: Option<usize>| window.is_none() || self.sliding.is_none();
        let attentions = || architecture.attentions();
        let full = attentions().find(|a| is_full(a.window) && a.rope.is_some());
        let any = full.or_else(|| attentions().find(|a| a.rope.is_some()));
        let Some((attention, rope)) = any.and_then(|a| Some((a, a.rope.as_ref()?))) else {
            return;
        };
        let mut scaling = |rope: &Rope| {
            let mut fields = written(rope);
            if !self.rope.is_empty() {
                fields.get_or_insert_default().append(&mut self.rope);
            }
            fields
        };
        let partial = "partial_rotary_factor";
        let default = family.defaults().iter().any(|(key, _)| *key == partial);
        if rope.turned != attention.head_dim || default {
            let share = rope.turned as f64 / attention.head_dim as f64;
            self.pairs.insert(partial, share.into());
        }
        let fields = scaling(rope);
        let of = |rope: &Rope, fields: Option<Map<String, Value>>| {
            let mut fields = fields.unwrap_or_default();
            fields.entry("rope_type").or_insert("default".into());
            fields.insert("rope_theta".into(), rope.theta.into());
            Value::Object(fields)
        };
        match self.sliding.take() {
            // A config without the new spelling means the family's own rotation there.
            None if !family.rope_parameters().is_null() => {
                self.pairs.insert("rope_parameters", of(rope, fields));
            }
            None => {
                self.pairs.insert("rope_theta", rope.theta.into());
                self.pairs.insert("rope_scaling", fields.map_or(Value::Null, Value::Object));
            }
            Some(sliding) => {
                let (full, local) = (of(rope, fields), of(&sliding, written(&sliding)));
                self.pairs.insert("rope_parameters", json!({ FULL: full, SLIDING: local }));
            }
        }
    }

    fn put(&mut self, key: &Key, value: Value) {
        let Some(&name) = key.config.first() else { return };
        match name.strip_prefix("rope_parameters.") {
            Some(_) if value.is_null() => {}
            Some(name) => drop(self.rope.insert(name.into(), value)),
            None => drop(self.pairs.insert(name, value)),
        }
    }
}

impl Fields for Writer {
    fn form(&self) -> Form {
        Form::HuggingFace
    }

    fn reads(&self) -> bool {
        false
    }

    fn size(&mut self, key: &Key, value: &mut Option<usize>) -> Result<()> {
        self.put(key, value.map_or(Value::Null, Value::from));
        Ok(())
    }

    fn number(&mut self, key: &Key, value: &mut Option<f64>) -> Result<()> {
        self.put(key, value.map_or(Value::Null, Value::from));
        Ok(())
    }

    fn flag(&mut self, key: &Key, value: &mut Option<bool>) -> Result<()> {
        self.put(key, value.map_or(Value::Null, Value::from));
        Ok(())
    }

    fn flags(&mut self, key: &Key, value: &mut Option<Vec<bool>>) -> Result<()> {
        if let Some(flags) = value {
            let numbers: Vec<u8> = flags.iter().map(|&flag| flag.into()).collect();
            self.put(key, numbers.into());
        }
        Ok(())
    }

    fn numbers(&mut self, key: &Key, value: &mut Option<Vec<usize>>) -> Result<()> {
        self.put(key, value.clone().map_or(Value::Null, Value::from));
        Ok(())
    }

    fn other_mixers(&mut self, kind: &'static str, value: &mut Option<Vec<bool>>) -> Result<()> {
        let name = |&other: &bool| if other { kind } else { FULL };
        let kinds: Option<Vec<&str>> = value.as_ref().map(|all| all.iter().map(name).collect());
        self.pairs.insert("layer_types", kinds.into());
        Ok(())
    }

    fn kv_heads(&mut self, _: &mut Option<Vec<usize>>) -> Result<()> {
        Ok(())
    }

    fn sliding_layers(&mut self, value: &mut Vec<bool>, _: bool) -> Result<()> {
        let kinds: Vec<&str> =
            value.iter().map(|&slides| if slides { SLIDING } else { FULL }).collect();
        self.pairs.insert("layer_types", kinds.into());
        Ok(())
    }

    fn sliding_rope(&mut self, value: &mut Option<Rope>) -> Result<()> {
        self.sliding = value.clone();
        Ok(())
    }

    fn head_dims(&mut self, _: &[bool], value: &mut [usize; 2]) -> Result<()> {
        self.pairs.insert("head_dim", value[0].into());
        self.pairs.insert("global_head_dim", value[1].into());
        Ok(())
    }

    fn has_tensor(&self, _: &str) -> Option<bool> {
        None
    }

    fn refuse(&self, key: &Key, reason: String) -> Error {
        let name = key.config.first().copied().or(key.gguf).unwrap_or_default();
        Error::Unsupported { file: "config.json".into(), name: name.into(), reason, offset: None }
    }
}

/// Whether a folder of Hugging Face can hold the rotation: factors without a formula have no
/// spelling there.
pub fn has_spelling(architecture: &Architecture) -> bool {
    let ropes = architecture.attentions().filter_map(|a| a.rope.as_ref());
    ropes.into_iter().all(|rope| !matches!(rope.scaling, Some(RopeScaling::Factors(_))))
}
