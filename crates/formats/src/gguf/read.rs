//! A GGUF file to a [`Model`].

use super::container::OtherTypes;
use super::metadata::{Carried, Metadata, Value, error_at};
use super::{
    Container, Files, GgmlType, TensorInfo, architecture, caps, keys, quantization, rope,
    vocabulary,
};
use crate::architecture::fields::Form;
use crate::architecture::storage::{self, Stored};
use crate::architecture::{Architecture, Parameter, Role};
use crate::blocks::packed;
use crate::error::{Error, Result};
use crate::model::{Model, Tensor, TensorData};
use crate::numbered::Numbered;
use crate::quantization::Quantization;
use crate::source::Source;
use crate::tokenizer::Tokenizer;
use half::vec::HalfBitsVecExt;
use halfstep_kernels::Pool;
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
    let Plan {
        name,
        architecture,
        stored,
        tokenizer,
        chat_template,
        provenance,
        quantization,
        warnings,
    } = plan(&container)?;
    let mut tensors = BTreeMap::new();
    for stored in stored {
        let info = &container.tensors[stored.name.as_str()];
        let mut data = read_tensor(&stored, info, &mut sources[info.part])?;
        if stored.pieces.iter().any(|piece| piece.tensor.role.is_vector()) && !info.kind.is_float()
        {
            let tensor = Tensor { shape: vec![stored.rows(), stored.cols()], data };
            data = TensorData::F32(tensor.to_f32(&Pool::serial()));
        }
        stored.take(info.file, data, &mut tensors)?;
    }
    let quantization = quantization.or_else(|| quantization::of_client(&architecture, &tensors));
    let carried = read_carried(&container.metadata);
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
        carried,
    })
}

/// Everything of a model but the values of its tensors, whose descriptions are checked.
pub(super) struct Plan {
    pub name: String,
    pub architecture: Architecture,
    pub stored: Vec<Stored>,
    pub tokenizer: Option<Tokenizer>,
    pub chat_template: Option<String>,
    pub provenance: BTreeMap<String, String>,
    /// What the file itself says of how it is run.
    pub quantization: Option<Quantization>,
    pub warnings: Vec<String>,
}

/// Checks all that can be checked without reading a tensor.
pub(super) fn plan(container: &Container) -> Result<Plan> {
    checked(container).map_err(|error| container.placed(error))
}

fn checked(container: &Container) -> Result<Plan> {
    let metadata = &container.metadata;
    let architecture = architecture::read(container)?;
    architecture.check_numbers(metadata.file)?;
    let stored = storage::stored(&architecture, Form::Gguf);
    let mut unread = storage::unread(&architecture, Form::Gguf);
    unread.extend(architecture::beyond(container).0.into_iter().map(str::to_owned));
    check_tensors(container, architecture.family, &stored, &unread)?;
    let chat_template = read_chat_template(metadata)?;
    let provenance = read_provenance(metadata)?;
    let quantization = quantization::read(metadata, &architecture)?;
    let tokenizer = vocabulary::read_tokenizer(metadata, architecture.vocab_size)?;
    let name = name(metadata)?;
    let mut warnings = warnings(container);
    warnings.extend(tokenizer.iter().flat_map(|t| t.warnings.iter().cloned()));
    Ok(Plan {
        name,
        architecture,
        stored,
        tokenizer,
        chat_template,
        provenance,
        quantization,
        warnings,
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

/// What is left out of a file that is read all the same.
pub(super) fn warnings(container: &Container) -> Vec<String> {
    let (file, bytes) = (container.metadata.file, container.trailing_bytes);
    let trailing = format!("{file}: {bytes} bytes after the last tensor are left out");
    let (tensors, layers) = architecture::beyond(container);
    let beyond = format!(
        "{file}: {} tensors of {layers} layers that predict several tokens at once are left out",
        tensors.len()
    );
    let trailing = (bytes > 0).then_some(trailing);
    trailing.into_iter().chain((!tensors.is_empty()).then_some(beyond)).collect()
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
fn check_tensors(
    container: &Container,
    family: &str,
    all: &[Stored],
    unread: &[String],
) -> Result<()> {
    let file = container.metadata.file;
    let mut known = BTreeSet::from(rope::TENSORS);
    known.extend(unread.iter().map(String::as_str));
    for stored in all {
        let name = stored.name.as_str();
        let Some(info) = container.tensors.get(name) else {
            return Err(Error::MissingTensor {
                file: file.into(),
                tensor: name.into(),
                offset: None,
            });
        };
        if info.shape() != stored.shape {
            return Err(Error::Shape {
                file: file.into(),
                tensor: name.into(),
                expected: stored.shape.clone(),
                got: info.shape(),
                offset: None,
            });
        }
        let must_be_float = |role: Role| role.is_vector() && !may_be_quantized(role);
        if stored.pieces.iter().any(|piece| must_be_float(piece.tensor.role))
            && !info.kind.is_float()
        {
            return Err(error_at(
                info.file,
                info.described_at,
                format!("{name} is {}, not a float type", info.kind.name()),
            ));
        }
        known.insert(name);
    }
    match container.tensors.iter().find(|(name, _)| !known.contains(*name)) {
        Some((name, info)) => {
            let reason = format!("the architecture {family} with this metadata has no such tensor");
            let (file, offset) = (info.file.into(), Some(info.described_at as u64));
            Err(Error::Unsupported { file, name: format!("tensor {name}"), reason, offset })
        }
        None => Ok(()),
    }
}

/// Whether files have blocks of a tensor that is float in a model: small matrices, which are read as
/// f32.
fn may_be_quantized(role: Role) -> bool {
    matches!(role, Role::Parameter(Parameter::DeltaWrite | Parameter::DeltaDecay))
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
fn read_tensor(stored: &Stored, info: &TensorInfo, source: &mut Source) -> Result<TensorData> {
    let (rows, cols) = (stored.rows(), stored.cols());
    let (begin, size, count) = (info.begin, info.size as usize, rows * cols);
    Ok(match info.kind {
        GgmlType::F32 => TensorData::F32(source.values(begin, count)?),
        GgmlType::F16 => TensorData::F16(source.values::<u16>(begin, count)?.reinterpret_into()),
        GgmlType::BF16 => TensorData::BF16(source.values::<u16>(begin, count)?.reinterpret_into()),
        kind => {
            reserve(info.file, &stored.name, 2 * size)?;
            let bytes = source.part(begin, size)?;
            match packed::unpack(kind, rows, cols, &bytes) {
                Some(matrix) => TensorData::Packed(matrix),
                None => TensorData::Blocks { kind, bytes: bytes.into_owned() },
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
