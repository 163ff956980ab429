//! Reading: names, types, shapes and sizes of every tensor first, then the values, each checked.

use super::quantizers::{StoredQuantizer, StoredSpec};
use super::*;
use crate::architecture::Role;
use crate::error::{Error, Result};
use crate::gguf::GgmlType;
use crate::hugging_face::{MAX_TOKENIZER_BYTES, check_vocabulary, float_data};
use crate::low_rank::{LowRank, check_rank, first_non_finite};
use crate::model::{Model, Tensor, TensorData};
use crate::safetensors::{Header, Info};
use crate::source::Source;
use crate::tokenizer::Tokenizer;
use crate::{config, inventory, json};
use half::f16;
use half::vec::HalfBitsVecExt;
use halfstep_kernels::quant::tensor::QuantTensor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// How a weight is stored.
enum Storage {
    Float(Info),
    Packed(Box<PackedParts>),
    Blocks { kind: GgmlType, bytes: Info },
}

/// The stored parts of a packed weight.
struct PackedParts {
    quantizer: QuantSpec,
    codes: Info,
    scale: Info,
    outer: Option<Info>,
    zero_point: Option<Info>,
}

/// Where the low-rank factors of a weight are.
struct Factors {
    rank: usize,
    a: Info,
    b: Info,
}

/// Reads a file whose header was read by [`crate::safetensors::read_header`].
///
/// Errors: `Unsupported` (another format version, an unknown metadata key), `MissingTensor`,
/// `Shape`, `Format` (a value that the layout does not allow, a tensor that has no place),
/// `Memory`.
pub fn read(mut source: Source, header: Header) -> Result<Model> {
    let metadata = Metadata { file: source.file.clone(), values: &header.metadata };
    metadata.check_keys()?;
    let config_text = metadata.text(key::CONFIG)?.unwrap_or_default();
    let architecture =
        config::parse(&format!("{}[{}]", source.file, key::CONFIG), config_text.as_bytes())?;
    // Every way to store a parameter takes more than a bit (TQ1_0, the smallest, 1.69).
    inventory::check_size(&source.file, &architecture, 1, source.length)?;
    let mut quantization: Option<Quantization> = metadata.json(key::QUANTIZATION)?;
    if let Some(q) = &quantization {
        q.check(&architecture).map_err(|reason| metadata.wrong(key::QUANTIZATION, reason))?;
        if metadata.is_version_1() && !q.exceptions.is_empty() {
            let reason = "sites that differ need a file of version 2".into();
            return Err(metadata.wrong(key::QUANTIZATION, reason));
        }
        if !q.static_scales.is_empty() {
            return Err(metadata.wrong(key::QUANTIZATION, "steps are stored as tensors".into()));
        }
    }
    let mut stored = Stored { file: source.file.clone(), tensors: header.by_name() };
    let storage = plan(&metadata, &architecture, &mut stored)?;
    let factors = plan_low_rank(&metadata, &architecture, &storage, &mut stored)?;
    let steps = static_scales(&architecture, quantization.as_ref(), |name| {
        matches!(storage.get(name), Some(Storage::Packed(_)))
    });
    let mut step_tensors = vec![];
    for name in &steps.allowed {
        if steps.required.contains(name) || stored.tensors.contains_key(name.as_str()) {
            step_tensors.push(stored.take(name, &[1], &[Dtype::F32])?);
        }
    }
    let tokenizer = stored.tensors.remove(TOKENIZER).cloned();
    if let Some(name) = stored.tensors.keys().next() {
        return Err(Error::Unsupported {
            file: source.file,
            name: format!("tensor {name}"),
            reason: "the layout has no place for it".into(),
        });
    }
    // From here on memory is taken, as much as the file's bytes ask for: f16 scales double, packed
    // zero points quadruple at most.
    let tokenizer =
        tokenizer.map(|info| read_tokenizer(&mut source, &info, &architecture)).transpose()?;
    let mut tensors = BTreeMap::new();
    for want in architecture.tensors() {
        let data = read_weight(&mut source, &want.shape, &storage[&want.name])?;
        tensors.insert(want.name, Tensor { shape: want.shape, data });
    }
    let mut low_rank = BTreeMap::new();
    for (name, Factors { rank, a, b }) in factors {
        low_rank.insert(
            name,
            LowRank { rank, a: read_factor(&mut source, &a)?, b: read_factor(&mut source, &b)? },
        );
    }
    for info in step_tensors {
        let step = source.values::<f32>(info.begin, 1)?[0];
        check_step(step).map_err(|reason| Error::Format {
            file: source.file.clone(),
            offset: info.begin,
            reason: format!("tensor {}: {reason}", info.name),
        })?;
        quantization.as_mut().map(|q| q.static_scales.insert(info.name, step));
    }
    let chat_template = metadata.text(key::CHAT_TEMPLATE)?.map(str::to_string);
    let name = metadata.text(key::NAME)?.unwrap_or_default().to_string();
    let provenance = header
        .metadata
        .iter()
        .filter_map(|(k, v)| Some((k.strip_prefix(key::PROVENANCE_PREFIX)?.to_string(), v.clone())))
        .collect();
    Ok(Model {
        name,
        architecture,
        tensors,
        low_rank,
        tokenizer,
        chat_template,
        quantization,
        provenance,
        file_bytes: source.length,
    })
}

struct Metadata<'a> {
    file: String,
    values: &'a BTreeMap<String, String>,
}

impl Metadata<'_> {
    /// An error in a value of the header; the offset is the header's.
    fn wrong(&self, key: &str, reason: String) -> Error {
        Error::Format { file: self.file.clone(), offset: 8, reason: format!("{key}: {reason}") }
    }

    /// Version 1 and nothing it does not know: an unknown key could change what the numbers mean.
    fn check_keys(&self) -> Result<()> {
        const KNOWN: [&str; 8] = [
            FORMAT_KEY,
            key::NAME,
            key::CONFIG,
            key::WEIGHTS,
            key::BLOCKS,
            key::LOW_RANK,
            key::QUANTIZATION,
            key::CHAT_TEMPLATE,
        ];
        let unsupported = |name: String, reason: &str| Error::Unsupported {
            file: self.file.clone(),
            name,
            reason: reason.into(),
        };
        match self.values.get(FORMAT_KEY).map(String::as_str) {
            Some(FORMAT_VERSION | FORMAT_VERSION_2) => {}
            other => {
                return Err(unsupported(
                    format!("halfstep format version {:?}", other.unwrap_or("")),
                    "this library reads versions 1 and 2",
                ));
            }
        }
        for name in self.values.keys().filter(|k| k.starts_with("halfstep.")) {
            if !KNOWN.contains(&name.as_str()) && !name.starts_with(key::PROVENANCE_PREFIX) {
                return Err(unsupported(format!("metadata key {name}"), "no version has it"));
            }
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        let cap = value_cap(key);
        match self.values.get(key) {
            Some(v) if v.len() > cap => Err(Error::Memory {
                file: self.file.clone(),
                what: key.into(),
                bytes: v.len() as u64,
                cap: cap as u64,
            }),
            v => Ok(v.map(String::as_str)),
        }
    }

    /// A value as the writer spells it: serde alone would skip a field it does not know, which
    /// could change what the numbers mean.
    fn json<T: DeserializeOwned + Serialize>(&self, key: &str) -> Result<Option<T>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let value = json::parse(&format!("{}[{key}]", self.file), text.as_bytes())?;
        let read = T::deserialize(&value).map_err(|e| self.wrong(key, e.to_string()))?;
        match serde_json::to_value(&read) {
            Ok(written) if written == value => Ok(Some(read)),
            _ => Err(self.wrong(key, "has a field that this version does not have".into())),
        }
    }
}

impl Metadata<'_> {
    fn is_version_1(&self) -> bool {
        self.values.get(FORMAT_KEY).map(String::as_str) == Some(FORMAT_VERSION)
    }

    /// The spec of every packed weight, in the words of the file's version.
    fn weights(&self) -> Result<BTreeMap<String, QuantSpec>> {
        if self.is_version_1() {
            let stored: Option<BTreeMap<String, StoredQuantizer>> = self.json(key::WEIGHTS)?;
            let specs = stored.unwrap_or_default().into_iter();
            return Ok(specs.map(|(name, stored)| (name, stored.into())).collect());
        }
        let stored: Option<BTreeMap<String, StoredSpec>> = self.json(key::WEIGHTS)?;
        let spec = |(name, stored): (String, StoredSpec)| match QuantSpec::try_from(stored) {
            Ok(spec) => Ok((name, spec)),
            Err(reason) => Err(self.wrong(key::WEIGHTS, format!("{name}: {reason}"))),
        };
        stored.unwrap_or_default().into_iter().map(spec).collect()
    }
}

/// Tensors of the header that nothing has claimed yet.
struct Stored<'a> {
    file: String,
    tensors: BTreeMap<&'a str, &'a Info>,
}

impl Stored<'_> {
    fn take(&mut self, name: &str, shape: &[usize], dtypes: &[Dtype]) -> Result<Info> {
        let file = self.file.clone();
        let Some(info) = self.tensors.remove(name).cloned() else {
            return Err(Error::MissingTensor { file, tensor: name.into() });
        };
        if !dtypes.contains(&info.dtype) {
            let wanted = dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join(" or ");
            return Err(Error::Format {
                file,
                offset: info.begin,
                reason: format!("tensor {name} is {}, not {wanted}", info.dtype.name()),
            });
        }
        if info.shape != shape {
            return Err(Error::Shape {
                file,
                tensor: name.into(),
                expected: shape.to_vec(),
                got: info.shape,
            });
        }
        Ok(info)
    }
}

/// How each weight of the architecture is stored, every part present in its type and shape.
fn plan(
    metadata: &Metadata,
    architecture: &Architecture,
    stored: &mut Stored,
) -> Result<BTreeMap<String, Storage>> {
    let mut packed = metadata.weights()?;
    let mut blocks: BTreeMap<String, String> = metadata.json(key::BLOCKS)?.unwrap_or_default();
    let mut storage = BTreeMap::new();
    for want in architecture.tensors() {
        let name = &want.name;
        let part = |part: &str| format!("{name}.{part}");
        let matrix: std::result::Result<[usize; 2], _> = want.shape[..].try_into();
        let how = match (packed.remove(name), blocks.remove(name), matrix) {
            (None, None, _) => Storage::Float(stored.take(
                name,
                &want.shape,
                &[Dtype::F32, Dtype::F16, Dtype::BF16],
            )?),
            (Some(quantizer), None, Ok([rows, cols])) => {
                check_quantizer(quantizer)
                    .map_err(|reason| metadata.wrong(key::WEIGHTS, format!("{name}: {reason}")))?;
                let scales = scale_shape(quantizer.granularity, rows, cols);
                Storage::Packed(Box::new(PackedParts {
                    quantizer,
                    codes: stored.take(
                        &part(part::CODES),
                        &[rows, row_bytes(cols, quantizer.bits())],
                        &[Dtype::U8],
                    )?,
                    scale: stored.take(
                        &part(part::SCALE),
                        &scales,
                        &[scale_dtype(quantizer.scale)],
                    )?,
                    outer: match super::outer_scales(quantizer, rows, cols) {
                        Some((codec, count)) => Some(stored.take(
                            &part(part::OUTER_SCALE),
                            &[count],
                            &[scale_dtype(codec)],
                        )?),
                        None => None,
                    },
                    zero_point: match quantizer.zero_point_shape(rows, cols) {
                        Some(shape) => {
                            Some(stored.take(&part(part::ZERO_POINT), &shape, &[Dtype::U8])?)
                        }
                        None => None,
                    },
                }))
            }
            (None, Some(kind), Ok([rows, cols])) => {
                let wrong = |reason: &str| {
                    metadata.wrong(key::BLOCKS, format!("{name}: {kind:?} {reason}"))
                };
                let kind = GgmlType::from_name(&kind)
                    .filter(|k| !k.is_float())
                    .ok_or_else(|| wrong("is no block type"))?;
                let row_bytes = crate::blocks::row_bytes(kind, cols)
                    .ok_or_else(|| wrong("does not divide a row"))?;
                Storage::Blocks {
                    kind,
                    bytes: stored.take(&part(part::BLOCKS), &[rows, row_bytes], &[Dtype::U8])?,
                }
            }
            (Some(_), Some(_), _) => {
                return Err(
                    metadata.wrong(key::WEIGHTS, format!("{name} is in {} too", key::BLOCKS))
                );
            }
            (_, _, Err(_)) => {
                return Err(metadata.wrong(key::WEIGHTS, format!("{name} is no matrix")));
            }
        };
        storage.insert(want.name, how);
    }
    if let Some(name) = packed.keys().chain(blocks.keys()).next() {
        return Err(
            metadata.wrong(key::WEIGHTS, format!("{name:?} is no weight of this architecture"))
        );
    }
    Ok(storage)
}

/// The low-rank factors that the metadata names: each of a packed block linear, both of it present in
/// their shapes.
fn plan_low_rank(
    metadata: &Metadata,
    architecture: &Architecture,
    storage: &BTreeMap<String, Storage>,
    stored: &mut Stored,
) -> Result<BTreeMap<String, Factors>> {
    let mut ranks: BTreeMap<String, usize> = metadata.json(key::LOW_RANK)?.unwrap_or_default();
    let mut factors = BTreeMap::new();
    for want in architecture.tensors() {
        let name = want.name;
        let Some(rank) = ranks.remove(&name) else { continue };
        let wrong = |reason: String| metadata.wrong(key::LOW_RANK, format!("{name}: {reason}"));
        if !matches!((want.role, &storage[&name]), (Role::Linear(_), Storage::Packed(_))) {
            return Err(wrong("is no packed linear of a block".into()));
        }
        let (rows, cols) = (want.shape[0], want.shape[1]);
        check_rank(rank, rows, cols).map_err(wrong)?;
        let a =
            stored.take(&format!("{name}.{}", part::LOW_RANK_A), &[rank, cols], &[Dtype::F16])?;
        let b =
            stored.take(&format!("{name}.{}", part::LOW_RANK_B), &[rows, rank], &[Dtype::F16])?;
        factors.insert(name, Factors { rank, a, b });
    }
    match ranks.keys().next() {
        Some(name) => {
            Err(metadata
                .wrong(key::LOW_RANK, format!("{name:?} is no weight of this architecture")))
        }
        None => Ok(factors),
    }
}

fn read_factor(source: &mut Source, info: &Info) -> Result<Vec<f16>> {
    let values: Vec<f16> = source.values::<u16>(info.begin, info.elements())?.reinterpret_into();
    match first_non_finite(&values) {
        Some(i) => {
            let (offset, reason) = (
                info.begin + 2 * i as u64,
                format!("tensor {}: value {i} is {}", info.name, values[i]),
            );
            Err(Error::Format { file: source.file.clone(), offset, reason })
        }
        None => Ok(values),
    }
}

fn read_weight(source: &mut Source, shape: &[usize], storage: &Storage) -> Result<TensorData> {
    let file = source.file.clone();
    let wrong = |info: &Info, (at, reason): Fault| Error::Format {
        file: file.clone(),
        offset: info.begin + (at * info.dtype.bytes()) as u64,
        reason: format!("tensor {}: {reason}", info.name),
    };
    match storage {
        Storage::Float(info) => float_data(source, info),
        Storage::Blocks { kind, bytes } => Ok(TensorData::Blocks {
            kind: *kind,
            bytes: source.values(bytes.begin, bytes.elements())?,
        }),
        Storage::Packed(parts) => {
            let PackedParts { quantizer, codes: code_info, scale, outer, zero_point } = &**parts;
            let (rows, cols) = (shape[0], shape[1]);
            let codes: Vec<u8> = source.values(code_info.begin, code_info.elements())?;
            check_codes(*quantizer, cols, &codes).map_err(|fault| wrong(code_info, fault))?;
            let codec = quantizer.scale;
            let per_row = quantizer.granularity.groups(cols);
            let mut outer_scales = vec![];
            if let (Some(info), Some((outer, _))) =
                (outer, super::outer_scales(*quantizer, rows, cols))
            {
                outer_scales = outer.decode(&bytes_of(source, info)?, &[], 1);
                check_outer_scales(&outer_scales).map_err(|fault| wrong(info, fault))?;
            }
            let bytes = bytes_of(source, scale)?;
            let scales = codec.decode(&bytes, &outer_scales, per_row);
            check_scales(&scales).map_err(|fault| wrong(scale, fault))?;
            if codec.encode(&scales, &outer_scales, per_row).as_ref() != Ok(&bytes) {
                let reason = "has a scale that the codec does not store so".into();
                return Err(wrong(scale, (0, reason)));
            }
            let mut zero_points = vec![];
            if let Some(info) = zero_point {
                let (bits, groups) = (quantizer.bits(), scales.len() / info.shape[0].max(1));
                let packed: Vec<u8> = source.values(info.begin, info.elements())?;
                // Any bits are a zero point of an affine grid.
                check_padding(bits, groups, &packed).map_err(|fault| wrong(info, fault))?;
                zero_points = vec![0; scales.len()];
                let rows = packed
                    .chunks_exact(info.shape[1].max(1))
                    .zip(zero_points.chunks_exact_mut(groups.max(1)));
                rows.for_each(|(packed, row)| unpack_row(packed, bits, row));
            }
            Ok(TensorData::Packed(QuantTensor {
                rows,
                cols,
                spec: *quantizer,
                codes,
                scales,
                outer_scales,
                zero_points,
            }))
        }
    }
}

fn bytes_of(source: &mut Source, info: &Info) -> Result<Vec<u8>> {
    source.values(info.begin, info.elements() * info.dtype.bytes())
}

fn read_tokenizer(
    source: &mut Source,
    info: &Info,
    architecture: &Architecture,
) -> Result<Tokenizer> {
    let bytes = info.end - info.begin;
    if bytes > MAX_TOKENIZER_BYTES {
        return Err(Error::Memory {
            file: source.file.clone(),
            what: TOKENIZER.into(),
            bytes,
            cap: MAX_TOKENIZER_BYTES,
        });
    }
    if info.dtype != Dtype::U8 || info.shape.len() != 1 {
        return Err(Error::Format {
            file: source.file.clone(),
            offset: info.begin,
            reason: format!("tensor {TOKENIZER} is not a row of U8"),
        });
    }
    let text: Vec<u8> = source.values(info.begin, bytes as usize)?;
    let file = format!("{}[{TOKENIZER}]", source.file);
    let tokenizer = Tokenizer::from_json(&file, &text, None)?;
    check_vocabulary(&tokenizer, architecture, &file)?;
    Ok(tokenizer)
}
