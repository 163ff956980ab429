//! A GGUF file to a [`Model`].

use super::metadata::{Carried, Metadata, Value, error_at};
use super::names::{NamedSpec, ROPE_FACTORS, named_specs};
use super::permute::{gather_rows, gguf_row};
use super::{Container, GgmlType, TensorInfo, architecture, caps, keys, quantization, vocabulary};
use crate::blocks::packed;
use crate::error::{Error, Result};
use crate::model::{Model, Tensor, TensorData};
use half::{bf16, f16};
use halfstep_kernels::quant::tensor::QuantTensor;
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
    let specs = named_specs(&architecture);
    check_tensors(&container, architecture.family, &specs)?;
    let chat_template = read_chat_template(metadata)?;
    let provenance = read_provenance(metadata)?;
    let tokenizer = vocabulary::read_tokenizer(metadata, architecture.vocab_size)?;
    let warnings = tokenizer.as_ref().map_or_else(Vec::new, |t| t.warnings.clone());
    let mut tensors = BTreeMap::new();
    for named in specs {
        let tensor = read_tensor(file, &named, &container.tensors[named.gguf.as_str()])?;
        tensors.insert(named.spec.name, tensor);
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
        warnings,
        carried: read_carried(metadata),
    })
}

/// What nothing here interprets; sizes of the architecture and places in split files are not that.
fn read_carried(metadata: &Metadata) -> BTreeMap<String, Carried> {
    let free = |key: &str| {
        (key.starts_with("general.") || key.starts_with("tokenizer."))
            && !keys::INTERPRETED.contains(&key)
    };
    let entries = metadata.entries.iter().filter(|(key, _)| free(key));
    entries.map(|(key, entry)| (key.to_string(), entry.carried())).collect()
}

fn stem(file: &str) -> String {
    std::path::Path::new(file)
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Every tensor of the architecture is there with its shape, and no other.
fn check_tensors(container: &Container, family: &str, specs: &[NamedSpec]) -> Result<()> {
    let file = container.metadata.file;
    let mut known = BTreeSet::from([ROPE_FACTORS]);
    for NamedSpec { gguf, spec, .. } in specs {
        let Some(info) = container.tensors.get(gguf.as_str()) else {
            return Err(Error::MissingTensor { file: file.into(), tensor: gguf.clone() });
        };
        if info.shape() != spec.shape {
            return Err(Error::Shape {
                file: file.into(),
                tensor: gguf.clone(),
                expected: spec.shape.clone(),
                got: info.shape(),
            });
        }
        if spec.role.is_vector() && !info.kind.is_float() {
            return Err(error_at(
                file,
                info.described_at,
                format!("{gguf} is {}, not a float type", info.kind.name()),
            ));
        }
        known.insert(gguf);
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
        .filter(|(key, _)| key.starts_with(keys::OWN_PREFIX) && !keys::OWN_RESERVED.contains(*key));
    own.map(|(key, entry)| match entry.value {
        Value::String(value) => Ok((key[keys::OWN_PREFIX.len()..].to_owned(), value.to_owned())),
        _ => Err(metadata.error(key, "must be a string")),
    })
    .collect()
}

fn read_tensor(file: &str, named: &NamedSpec, info: &TensorInfo) -> Result<Tensor> {
    let shape = named.spec.shape.clone();
    let (rows, cols) = if let [rows, cols] = shape[..] { (rows, cols) } else { (1, shape[0]) };
    let bytes = info.bytes();
    let numbers = |bytes: &[u8], size: usize| reserve(file, &named.gguf, bytes.len() / size * size);
    let data = match info.kind {
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
            reserve(file, &named.gguf, 2 * bytes.len())?;
            match packed::unpack(kind, rows, cols, bytes) {
                Some(matrix) => TensorData::Packed(matrix),
                None => TensorData::Blocks { kind, bytes: bytes.to_vec() },
            }
        }
    };
    let data = match named.permuted_heads {
        // The rows of a bias are its elements.
        Some(heads) => permute(data, shape[0], gguf_row(shape[0], heads)),
        None => data,
    };
    Ok(Tensor { shape, data })
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

/// Rows in another order: row r of the result is row `source(r)`.
pub(super) fn permute(
    data: TensorData,
    rows: usize,
    source: impl Fn(usize) -> usize,
) -> TensorData {
    match data {
        TensorData::F32(v) => TensorData::F32(gather_rows(&v, v.len() / rows, source)),
        TensorData::F16(v) => TensorData::F16(gather_rows(&v, v.len() / rows, source)),
        TensorData::BF16(v) => TensorData::BF16(gather_rows(&v, v.len() / rows, source)),
        TensorData::Blocks { kind, bytes } => {
            TensorData::Blocks { kind, bytes: gather_rows(&bytes, bytes.len() / rows, source) }
        }
        TensorData::Packed(m) => {
            let codes = gather_rows(&m.codes, m.codes.len() / rows, &source);
            let scales = gather_rows(&m.scales, m.scales.len() / rows, &source);
            let zero_points = gather_rows(&m.zero_points, m.zero_points.len() / rows, &source);
            TensorData::Packed(QuantTensor { codes, scales, zero_points, ..m })
        }
    }
}
