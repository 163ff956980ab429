//! A GGUF file to a [`Model`].

use super::container::OtherTypes;
use super::metadata::{Metadata, Value, error_at};
use super::names::{NamedSpec, ROPE_FACTORS, named_specs};
use super::permute::{gather_rows, gguf_row};
use super::{
    Container, Files, GgmlType, TensorInfo, architecture, caps, keys, quantization, vocabulary,
};
use crate::architecture::Architecture;
use crate::blocks::packed;
use crate::error::{Error, Result};
use crate::model::{Model, Tensor, TensorData};
use crate::numbered::Numbered;
use crate::source::Source;
use crate::tokenizer::Tokenizer;
use half::vec::HalfBitsVecExt;
use halfstep_kernels::quant::tensor::QuantTensor;
use std::collections::{BTreeMap, BTreeSet};

/// Reads a model from the bytes of a GGUF file, v2 or v3; errors name `file`.
///
/// Errors: `Format` (byte and reason), `Unsupported` (what it is by its own name), `MissingTensor`,
/// `Shape`, `Tokenizer`, `Memory`. Nothing is allocated for a tensor before its description, its
/// bytes and its shape have been checked.
pub fn read(file: &str, bytes: &[u8]) -> Result<Model> {
    read_files(Files::one(Source::memory(file, bytes), OtherTypes::Refuse)?)
}

/// The same from files, of which one tensor after the other is read.
pub(crate) fn read_files(mut files: Files) -> Result<Model> {
    let file_bytes = files.length();
    let (sources, beginnings, others) = files.parts();
    let mut attached = vec![];
    let container = Files::container(sources, beginnings, others, &mut attached)?;
    let Plan { name, architecture, specs, tokenizer, chat_template, provenance, warnings } =
        plan(&container)?;
    let mut tensors = BTreeMap::new();
    for named in specs {
        let info = &container.tensors[named.gguf.as_str()];
        let tensor = read_tensor(&named, info, &mut sources[info.part])?;
        tensors.insert(named.spec.name, tensor);
    }
    let quantization = quantization::read(&container.metadata, &architecture, &tensors)?;
    Ok(Model {
        name,
        architecture,
        tensors,
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        tokenizer,
        chat_template,
        quantization,
        provenance,
        file_bytes,
        warnings,
    })
}

/// Everything of a model but the values of its tensors, whose descriptions are checked.
pub(super) struct Plan {
    pub name: String,
    pub architecture: Architecture,
    pub specs: Vec<NamedSpec>,
    pub tokenizer: Option<Tokenizer>,
    pub chat_template: Option<String>,
    pub provenance: BTreeMap<String, String>,
    pub warnings: Vec<String>,
}

/// Checks all that can be checked without reading a tensor.
pub(super) fn plan(container: &Container) -> Result<Plan> {
    let metadata = &container.metadata;
    let architecture = architecture::read(container)?;
    let specs = named_specs(&architecture);
    check_tensors(container, architecture.family, &specs)?;
    let chat_template = read_chat_template(metadata)?;
    let provenance = read_provenance(metadata)?;
    let tokenizer = vocabulary::read_tokenizer(metadata, architecture.vocab_size)?;
    let name = name(metadata)?;
    let warnings = warnings(container);
    Ok(Plan { name, architecture, specs, tokenizer, chat_template, provenance, warnings })
}

/// What is left out of a file that is read all the same.
pub(super) fn warnings(container: &Container) -> Vec<String> {
    let (file, bytes) = (container.metadata.file, container.trailing_bytes);
    let trailing = format!("{file}: {bytes} bytes after the last tensor are left out");
    (bytes > 0).then_some(trailing).into_iter().collect()
}

/// The name that the metadata give, else that of the file.
pub(super) fn name(metadata: &Metadata) -> Result<String> {
    Ok(metadata.string(keys::NAME)?.map_or_else(|| stem(metadata.file), str::to_owned))
}

fn stem(file: &str) -> String {
    let path = std::path::Path::new(file);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    match name.as_deref().and_then(|name| Numbered::parse(name, ".gguf")) {
        Some(parts) => parts.stem.to_owned(),
        None => path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(),
    }
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
                info.file,
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
            let file = info.file.into();
            Err(Error::Unsupported { file, name: format!("tensor {name}"), reason })
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

fn read_tensor(named: &NamedSpec, info: &TensorInfo, source: &mut Source) -> Result<Tensor> {
    let shape = named.spec.shape.clone();
    let (rows, cols) = if let [rows, cols] = shape[..] { (rows, cols) } else { (1, shape[0]) };
    let (begin, size, count) = (info.begin, info.size as usize, rows * cols);
    let data = match info.kind {
        GgmlType::F32 => TensorData::F32(source.values(begin, count)?),
        GgmlType::F16 => TensorData::F16(source.values::<u16>(begin, count)?.reinterpret_into()),
        GgmlType::BF16 => TensorData::BF16(source.values::<u16>(begin, count)?.reinterpret_into()),
        kind => {
            reserve(info.file, &named.gguf, 2 * size)?;
            let bytes = source.part(begin, size)?;
            match packed::unpack(kind, rows, cols, &bytes) {
                Some(matrix) => TensorData::Packed(matrix),
                None => TensorData::Blocks { kind, bytes: bytes.into_owned() },
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
