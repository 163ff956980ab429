//! The fields of a family in GGUF metadata, read and written.

use super::entries::Entries;
use super::metadata::{Metadata, Value};
use super::{Container, FORMAT, caps, keys, rope};
use crate::architecture::fields::{Fields, Form, Key};
use crate::architecture::{Architecture, NormKind, Rope, family, readers};
use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// The metadata below the name of an architecture.
pub(super) struct Keys<'a> {
    pub metadata: &'a Metadata<'a>,
    pub architecture: &'a str,
}

impl Keys<'_> {
    pub fn of(&self, key: &str) -> String {
        keys::of(self.architecture, key)
    }

    pub fn error(&self, key: &str, reason: String) -> Error {
        self.metadata.error(&self.of(key), reason)
    }

    pub fn unsupported(&self, name: String, reason: impl Into<String>) -> Error {
        Error::Unsupported {
            file: self.metadata.file.into(),
            name,
            reason: reason.into(),
            offset: None,
        }
    }

    pub fn size(&self, key: &str, cap: u64) -> Result<Option<usize>> {
        let (key, per_layer) = (self.of(key), keys::PER_LAYER.contains(&key));
        let read = if per_layer { Metadata::uniform_integer } else { Metadata::integer };
        Ok(read(self.metadata, &key, 1..=cap)?.map(|size| size as usize))
    }

    /// A size that may be given for each layer.
    pub fn sizes(&self, key: &str, layers: usize, cap: u64) -> Result<Option<Vec<usize>>> {
        let whole = self.of(key);
        let Some(Value::Array(array)) = self.metadata.get(&whole).map(|entry| entry.value) else {
            return Ok(self.size(key, cap)?.map(|size| vec![size; layers]));
        };
        let size = |(_, value)| match value {
            Value::Integer(size) if (1..=i128::from(cap)).contains(&size) => Ok(size as usize),
            _ => Err(self.error(key, format!("must hold numbers from 1 to {cap}"))),
        };
        let sizes: Vec<usize> = array.iter().map(size).collect::<Result<_>>()?;
        if sizes.len() != layers {
            let reason = format!("has {} entries for {layers} layers", sizes.len());
            return Err(self.error(key, reason));
        }
        Ok(Some(sizes))
    }

    pub fn required(&self, key: &str, cap: u64) -> Result<usize> {
        self.size(key, cap).and_then(|size| self.metadata.required(&self.of(key), size))
    }

    /// A finite number from the standard f32 key, or from ours if that holds it more exactly; ours
    /// must round to the standard one.
    pub fn exact(&self, key: &str, own: &str) -> Result<Option<f64>> {
        let Some(standard) = self.metadata.float(&self.of(key))? else { return Ok(None) };
        if !standard.is_finite() {
            return Err(self.error(key, format!("is {standard}, not a finite number")));
        }
        match self.metadata.float(own)? {
            Some(exact) if exact as f32 != standard as f32 => Err(self
                .metadata
                .error(own, format!("is {exact}, but {} is {standard}", self.of(key)))),
            exact => Ok(exact.or(Some(standard))),
        }
    }

    /// The same under our usual name.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.exact(key, &format!("{}{key}", keys::OWN_FIELD))
    }

    /// The same, above 0.
    pub fn positive(&self, key: &str, own: &str) -> Result<Option<f64>> {
        match self.metadata.float(&self.of(key))? {
            Some(standard) if !(standard.is_finite() && standard > 0.0) => {
                Err(self.error(key, format!("is {standard}, not a positive number")))
            }
            _ => self.exact(key, own),
        }
    }

    /// Refuses keys whose values change what is computed and that no family `claimed`.
    pub fn check_maths(&self, claimed: &BTreeSet<&str>) -> Result<()> {
        for &(key, neutral) in keys::MUST_BE_NEUTRAL.iter().filter(|(k, _)| !claimed.contains(k)) {
            let value = match self.metadata.get(&self.of(key)).map(|e| e.value) {
                None => continue,
                Some(Value::Integer(i)) => i as f64,
                Some(Value::Float(f)) => f,
                Some(Value::Bool(b)) => f64::from(u8::from(b)),
                Some(_) => return Err(self.error(key, "must be a number".into())),
            };
            if value != neutral && value != 0.0 {
                let reason = format!("its value {value} changes the computation");
                return Err(self.unsupported(self.of(key), reason));
            }
        }
        Ok(())
    }
}

pub(super) struct Reader<'a> {
    pub keys: &'a Keys<'a>,
    pub container: &'a Container<'a>,
    /// Keys that the family reads.
    pub claimed: BTreeSet<&'static str>,
    /// Number of layers, and of those after them that are left out.
    pub layers: [usize; 2],
}

impl Reader<'_> {
    /// The values of an array with one for every layer, those that are left out included.
    fn by_layer<T>(
        &self,
        key: &str,
        what: &str,
        one: impl Fn(Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let name = self.keys.of(key);
        let Some(array) = self.keys.metadata.array(&name)? else { return Ok(None) };
        let values = array.iter().map(|(_, value)| one(value)).collect::<Option<Vec<T>>>();
        let wrong = || self.keys.metadata.error(&name, format!("must hold {what}"));
        let (mut values, [layers, beyond]) = (values.ok_or_else(wrong)?, self.layers);
        if values.len() != layers + beyond {
            let reason = format!("has {} entries for {} layers", values.len(), layers + beyond);
            return Err(self.keys.error(key, reason));
        }
        values.truncate(layers);
        Ok(Some(values))
    }
}

/// True or false, or a number that stands for it.
fn as_flag(value: Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(flag),
        Value::Integer(flag @ (0 | 1)) => Some(flag == 1),
        _ => None,
    }
}

/// A whole number within the caps.
fn as_number(value: Value) -> Option<usize> {
    match value {
        Value::Integer(n) if (0..=i128::from(caps::POSITIONS)).contains(&n) => Some(n as usize),
        _ => None,
    }
}

impl Fields for Reader<'_> {
    fn form(&self) -> Form {
        Form::Gguf
    }

    fn reads(&self) -> bool {
        true
    }

    fn size(&mut self, key: &Key, value: &mut Option<usize>) -> Result<()> {
        let Some(key) = key.gguf else { return Ok(()) };
        self.claimed.insert(key);
        let found = self.keys.metadata.integer(&self.keys.of(key), 0..=caps::POSITIONS)?;
        if let Some(found) = found {
            *value = Some(found as usize).filter(|&size| size > 0);
        }
        Ok(())
    }

    fn number(&mut self, key: &Key, value: &mut Option<f64>) -> Result<()> {
        let Some(key) = key.gguf else { return Ok(()) };
        self.claimed.insert(key);
        *value = self.keys.number(key)?.or(*value);
        Ok(())
    }

    fn flag(&mut self, key: &Key, value: &mut Option<bool>) -> Result<()> {
        let Some(key) = key.gguf else { return Ok(()) };
        self.claimed.insert(key);
        *value = self.keys.metadata.boolean(&self.keys.of(key))?.or(*value);
        Ok(())
    }

    fn flags(&mut self, key: &Key, value: &mut Option<Vec<bool>>) -> Result<()> {
        let Some(key) = key.gguf else { return Ok(()) };
        if let Some(flags) = self.by_layer(key, "true or false", as_flag)? {
            *value = Some(flags);
        }
        Ok(())
    }

    fn numbers(&mut self, key: &Key, value: &mut Option<Vec<usize>>) -> Result<()> {
        let Some(key) = key.gguf else { return Ok(()) };
        let name = self.keys.of(key);
        if let Some(array) = self.keys.metadata.array(&name)? {
            let numbers = array.iter().take(caps::LAYERS as usize + 1);
            let numbers = numbers.map(|(_, value)| as_number(value)).collect::<Option<_>>();
            let wrong = || self.keys.metadata.error(&name, "must hold whole numbers");
            *value = Some(numbers.ok_or_else(wrong)?);
        }
        Ok(())
    }

    fn other_mixers(&mut self, _: &'static str, _: &mut Option<Vec<bool>>) -> Result<()> {
        Ok(())
    }

    fn kv_heads(&mut self, value: &mut Option<Vec<usize>>) -> Result<()> {
        if let Some(Value::Array(_)) =
            self.keys.metadata.get(&self.keys.of(keys::HEAD_COUNT_KV)).map(|entry| entry.value)
        {
            *value = self.by_layer(keys::HEAD_COUNT_KV, "whole numbers", as_number)?;
        }
        Ok(())
    }

    fn sliding_layers(&mut self, value: &mut Vec<bool>, _: bool) -> Result<()> {
        let key = self.keys.of(keys::SLIDING_PATTERN);
        match self.keys.metadata.get(&key).map(|entry| entry.value) {
            None => Ok(()),
            Some(Value::Array(_)) => {
                let flags = self.by_layer(keys::SLIDING_PATTERN, "true or false", as_flag)?;
                *value = flags.unwrap_or_default();
                Ok(())
            }
            Some(_) => {
                let every = self.keys.required(keys::SLIDING_PATTERN, caps::LAYERS)?;
                let layers = value.len();
                *value = (1..=layers).map(|layer| !layer.is_multiple_of(every)).collect();
                Ok(())
            }
        }
    }

    fn sliding_rope(&mut self, value: &mut Option<Rope>) -> Result<()> {
        let own = format!("{}{}", keys::OWN_FIELD, keys::ROPE_BASE_SLIDING);
        let theta = self.keys.positive(keys::ROPE_BASE_SLIDING, &own)?;
        let turned = self.keys.size(keys::ROPE_DIMENSIONS_SLIDING, caps::WIDTH)?;
        if let Some(rope) = value {
            let (theta, turned) = (theta.unwrap_or(rope.theta), turned.unwrap_or(rope.turned));
            *value = Some(Rope { pairs: rope.pairs, ..Rope::plain(theta, turned) });
        }
        Ok(())
    }

    fn head_dims(&mut self, _: &[bool], value: &mut [usize; 2]) -> Result<()> {
        let key = self.keys.size(keys::KEY_LENGTH_SLIDING, caps::WIDTH)?;
        let values = self.keys.size(keys::VALUE_LENGTH_SLIDING, caps::WIDTH)?;
        if values.is_some() && values != key {
            let reason = "differs from that of keys".into();
            return Err(self.keys.error(keys::VALUE_LENGTH_SLIDING, reason));
        }
        value[0] = key.unwrap_or(value[0]);
        Ok(())
    }

    fn has_tensor(&self, name: &str) -> Option<bool> {
        Some(self.container.tensors.contains_key(name))
    }

    fn refuse(&self, key: &Key, reason: String) -> Error {
        let name = key.gguf.map(|key| self.keys.of(key));
        let name = name.or(key.config.first().map(|key| key.to_string())).unwrap_or_default();
        self.keys.unsupported(name, reason)
    }
}

pub(super) struct Writer<'a> {
    pub entries: &'a mut Entries,
    pub architecture: &'a str,
}

/// Sizes, rotation and the fields of the family.
pub(super) fn write(graph: &Architecture, name: &str, entries: &mut Entries) -> Result<()> {
    let (family, a) = (family::of(graph), graph.sizes());
    let key = |key| keys::of(name, key);
    entries.u32(&key(keys::BLOCK_COUNT), a.layers)?;
    entries.u32(&key(keys::CONTEXT_LENGTH), a.max_positions)?;
    entries.u32(&key(keys::EMBEDDING_LENGTH), a.hidden_size)?;
    let widths: Vec<usize> = graph.layers.iter().map(|l| l.feed_forward.widest()).collect();
    match widths.iter().any(|&width| width != a.intermediate_size) {
        true => entries.u32s(&key(keys::FEED_FORWARD_LENGTH), &widths)?,
        false => entries.u32(&key(keys::FEED_FORWARD_LENGTH), a.intermediate_size)?,
    }
    entries.u32(&key(keys::HEAD_COUNT), a.heads)?;
    if !family.counts_heads_by_layer() {
        entries.u32(&key(keys::HEAD_COUNT_KV), a.kv_heads)?;
    }
    // The layers without a window, whose width the rotation goes by.
    let full = graph.attentions().find(|a| a.window.is_none());
    let head_dim = full.map_or(a.head_dim, |full| full.head_dim);
    entries.u32(&key(keys::KEY_LENGTH), head_dim)?;
    entries.u32(&key(keys::VALUE_LENGTH), head_dim)?;
    let epsilon = match family.norm_kind() {
        NormKind::Rms => keys::NORM_EPSILON,
        NormKind::Layer => keys::LAYER_NORM_EPSILON,
    };
    entries.f32(&key(epsilon), keys::OWN_NORM_EPSILON, a.norm_eps);
    entries.u32(&key(keys::VOCAB_SIZE), a.vocab_size)?;
    let has_own = |window: Option<usize>| window.is_none();
    let ropes = || graph.attentions().filter(|a| a.rope.is_some());
    let any = ropes().find(|a| has_own(a.window)).or_else(|| ropes().next());
    if let Some((a, rope)) = any.and_then(|a| Some((a, a.rope.as_ref()?))) {
        rope::write(rope, a.head_dim, family, name, entries)?;
    }
    let mut writer = Writer { entries, architecture: name };
    readers::check(&writer, graph, &family.gguf_readers())?;
    family.describe(&mut writer, &mut graph.clone())
}

impl Writer<'_> {
    fn key(&self, key: &str) -> String {
        keys::of(self.architecture, key)
    }
}

impl Fields for Writer<'_> {
    fn form(&self) -> Form {
        Form::Gguf
    }

    fn reads(&self) -> bool {
        false
    }

    fn size(&mut self, key: &Key, value: &mut Option<usize>) -> Result<()> {
        match (key.gguf, *value) {
            (Some(key), Some(value)) => self.entries.u32(&self.key(key), value),
            _ => Ok(()),
        }
    }

    fn number(&mut self, key: &Key, value: &mut Option<f64>) -> Result<()> {
        if let (Some(key), Some(value)) = (key.gguf, *value) {
            let own = format!("{}{key}", keys::OWN_FIELD);
            self.entries.f32(&self.key(key), &own, value);
        }
        Ok(())
    }

    fn flag(&mut self, key: &Key, value: &mut Option<bool>) -> Result<()> {
        if let (Some(key), Some(value)) = (key.gguf, *value) {
            self.entries.boolean(&self.key(key), value);
        }
        Ok(())
    }

    fn flags(&mut self, key: &Key, value: &mut Option<Vec<bool>>) -> Result<()> {
        if let (Some(key), Some(flags)) = (key.gguf, value) {
            self.entries.booleans(&self.key(key), flags);
        }
        Ok(())
    }

    fn numbers(&mut self, key: &Key, value: &mut Option<Vec<usize>>) -> Result<()> {
        match (key.gguf, value) {
            (Some(key), Some(numbers)) => self.entries.u32s(&self.key(key), numbers),
            _ => Ok(()),
        }
    }

    fn other_mixers(&mut self, _: &'static str, _: &mut Option<Vec<bool>>) -> Result<()> {
        Ok(())
    }

    fn kv_heads(&mut self, value: &mut Option<Vec<usize>>) -> Result<()> {
        match value {
            Some(heads) => self.entries.u32s(&self.key(keys::HEAD_COUNT_KV), heads),
            None => Ok(()),
        }
    }

    fn sliding_layers(&mut self, value: &mut Vec<bool>, stored: bool) -> Result<()> {
        if stored && value.contains(&true) {
            self.entries.booleans(&self.key(keys::SLIDING_PATTERN), value);
        }
        Ok(())
    }

    fn sliding_rope(&mut self, value: &mut Option<Rope>) -> Result<()> {
        let Some(rope) = value else { return Ok(()) };
        let own = format!("{}{}", keys::OWN_FIELD, keys::ROPE_BASE_SLIDING);
        self.entries.f32(&self.key(keys::ROPE_BASE_SLIDING), &own, rope.theta);
        if rope.scaling.is_none() {
            return Ok(());
        }
        Err(Error::Unsupported {
            file: FORMAT.into(),
            name: "rope_parameters".into(),
            reason: "GGUF has no place for a scaling in layers with a sliding window".into(),
            offset: None,
        })
    }

    fn head_dims(&mut self, _: &[bool], value: &mut [usize; 2]) -> Result<()> {
        for key in
            [keys::KEY_LENGTH_SLIDING, keys::VALUE_LENGTH_SLIDING, keys::ROPE_DIMENSIONS_SLIDING]
        {
            self.entries.u32(&self.key(key), value[0])?;
        }
        Ok(())
    }

    fn has_tensor(&self, _: &str) -> Option<bool> {
        None
    }

    fn refuse(&self, key: &Key, reason: String) -> Error {
        let name = key.config.first().copied().or(key.gguf).unwrap_or_default();
        Error::Unsupported { file: FORMAT.into(), name: name.into(), reason, offset: None }
    }
}
