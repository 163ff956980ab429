//! A GGUF file to a [`Model`].

use super::metadata::{Metadata, Value, error_at};
use super::rope;
use super::{Container, GgmlType, TensorInfo, architecture, caps, keys, quantization, vocabulary};
use crate::architecture::fields::Form;
use crate::architecture::storage::{self, Stored};
use crate::blocks::packed;
use crate::error::{Error, Result};
use crate::model::{Model, TensorData};
use half::{bf16, f16};
use std::collections::{BTreeMap, BTreeSet};

/// Reads a model from the bytes of a GGUF file, v2 or v3; errors name `file`.
///
/// Errors: `Format` (byte and reason), `Unsupported` (what it is by its own name), `MissingTensor`,
/// `Shape`, `Tokenizer`, `Memory`. Nothing is allocated for a tensor before its description, its
/// bytes and its shape have been checked.
pub fn read(file: &str, bytes: &[u8]) -> Result<Model> {
    let container = Container::parse(file, bytes)?;
    let metadata = &container.metadata;
    let architecture = architecture::read(&container)?;
    let stored = storage::stored(&architecture, Form::Gguf);
    check_tensors(&container, architecture.family, &stored)?;
    let chat_template = read_chat_template(metadata)?;
    let provenance = read_provenance(metadata)?;
    let tokenizer = vocabulary::read_tokenizer(metadata, architecture.vocab_size)?;
    let mut tensors = BTreeMap::new();
    for stored in stored {
        let data = read_tensor(file, &stored, &container.tensors[stored.name.as_str()])?;
        stored.take(file, data, &mut tensors)?;
    }
    let quantization = quantization::read(metadata, &architecture, &tensors)?;
    let name = metadata.string(keys::NAME)?.map_or_else(|| stem(file), str::to_owned);
    let (low_rank, file_bytes) = (BTreeMap::new(), bytes.len() as u64);
    Ok(Model {
        name,
        architecture,
        tensors,
        low_rank,
        linear_parts: BTreeMap::new(),
        tokenizer,
        chat_template,
        quantization,
        provenance,
        file_bytes,
    })
}

fn stem(file: &str) -> String {
    std::path::Path::new(file)
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Every tensor of the architecture is there with its shape, and no other.
fn check_tensors(container: &Container, family: &str, all: &[Stored]) -> Result<()> {
    let file = container.metadata.file;
    let mut known = BTreeSet::from(rope::TENSORS);
    for stored in all {
        let name = stored.name.as_str();
        let Some(info) = container.tensors.get(name) else {
            return Err(Error::MissingTensor { file: file.into(), tensor: name.into() });
        };
        if info.shape() != stored.shape {
            return Err(Error::Shape {
                file: file.into(),
                tensor: name.into(),
                expected: stored.shape.clone(),
                got: info.shape(),
            });
        }
        let is_vector = stored.pieces.iter().any(|piece| piece.tensor.role.is_vector());
        if is_vector && !info.kind.is_float() {
            return Err(error_at(
                file,
                info.described_at,
                format!("{name} is {}, not a float type", info.kind.name()),
            ));
        }
        known.insert(name);
    }
    match container.tensors.iter().find(|(name, _)| !known.contains(*name)) {
        Some((name, info)) => {
            let reason = format!(
                "the architecture {family} with this metadata has no such tensor (described at \
                 byte {})",
                info.described_at
            );
            Err(Error::Unsupported { file: file.into(), name: format!("tensor {name}"), reason })
        }
        None => Ok(()),
    }
}

fn read_chat_template(metadata: &Metadata) -> Result<Option<String>> {
    match metadata.string(keys::CHAT_TEMPLATE)? {
        Some(t) if t.len() as u64 > caps::CHAT_TEMPLATE_BYTES => Err(metadata.error(
            keys::CHAT_TEMPLATE,
            format!("has {} bytes, more than {}", t.len(), caps::CHAT_TEMPLATE_BYTES),
        )),
        template => Ok(template.map(str::to_owned)),
    }
}

fn read_provenance(metadata: &Metadata) -> Result<BTreeMap<String, String>> {
    let own = metadata
        .entries
        .iter()
        .filter(|(key, _)| key.starts_with(keys::OWN_PREFIX) && !keys::is_reserved(key));
    own.map(|(key, entry)| match entry.value {
        Value::String(value) => Ok((key[keys::OWN_PREFIX.len()..].to_owned(), value.to_owned())),
        _ => Err(metadata.error(key, "must be a string")),
    })
    .collect()
}

/// The values of a tensor of the file, all of its rows.
fn read_tensor(file: &str, stored: &Stored, info: &TensorInfo) -> Result<TensorData> {
    let (rows, cols) = (stored.rows(), stored.cols());
    let bytes = info.bytes();
    let numbers =
        |bytes: &[u8], size: usize| reserve(file, &stored.name, bytes.len() / size * size);
    Ok(match info.kind {
        GgmlType::F32 => {
            numbers(bytes, 4)?;
            TensorData::F32(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
        }
        GgmlType::F16 => {
            numbers(bytes, 2)?;
            TensorData::F16(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b)).collect())
        }
        GgmlType::BF16 => {
            numbers(bytes, 2)?;
            TensorData::BF16(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b)).collect())
        }
        kind => {
            reserve(file, &stored.name, 2 * bytes.len())?;
            match packed::unpack(kind, rows, cols, bytes) {
                Some(matrix) => TensorData::Packed(matrix),
                None => TensorData::Blocks { kind, bytes: bytes.to_vec() },
            }
        }
    })
}

/// Checks that memory can be allocated, and frees it again: an allocation that fails after this is
/// a race and not caused by the file.
fn reserve(file: &str, tensor: &str, bytes: usize) -> Result<()> {
    let failed = |_| Error::Memory {
        file: file.into(),
        what: format!("tensor {tensor}"),
        bytes: bytes as u64,
        cap: isize::MAX as u64,
    };
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(failed)
}
