//! Metadata of a decoder in GGUF to [`Architecture`]. Every size is capped; a key that would change
//! the maths is refused by name.

use super::fields::{Keys, Reader};
use super::metadata::Metadata;
use super::{Container, caps, keys, rope};
use crate::architecture::family::{self, Family};
use crate::architecture::refused;
use crate::architecture::storage::{EMBEDDING_GGUF, HEAD_GGUF};
use crate::architecture::{Architecture, FeedForward, NormKind, Sizes};
use crate::error::{Error, Result};
use std::collections::BTreeSet;

pub fn read(container: &Container) -> Result<Architecture> {
    let metadata = &container.metadata;
    let (family, name) = read_family(metadata)?;
    let keys = Keys { metadata, architecture: name };
    let hidden_size = keys.required(keys::EMBEDDING_LENGTH, caps::WIDTH)?;
    let layers = keys.required(keys::BLOCK_COUNT, caps::LAYERS)?;
    let heads = keys.required(keys::HEAD_COUNT, caps::WIDTH)?;
    let kv_heads = keys.size(keys::HEAD_COUNT_KV, caps::WIDTH)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.error(
            keys::HEAD_COUNT_KV,
            format!("is {kv_heads}, which does not divide the {heads} heads"),
        ));
    }
    let head_dim = keys.head_dim(hidden_size, heads)?;
    let epsilon = match family.norm_kind() {
        NormKind::Rms => keys::NORM_EPSILON,
        NormKind::Layer => keys::LAYER_NORM_EPSILON,
    };
    let norm_eps = keys.positive(epsilon, keys::OWN_NORM_EPSILON)?;
    let vocab_size = keys.vocab_size(container)?;
    let rope = rope::read(container, &keys, family, head_dim)?;
    let widths = keys.sizes(keys::FEED_FORWARD_LENGTH, layers, caps::INTERMEDIATE)?;
    let widths = metadata.required(&keys.of(keys::FEED_FORWARD_LENGTH), widths)?;
    let mut graph = Sizes {
        vocab_size,
        hidden_size,
        intermediate_size: widths[0],
        layers,
        heads,
        kv_heads,
        head_dim,
        norm_eps: metadata.required(&keys.of(epsilon), norm_eps)?,
        rope_theta: rope.theta,
        rope_scaling: None,
        tied_head: !container.tensors.contains_key(HEAD_GGUF),
        max_positions: keys.required(keys::CONTEXT_LENGTH, caps::POSITIONS)?,
    }
    .decoder(family.name());
    // The weights of norms are whole in GGUF.
    graph.norm.offset = 0.0;
    graph.attentions_mut().for_each(|a| a.rope = Some(rope.clone()));
    for (layer, width) in graph.layers.iter_mut().zip(widths) {
        if let FeedForward::Dense(dense) = &mut layer.feed_forward {
            dense.intermediate_size = width;
        }
    }
    let mut reader = Reader { keys: &keys, container, claimed: BTreeSet::new() };
    family.describe(&mut reader, &mut graph)?;
    keys.check_maths(&reader.claimed)?;
    Ok(graph)
}

/// The family that `general.architecture` names, and that name.
fn read_family<'a>(metadata: &Metadata<'a>) -> Result<(&'static dyn Family, &'a str)> {
    let architecture = metadata.string(keys::ARCHITECTURE)?;
    let architecture = metadata.required(keys::ARCHITECTURE, architecture)?;
    let has = |key: &str| metadata.get(&keys::of(architecture, key)).is_some();
    let is = |family: &dyn Family| {
        family.gguf_architecture() == Some(architecture) && family.is_gguf(&has)
    };
    let family = family::find(is).ok_or_else(|| Error::Unsupported {
        file: metadata.file.into(),
        name: format!("architecture {architecture:?}"),
        reason: refused::in_gguf(architecture).map_or_else(
            || format!("the architectures read here are {}", family::listed()),
            str::to_string,
        ),
    })?;
    Ok((family, architecture))
}

impl Keys<'_> {
    /// Head width: key and value length, else hidden size over heads.
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
        match self.metadata.integer(&self.of(keys::VALUE_LENGTH), 0..=caps::WIDTH)? {
            Some(length) if length as usize != head_dim => {
                let reason = format!("its value {length} differs from the head width {head_dim}");
                Err(self.unsupported(self.of(keys::VALUE_LENGTH), reason))
            }
            _ => Ok(head_dim),
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
