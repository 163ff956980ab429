//! Metadata of a decoder in GGUF to [`Architecture`]. Every size is capped; a key that would change
//! the maths is refused by name.

use super::fields::{Keys, Reader};
use super::metadata::{Metadata, Value};
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
    let blocks = keys.required(keys::BLOCK_COUNT, caps::LAYERS)?;
    let beyond = prediction_layers(&keys, family, blocks)?;
    let layers = blocks - beyond;
    let heads = keys.required(keys::HEAD_COUNT, caps::WIDTH)?;
    let kv_heads = keys.kv_heads(family)?.unwrap_or(heads);
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
    let widths = keys.sizes(keys::FEED_FORWARD_LENGTH, blocks, caps::INTERMEDIATE)?;
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
    let (claimed, layers) = (BTreeSet::new(), [layers, beyond]);
    let mut reader = Reader { keys: &keys, container, claimed, layers };
    family.describe(&mut reader, &mut graph)?;
    keys.check_maths(&reader.claimed)?;
    Ok(graph)
}

/// Layers after those of the text model, which predict several tokens at once.
fn prediction_layers(keys: &Keys, family: &dyn Family, blocks: usize) -> Result<usize> {
    if !family.has_prediction_layers() {
        return Ok(0);
    }
    let key = keys.of(keys::PREDICTION_LAYERS);
    let beyond = keys.metadata.integer(&key, 0..=caps::LAYERS)?.unwrap_or(0) as usize;
    match beyond < blocks {
        true => Ok(beyond),
        false => {
            let reason = format!("is {beyond} of {blocks} layers, and none is left");
            Err(keys.error(keys::PREDICTION_LAYERS, reason))
        }
    }
}

/// The tensors of layers that predict several tokens at once, and the number of those layers.
pub(super) fn beyond<'a>(container: &Container<'a>) -> (Vec<&'a str>, usize) {
    let count = || {
        let (family, architecture) = read_family(&container.metadata)?;
        let keys = Keys { metadata: &container.metadata, architecture };
        let blocks = keys.required(keys::BLOCK_COUNT, caps::LAYERS)?;
        Ok::<_, Error>((blocks, prediction_layers(&keys, family, blocks)?))
    };
    // What is wrong with the metadata is said elsewhere.
    let (blocks, beyond) = count().unwrap_or_default();
    let is_beyond = |name: &&str| {
        let number = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let number = number.and_then(|(number, _)| number.parse().ok());
        number.is_some_and(|number| (blocks - beyond..blocks).contains(&number))
    };
    (container.tensors.keys().copied().filter(is_beyond).collect(), beyond)
}

/// The family that `general.architecture` names, and that name.
fn read_family<'a>(metadata: &Metadata<'a>) -> Result<(&'static dyn Family, &'a str)> {
    if metadata.get(keys::ADAPTER_TYPE).is_some() {
        return Err(Error::Unsupported {
            file: metadata.file.into(),
            name: "an adapter".into(),
            reason: "it holds only what is added to a model: merge it (llama.cpp's \
                     llama-export-lora) and load the merged file"
                .into(),
            offset: None,
        });
    }
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
        offset: None,
    })?;
    Ok((family, architecture))
}

impl Keys<'_> {
    /// The number of key/value heads, which all layers with attention share.
    fn kv_heads(&self, family: &dyn Family) -> Result<Option<usize>> {
        let array = self.metadata.get(&self.of(keys::HEAD_COUNT_KV)).map(|entry| entry.value);
        let (true, Some(Value::Array(array))) = (family.counts_heads_by_layer(), array) else {
            return self.size(keys::HEAD_COUNT_KV, caps::WIDTH);
        };
        let mut values = array.iter().map(|(_, value)| value).filter(|v| *v != Value::Integer(0));
        let Some(first) = values.next() else {
            let reason = "is 0 in every layer, and one must have attention".into();
            return Err(self.error(keys::HEAD_COUNT_KV, reason));
        };
        match first {
            Value::Integer(heads) if (1..=i128::from(caps::WIDTH)).contains(&heads) => {
                if values.all(|value| value == first) {
                    return Ok(Some(heads as usize));
                }
                let reason = "must be the same in all layers with attention".into();
                Err(self.error(keys::HEAD_COUNT_KV, reason))
            }
            _ => {
                let reason = format!("must hold numbers from 0 to {}", caps::WIDTH);
                Err(self.error(keys::HEAD_COUNT_KV, reason))
            }
        }
    }

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
            return Err(Error::MissingTensor {
                file: file.into(),
                tensor: EMBEDDING_GGUF.into(),
                offset: None,
            });
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
