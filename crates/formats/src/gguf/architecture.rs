//! Metadata of a decoder in GGUF to [`Architecture`]. Every size is capped; a key that would change
//! the maths is refused by name.

use super::metadata::{Metadata, Value};
use super::{Container, caps, keys, rope_factors};
use crate::architecture::family::{self, EMBEDDING_GGUF, Family, HEAD_GGUF};
use crate::architecture::{Architecture, Sizes};
use crate::error::{Error, Result};

/// llama.cpp's default where a file gives no base.
const DEFAULT_ROPE_BASE: f64 = 10_000.0;

pub fn read(container: &Container) -> Result<Architecture> {
    let metadata = &container.metadata;
    let family = read_family(metadata)?;
    let keys = Keys { metadata, family: family.name() };
    keys.check_maths()?;
    let hidden_size = keys.required(keys::EMBEDDING_LENGTH, caps::WIDTH)?;
    let heads = keys.required(keys::HEAD_COUNT, caps::WIDTH)?;
    let kv_heads = keys.size(keys::HEAD_COUNT_KV, caps::WIDTH)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.error(
            keys::HEAD_COUNT_KV,
            format!("is {kv_heads}, which does not divide the {heads} heads"),
        ));
    }
    let head_dim = keys.head_dim(hidden_size, heads)?;
    let rope_theta =
        keys.positive(keys::ROPE_BASE, keys::OWN_ROPE_BASE)?.unwrap_or(DEFAULT_ROPE_BASE);
    let norm_eps = keys.positive(keys::NORM_EPSILON, keys::OWN_NORM_EPSILON)?;
    Ok(family.graph(&Sizes {
        vocab_size: keys.vocab_size(container)?,
        hidden_size,
        intermediate_size: keys.required(keys::FEED_FORWARD_LENGTH, caps::INTERMEDIATE)?,
        layers: keys.required(keys::BLOCK_COUNT, caps::LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        norm_eps: metadata.required(&keys.of(keys::NORM_EPSILON), norm_eps)?,
        rope_theta,
        rope_scaling: rope_factors::read(container, head_dim, rope_theta)?,
        tied_head: !container.tensors.contains_key(HEAD_GGUF),
        max_positions: keys.required(keys::CONTEXT_LENGTH, caps::POSITIONS)?,
    }))
}

/// The family that `general.architecture` names.
fn read_family(metadata: &Metadata) -> Result<&'static dyn Family> {
    let architecture = metadata.string(keys::ARCHITECTURE)?;
    let architecture = metadata.required(keys::ARCHITECTURE, architecture)?;
    family::find(|family| family.name() == architecture).ok_or_else(|| Error::Unsupported {
        file: metadata.file.into(),
        name: format!("architecture {architecture:?}"),
        reason: format!("the architectures read here are {}", family::listed()),
    })
}

/// The metadata below the name of an architecture.
struct Keys<'a> {
    metadata: &'a Metadata<'a>,
    family: &'static str,
}

impl Keys<'_> {
    fn of(&self, key: &str) -> String {
        keys::of(self.family, key)
    }

    fn error(&self, key: &str, reason: String) -> Error {
        self.metadata.error(&self.of(key), reason)
    }

    fn unsupported(&self, name: String, reason: impl Into<String>) -> Error {
        Error::Unsupported { file: self.metadata.file.into(), name, reason: reason.into() }
    }

    fn size(&self, key: &str, cap: u64) -> Result<Option<usize>> {
        let (key, per_layer) = (self.of(key), keys::PER_LAYER.contains(&key));
        let read = if per_layer { Metadata::uniform_integer } else { Metadata::integer };
        Ok(read(self.metadata, &key, 1..=cap)?.map(|size| size as usize))
    }

    fn required(&self, key: &str, cap: u64) -> Result<usize> {
        self.size(key, cap).and_then(|size| self.metadata.required(&self.of(key), size))
    }

    /// Refuses keys whose values change what is computed.
    fn check_maths(&self) -> Result<()> {
        for &(key, neutral) in keys::MUST_BE_NEUTRAL {
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
        // llama.cpp takes a factor without a type for a linear one.
        let kind = self.of(keys::ROPE_SCALING_TYPE);
        let scaling = self.metadata.string(&kind)?.unwrap_or("linear");
        let mut changes = !["none", "linear"].contains(&scaling);
        for key in [keys::ROPE_SCALING_FACTOR, keys::ROPE_SCALE_LINEAR] {
            let factor = self.metadata.float(&self.of(key))?.unwrap_or(0.0);
            changes |= factor != 0.0 && factor != 1.0 && scaling != "none" || factor.is_nan();
        }
        if changes {
            return Err(self.unsupported(
                format!("rope scaling {scaling:?}"),
                "llama3 scaling (rope_freqs.weight) is the one that is read",
            ));
        }
        Ok(())
    }

    /// Head width: key and value length, else hidden size over heads; rotary over the whole head.
    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize> {
        let head_dim = match self.size(keys::KEY_LENGTH, caps::WIDTH)? {
            Some(length) => length,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(self.error(
                    keys::HEAD_COUNT,
                    format!("is {heads}, which does not divide the hidden size {hidden_size}"),
                ));
            }
        };
        if heads as u64 * head_dim as u64 > caps::WIDTH {
            return Err(self.error(
                keys::HEAD_COUNT,
                format!(
                    "is {heads}: heads of {head_dim} elements would be wider than {}",
                    caps::WIDTH
                ),
            ));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(self.error(
                keys::HEAD_COUNT,
                format!("gives heads of {head_dim} elements; rotary pairs need an even number"),
            ));
        }
        for key in [keys::VALUE_LENGTH, keys::ROPE_DIMENSIONS] {
            match self.metadata.integer(&self.of(key), 0..=caps::WIDTH)? {
                Some(length) if length as usize != head_dim => {
                    let reason =
                        format!("its value {length} differs from the head width {head_dim}");
                    return Err(self.unsupported(self.of(key), reason));
                }
                _ => {}
            }
        }
        Ok(head_dim)
    }

    /// A positive number from the standard f32 key, or from ours if that holds it more exactly;
    /// ours must round to the standard one.
    fn positive(&self, key: &str, own: &str) -> Result<Option<f64>> {
        let Some(standard) = self.metadata.float(&self.of(key))? else { return Ok(None) };
        if !(standard.is_finite() && standard > 0.0) {
            return Err(self.error(key, format!("is {standard}, not a positive number")));
        }
        match self.metadata.float(own)? {
            Some(exact) if exact as f32 != standard as f32 => Err(self
                .metadata
                .error(own, format!("is {exact}, but {} is {standard}", self.of(key)))),
            exact => Ok(exact.or(Some(standard))),
        }
    }

    /// Rows of the embedding; the declared vocabulary, if there is one, must agree.
    fn vocab_size(&self, container: &Container) -> Result<usize> {
        let file = self.metadata.file;
        let Some(embedding) = container.tensors.get(EMBEDDING_GGUF) else {
            return Err(Error::MissingTensor { file: file.into(), tensor: EMBEDDING_GGUF.into() });
        };
        let rows = embedding.dimensions().get(1).copied().unwrap_or(1);
        if rows as u64 > caps::VOCABULARY {
            return Err(super::metadata::error_at(
                file,
                embedding.described_at,
                format!("vocabulary of {rows}, more than {}", caps::VOCABULARY),
            ));
        }
        match self.size(keys::VOCAB_SIZE, caps::VOCABULARY)? {
            Some(declared) if declared != rows => Err(self.error(
                keys::VOCAB_SIZE,
                format!("is {declared}, but {EMBEDDING_GGUF} has {rows} rows"),
            )),
            _ => Ok(rows),
        }
    }
}
