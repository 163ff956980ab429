//! The fields of a family in a config.json that is read.

use super::rope::{FULL, SLIDING};
use super::{Config, MAX_HIDDEN, MAX_POSITIONS, brief};
use crate::architecture::fields::{Fields, Form, Key, SLIDING_WINDOW};
use crate::architecture::{Architecture, Rope};
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) struct Reader<'a> {
    pub config: &'a Config<'a>,
    /// The rotation of sliding layers, until a family takes it.
    pub sliding: Option<Rope>,
    /// Keys that the family reads.
    pub claimed: BTreeSet<&'static str>,
}

/// What a file says of a key.
enum Found<'a> {
    Value(&'static str, &'a Value),
    /// The family's default.
    Default(f64),
    Null,
    Nothing,
}

impl<'a> Reader<'a> {
    /// Claims a key and finds its value. Errors: `Format`, two of its names with two values.
    fn find(&mut self, key: &Key) -> Result<Found<'a>> {
        self.claimed.extend(key.config);
        let config = self.config;
        let value = |name: &str| match name.strip_prefix("rope_parameters.") {
            Some(name) => config.rope_value(name),
            None => config.keys.get(name),
        };
        let all = || key.config.iter().filter_map(|&name| Some((name, value(name)?)));
        let mut found = all().filter(|(_, value)| !value.is_null());
        let Some((name, first)) = found.next() else {
            let default = key.config.iter().find_map(|name| config.default(name));
            return Ok(match all().next() {
                Some(_) => Found::Null,
                None => default.map_or(Found::Nothing, Found::Default),
            });
        };
        match found.find(|(_, value)| *value != first) {
            None => Ok(Found::Value(name, first)),
            Some((other, second)) => {
                let (first, second) = (brief(first), brief(second));
                Err(config.wrong(other, format!("{second}, where {name} is {first}")))
            }
        }
    }

    /// Refuses what is left, once the family has read its fields.
    pub fn finish(self, config: &Config, graph: &mut Architecture) -> Result<()> {
        if self.sliding.is_some() {
            let layers = format!("rope by kind of layer ({SLIDING:?})");
            return Err(config.unsupported("rope_parameters", layers));
        }
        config.check_maths(&self.claimed)?;
        // A window that no sequence reaches is none.
        for a in graph.attentions_mut() {
            a.window = a.window.filter(|_| config.uses_window());
        }
        Ok(())
    }
}

impl Config<'_> {
    /// Which layers are of the other kind, by the list with the kind of each.
    fn kinds(&self, types: &Value, layers: usize, other: &str) -> Result<Vec<bool>> {
        let kind = |kind: &Value| match kind.as_str() {
            Some(FULL) => Ok(false),
            Some(name) if name == other => Ok(true),
            _ => {
                let reason = format!("{}: {FULL} and {other} are computed here", brief(kind));
                Err(self.unsupported("layer_types", reason))
            }
        };
        let list = types.as_array().ok_or_else(|| self.wrong("layer_types", "not a list"))?;
        if list.len() != layers {
            let reason = format!("has {} entries for {layers} layers", list.len());
            return Err(self.wrong("layer_types", reason));
        }
        list.iter().map(kind).collect()
    }
}

impl Fields for Reader<'_> {
    fn form(&self) -> Form {
        Form::HuggingFace
    }

    fn reads(&self) -> bool {
        true
    }

    fn size(&mut self, key: &Key, value: &mut Option<usize>) -> Result<()> {
        match self.find(key)? {
            Found::Value(_, found) if found == &Value::Bool(false) => *value = None,
            Found::Value(_, found) if found.as_u64() == Some(0) => *value = None,
            Found::Value(name, found) => {
                *value = Some(self.config.size_of(name, found, MAX_POSITIONS)?);
            }
            Found::Default(default) => *value = Some(default as usize),
            Found::Null => *value = None,
            Found::Nothing => {}
        }
        if key.config == SLIDING_WINDOW.config && !self.config.uses_window() {
            *value = None;
        }
        Ok(())
    }

    fn number(&mut self, key: &Key, value: &mut Option<f64>) -> Result<()> {
        match self.find(key)? {
            Found::Value(name, found) => {
                let number = found.as_f64().filter(|number| number.is_finite());
                let wrong = || format!("{} is not a finite number", brief(found));
                *value = Some(number.ok_or_else(|| self.config.wrong(name, wrong()))?);
            }
            Found::Default(default) => *value = Some(default),
            Found::Null => *value = None,
            Found::Nothing => {}
        }
        Ok(())
    }

    fn flag(&mut self, key: &Key, value: &mut Option<bool>) -> Result<()> {
        match self.find(key)? {
            Found::Value(name, found) => {
                let wrong = || format!("{} is not true or false", brief(found));
                *value = Some(found.as_bool().ok_or_else(|| self.config.wrong(name, wrong()))?);
            }
            Found::Default(default) => *value = Some(default != 0.0),
            Found::Null | Found::Nothing => {}
        }
        Ok(())
    }

    fn flags(&mut self, key: &Key, value: &mut Option<Vec<bool>>) -> Result<()> {
        let Found::Value(name, found) = self.find(key)? else { return Ok(()) };
        let flag = |flag: &Value| match flag {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => number.as_u64().filter(|&n| n <= 1).map(|n| n == 1),
            _ => None,
        };
        let flags = found.as_array().and_then(|list| list.iter().map(flag).collect());
        let wrong = || self.config.wrong(name, format!("{} is no list of 0 and 1", brief(found)));
        let flags: Vec<bool> = flags.ok_or_else(wrong)?;
        let layers = self.config.required_size("num_hidden_layers", super::MAX_LAYERS)?;
        if flags.len() != layers {
            let reason = format!("has {} entries for {layers} layers", flags.len());
            return Err(self.config.wrong(name, reason));
        }
        *value = Some(flags);
        Ok(())
    }

    fn numbers(&mut self, key: &Key, value: &mut Option<Vec<usize>>) -> Result<()> {
        match self.find(key)? {
            Found::Value(name, found) => {
                let number = |number: &Value| {
                    number.as_u64().filter(|&n| n <= MAX_POSITIONS as u64).map(|n| n as usize)
                };
                let list = found.as_array().filter(|list| list.len() <= super::MAX_LAYERS);
                let numbers = list.and_then(|list| list.iter().map(number).collect());
                let wrong = || format!("{} is no list of whole numbers", brief(found));
                *value = Some(numbers.ok_or_else(|| self.config.wrong(name, wrong()))?);
            }
            Found::Null => *value = None,
            Found::Default(_) | Found::Nothing => {}
        }
        Ok(())
    }

    fn other_mixers(&mut self, kind: &'static str, value: &mut Option<Vec<bool>>) -> Result<()> {
        self.claimed.insert("layer_types");
        let Some(types) = self.config.get("layer_types") else { return Ok(()) };
        let layers = self.config.required_size("num_hidden_layers", super::MAX_LAYERS)?;
        *value = Some(self.config.kinds(types, layers, kind)?);
        Ok(())
    }

    fn kv_heads(&mut self, _: &mut Option<Vec<usize>>) -> Result<()> {
        Ok(())
    }

    fn sliding_layers(&mut self, value: &mut Vec<bool>, _: bool) -> Result<()> {
        const PATTERNS: [&str; 2] = ["sliding_window_pattern", "_sliding_window_pattern"];
        self.claimed.extend(PATTERNS);
        self.claimed.insert("layer_types");
        let config = self.config;
        let Some(types) = config.get("layer_types") else {
            for key in PATTERNS {
                if config.get(key).is_some_and(Value::is_u64) {
                    let every = config.required_size(key, super::MAX_LAYERS)?;
                    let count = value.len();
                    *value = (1..=count).map(|layer| !layer.is_multiple_of(every)).collect();
                    break;
                }
            }
            return Ok(());
        };
        *value = config.kinds(types, value.len(), SLIDING)?;
        Ok(())
    }

    fn sliding_rope(&mut self, value: &mut Option<Rope>) -> Result<()> {
        self.claimed.insert("rope_local_base_freq");
        if let Some(rope) = self.sliding.take() {
            *value = Some(rope);
        }
        Ok(())
    }

    fn head_dims(&mut self, sliding: &[bool], value: &mut [usize; 2]) -> Result<()> {
        const FULL_WIDTH: &str = "global_head_dim";
        const BY_LAYER: &str = "per_layer_config";
        self.claimed.extend([FULL_WIDTH, BY_LAYER]);
        let config = self.config;
        if let Some(full) = config.size(FULL_WIDTH, MAX_HIDDEN)? {
            value[1] = full;
        }
        let Some(Value::Object(layers)) = config.get(BY_LAYER) else { return Ok(()) };
        for (layer, fields) in layers {
            let number = layer.parse().ok().filter(|&layer: &usize| layer < sliding.len());
            let only_widths = fields.as_object().is_some_and(|fields| fields.len() == 1);
            let (Some(layer), Some(width), true) = (number, fields.get("head_dim"), only_widths)
            else {
                let reason = format!("layer {layer}: {}; head_dim alone may differ", brief(fields));
                return Err(config.unsupported(BY_LAYER, reason));
            };
            let width = config.size_of("head_dim", width, MAX_HIDDEN)?;
            if sliding[layer] && width != value[0] {
                let reason = format!("layer {layer} slides and has heads of {width}");
                return Err(config.unsupported(BY_LAYER, reason));
            }
            if !sliding[layer] {
                value[1] = width;
            }
        }
        Ok(())
    }

    fn has_tensor(&self, _: &str) -> Option<bool> {
        None
    }

    fn refuse(&self, key: &Key, reason: String) -> Error {
        let name = key.config.first().copied().unwrap_or_default();
        self.config.unsupported(name.trim_start_matches("rope_parameters."), reason)
    }
}
