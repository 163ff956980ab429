//! Metadata of a Llama in GGUF to [`Architecture`]. Every size is capped; a key that would change
//! the maths is refused by name.

use super::metadata::{Metadata, Value};
use super::names::{EMBEDDING_GGUF, HEAD_GGUF};
use super::{Container, caps, keys, rope_factors};
use crate::architecture::Architecture;
use crate::error::{Error, Result};

/// llama.cpp's default where a file gives no base.
const DEFAULT_ROPE_BASE: f64 = 10_000.0;

pub fn read(container: &Container) -> Result<Architecture> {
    let metadata = &container.metadata;
    check_family(metadata)?;
    let size = |key, cap| metadata.integer(key, 1..=cap);
    let required =
        |key, cap| size(key, cap).and_then(|v| metadata.required(key, v)).map(|v| v as usize);
    let hidden_size = required(keys::EMBEDDING_LENGTH, caps::WIDTH)?;
    let heads = required(keys::HEAD_COUNT, caps::WIDTH)?;
    let kv_heads = size(keys::HEAD_COUNT_KV, caps::WIDTH)?.map_or(heads, |n| n as usize);
    if !heads.is_multiple_of(kv_heads) {
        return Err(metadata.error(
            keys::HEAD_COUNT_KV,
            format!("is {kv_heads}, which does not divide the {heads} heads"),
        ));
    }
    let head_dim = read_head_dim(metadata, hidden_size, heads)?;
    let rope_theta =
        read_positive(metadata, keys::ROPE_BASE, keys::OWN_ROPE_BASE)?.unwrap_or(DEFAULT_ROPE_BASE);
    let norm_eps = read_positive(metadata, keys::NORM_EPSILON, keys::OWN_NORM_EPSILON)?;
    Ok(Architecture {
        vocab_size: read_vocab_size(container)?,
        hidden_size,
        intermediate_size: required(keys::FEED_FORWARD_LENGTH, caps::INTERMEDIATE)?,
        layers: required(keys::BLOCK_COUNT, caps::LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        norm_eps: metadata.required(keys::NORM_EPSILON, norm_eps)?,
        rope_theta,
        rope_scaling: rope_factors::read(container, head_dim, rope_theta)?,
        tied_head: !container.tensors.contains_key(HEAD_GGUF),
        max_positions: required(keys::CONTEXT_LENGTH, caps::POSITIONS)?,
    })
}

fn check_family(metadata: &Metadata) -> Result<()> {
    let unsupported = |name: String, reason: &str| Error::Unsupported {
        file: metadata.file.into(),
        name,
        reason: reason.into(),
    };
    let architecture = metadata.string(keys::ARCHITECTURE)?;
    let architecture = metadata.required(keys::ARCHITECTURE, architecture)?;
    if architecture != keys::LLAMA {
        return Err(unsupported(
            format!("architecture {architecture:?}"),
            "the Llama family is read (general.architecture = \"llama\")",
        ));
    }
    for &(key, neutral) in keys::MUST_BE_NEUTRAL {
        let value = match metadata.get(key).map(|e| e.value) {
            None => continue,
            Some(Value::Integer(i)) => i as f64,
            Some(Value::Float(f)) => f,
            Some(Value::Bool(b)) => f64::from(u8::from(b)),
            Some(_) => return Err(metadata.error(key, "must be a number")),
        };
        if value != neutral && value != 0.0 {
            return Err(unsupported(
                key.into(),
                &format!("its value {value} changes the computation"),
            ));
        }
    }
    // llama.cpp takes a factor without a type for a linear one.
    let scaling = metadata.string(keys::ROPE_SCALING_TYPE)?.unwrap_or("linear");
    for key in [keys::ROPE_SCALING_FACTOR, keys::ROPE_SCALE_LINEAR] {
        let factor = metadata.float(key)?.unwrap_or(0.0);
        if factor != 0.0 && factor != 1.0 && scaling != "none" || factor.is_nan() {
            return Err(unsupported(
                format!("rope scaling {scaling:?}"),
                "llama3 scaling (rope_freqs.weight) is the one that is read",
            ));
        }
    }
    if !["none", "linear"].contains(&scaling) {
        return Err(unsupported(
            format!("rope scaling {scaling:?}"),
            "llama3 scaling (rope_freqs.weight) is the one that is read",
        ));
    }
    Ok(())
}

/// Head width: key and value length, else hidden size over heads; rotary over the whole head.
fn read_head_dim(metadata: &Metadata, hidden_size: usize, heads: usize) -> Result<usize> {
    let head_dim = match metadata.integer(keys::KEY_LENGTH, 1..=caps::WIDTH)? {
        Some(length) => length as usize,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(metadata.error(
                keys::HEAD_COUNT,
                format!("is {heads}, which does not divide the hidden size {hidden_size}"),
            ));
        }
    };
    if heads as u64 * head_dim as u64 > caps::WIDTH {
        return Err(metadata.error(
            keys::HEAD_COUNT,
            format!("is {heads}: heads of {head_dim} elements would be wider than {}", caps::WIDTH),
        ));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(metadata.error(
            keys::HEAD_COUNT,
            format!("gives heads of {head_dim} elements; rotary pairs need an even number"),
        ));
    }
    for key in [keys::VALUE_LENGTH, keys::ROPE_DIMENSIONS] {
        match metadata.integer(key, 0..=caps::WIDTH)? {
            Some(length) if length as usize != head_dim => {
                let reason = format!("its value {length} differs from the head width {head_dim}");
                return Err(Error::Unsupported {
                    file: metadata.file.into(),
                    name: key.into(),
                    reason,
                });
            }
            _ => {}
        }
    }
    Ok(head_dim)
}

/// A positive number from the standard f32 key, or from ours if that holds it more exactly; ours
/// must round to the standard one.
fn read_positive(metadata: &Metadata, key: &str, own: &str) -> Result<Option<f64>> {
    let Some(standard) = metadata.float(key)? else { return Ok(None) };
    if !(standard.is_finite() && standard > 0.0) {
        return Err(metadata.error(key, format!("is {standard}, not a positive number")));
    }
    match metadata.float(own)? {
        Some(exact) if exact as f32 != standard as f32 => {
            Err(metadata.error(own, format!("is {exact}, but {key} is {standard}")))
        }
        exact => Ok(exact.or(Some(standard))),
    }
}

/// Rows of the embedding; the declared vocabulary, if there is one, must agree.
fn read_vocab_size(container: &Container) -> Result<usize> {
    let metadata = &container.metadata;
    let Some(embedding) = container.tensors.get(EMBEDDING_GGUF) else {
        return Err(Error::MissingTensor {
            file: metadata.file.into(),
            tensor: EMBEDDING_GGUF.into(),
        });
    };
    let rows = embedding.dimensions().get(1).copied().unwrap_or(1);
    if rows as u64 > caps::VOCABULARY {
        return Err(super::metadata::error_at(
            metadata.file,
            embedding.described_at,
            format!("vocabulary of {rows}, more than {}", caps::VOCABULARY),
        ));
    }
    match metadata.integer(keys::VOCAB_SIZE, 1..=caps::VOCABULARY)? {
        Some(declared) if declared as usize != rows => Err(metadata.error(
            keys::VOCAB_SIZE,
            format!("is {declared}, but {EMBEDDING_GGUF} has {rows} rows"),
        )),
        _ => Ok(rows),
    }
}
