//! Reading: names, types, shapes and sizes of every tensor first, then the values, each checked.

use super::linears::{PlannedLinear, StoredLinear};
use super::packed::PackedParts;
use super::quantizers::{StoredQuantizer, StoredSpec};
use super::*;
use crate::architecture::{Architecture, Role, TensorSpec};
use crate::description::{Description, config_architecture, config_sizes, spec_name};
use crate::error::{Error, Places, Result};
use crate::gguf::GgmlType;
use crate::hugging_face::{MAX_TOKENIZER_BYTES, check_vocabulary, float_data, tokenizer_kind};
use crate::linear_parts::has_own_bias;
use crate::low_rank::{LowRank, check_rank, first_non_finite};
use crate::model::{Model, Tensor, TensorData};
use crate::safetensors::{Header, Info};
use crate::source::Source;
use crate::tokenizer::Tokenizer;
use crate::{config, inventory, json};
use half::f16;
use half::vec::HalfBitsVecExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// How a weight is stored.
enum Storage {
    Float(Info),
    Packed(Box<PackedParts>),
    Blocks { kind: GgmlType, bytes: Info },
}

impl Storage {
    /// Bytes in the file.
    fn bytes(&self) -> u64 {
        match self {
            Storage::Float(info) | Storage::Blocks { bytes: info, .. } => info.end - info.begin,
            Storage::Packed(parts) => parts.bytes(),
        }
    }
}

/// Where the low-rank factors of a weight are.
struct Factors {
    rank: usize,
    a: Info,
    b: Info,
}

/// Everything that the header says, checked; no value is read yet.
struct Plan {
    architecture: Architecture,
    quantization: Option<Quantization>,
    storage: BTreeMap<String, Storage>,
    factors: BTreeMap<String, Factors>,
    linears: BTreeMap<String, PlannedLinear>,
    steps: Vec<Info>,
    tokenizer: Option<Info>,
    chat_template: Option<String>,
}

/// Reads a file whose header was read by [`crate::safetensors::read_header`].
///
/// Errors: `Unsupported` (another format version, an unknown metadata key), `MissingTensor`,
/// `Shape`, `Format` (a value that the layout does not allow, a tensor that has no place),
/// `Memory`.
pub fn read(mut source: Source, header: Header) -> Result<Model> {
    let Plan {
        architecture,
        mut quantization,
        storage,
        factors,
        linears,
        steps,
        tokenizer,
        chat_template,
    } = plan_file(&source, &header)?;
    // From here on memory is taken, as much as the file's bytes ask for: f16 scales double, packed
    // zero points quadruple at most.
    let tokenizer =
        tokenizer.map(|info| read_tokenizer(&mut source, &info, &architecture)).transpose()?;
    let mut tensors = BTreeMap::new();
    for want in architecture.tensors() {
        let data = read_weight(&mut source, &storage[&want.name])?;
        tensors.insert(want.name, Tensor { shape: want.shape, data });
    }
    let mut low_rank = BTreeMap::new();
    for (name, Factors { rank, a, b }) in factors {
        low_rank.insert(
            name,
            LowRank { rank, a: read_factor(&mut source, &a)?, b: read_factor(&mut source, &b)? },
        );
    }
    let mut linear_parts = BTreeMap::new();
    for (name, linear) in linears {
        linear_parts.insert(name, linear.read(&mut source)?);
    }
    for info in steps {
        let step = source.values::<f32>(info.begin, 1)?[0];
        check_step(step).map_err(|reason| Error::Format {
            file: source.file.clone(),
            offset: info.begin,
            reason: format!("tensor {}: {reason}", info.name),
        })?;
        quantization.as_mut().map(|q| q.static_scales.insert(info.name, step));
    }
    Ok(Model {
        name: header.metadata.get(key::NAME).cloned().unwrap_or_default(),
        architecture,
        tensors,
        low_rank,
        linear_parts,
        tokenizer,
        chat_template,
        quantization,
        provenance: provenance(&header),
        file_bytes: source.length,
        warnings: vec![],
        carried: BTreeMap::new(),
    })
}

fn provenance(header: &Header) -> BTreeMap<String, String> {
    let own = |(k, v): (&String, &String)| {
        Some((k.strip_prefix(key::PROVENANCE_PREFIX)?.to_string(), v.clone()))
    };
    header.metadata.iter().filter_map(own).collect()
}

/// Describes the model of a file by its header, whether [`read`] can read it or not.
pub fn describe(mut source: Source, header: Header) -> Result<Description> {
    let text = header.metadata.get(key::CONFIG).map_or("null", String::as_str);
    let config = json::parse(&format!("{}[{}]", source.file, key::CONFIG), text.as_bytes())?;
    let mut description = Description {
        name: header.metadata.get(key::NAME).cloned().unwrap_or_default(),
        format: "halfstep",
        architecture: config_architecture(&config),
        sizes: config_sizes(&config),
        file_bytes: source.length,
        has_chat_template: header.metadata.contains_key(key::CHAT_TEMPLATE),
        provenance: provenance(&header),
        ..Description::default()
    };
    let plan = match plan_file(&source, &header) {
        Ok(plan) => plan,
        Err(refusal) => {
            description.count_all(header.tensors.iter().filter(|info| info.name != TOKENIZER));
            description.refusal = Some(refusal);
            return Ok(description);
        }
    };
    let tensors = plan.architecture.tensors().into_iter();
    let experts = tensors.filter(TensorSpec::is_of_expert);
    let bytes = experts.filter_map(|spec| plan.storage.get(&*spec.name)).map(Storage::bytes).sum();
    description.count_graph(&plan.architecture, bytes);
    description.target = plan.quantization.map(|q| q.target);
    for storage in plan.storage.values() {
        let kind = match storage {
            Storage::Float(info) => info.dtype.name().into(),
            Storage::Packed(parts) => spec_name(parts.spec()),
            Storage::Blocks { kind, .. } => kind.name().into(),
        };
        description.count(&kind, storage.bytes());
    }
    for Factors { rank, a, b } in plan.factors.values() {
        let bytes = a.end - a.begin + b.end - b.begin;
        description.count(&format!("low rank {rank}"), bytes);
    }
    for linear in plan.linears.values() {
        linear.parts().iter().for_each(|(name, bytes)| description.count(name, *bytes));
    }
    let Some(info) = plan.tokenizer else { return Ok(description) };
    match read_tokenizer(&mut source, &info, &plan.architecture) {
        Ok(tokenizer) => {
            let text: Vec<u8> = source.values(info.begin, info.elements())?;
            description.tokenizer = tokenizer_kind(TOKENIZER, &text);
            description.pre_tokenizer = Some(tokenizer.vocabulary.pre.clone());
        }
        Err(refusal) => description.refusal = Some(refusal),
    }
    Ok(description)
}

/// Where the JSON of the header begins.
const HEADER: u64 = 8;

fn plan_file(source: &Source, header: &Header) -> Result<Plan> {
    let tensors = header.by_name();
    let places = Places {
        of: &|name| tensors.get(name).map(|info| info.begin),
        tensors: HEADER,
        model: HEADER,
    };
    checked(source, header).map_err(|error| error.placed(&places))
}

fn checked(source: &Source, header: &Header) -> Result<Plan> {
    let metadata = Metadata { file: source.file.clone(), values: &header.metadata };
    metadata.check_keys()?;
    let config_text = metadata.text(key::CONFIG)?.unwrap_or_default();
    let architecture =
        config::parse(&format!("{}[{}]", source.file, key::CONFIG), config_text.as_bytes())?;
    architecture.check_numbers(&source.file)?;
    // Every way to store a parameter takes more than a bit (TQ1_0, the smallest, 1.69).
    inventory::check_size(&source.file, &architecture, 1, source.length)?;
    let quantization: Option<Quantization> = metadata.json(key::QUANTIZATION)?;
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
    let factors = of_linears(
        &metadata,
        key::LOW_RANK,
        &architecture,
        &storage,
        |TensorSpec { name, .. }, [rows, cols], rank: usize| {
            check_rank(rank, rows, cols)
                .map_err(|reason| metadata.wrong(key::LOW_RANK, format!("{name}: {reason}")))?;
            let mut take = |part: &str, shape: [usize; 2]| {
                stored.take(&format!("{name}.{part}"), &shape, &[Dtype::F16])
            };
            let a = take(part::LOW_RANK_A, [rank, cols])?;
            Ok(Factors { rank, a, b: take(part::LOW_RANK_B, [rows, rank])? })
        },
    )?;
    let linears = of_linears(
        &metadata,
        key::LINEARS,
        &architecture,
        &storage,
        |spec, shape, linear: StoredLinear| {
            let own_bias = has_own_bias(&architecture, spec);
            PlannedLinear::plan(&metadata, &mut stored, &spec.name, shape, linear, own_bias)
        },
    )?;
    let scales = static_scales(&architecture, quantization.as_ref(), |name| {
        matches!(storage.get(name), Some(Storage::Packed(_)))
    });
    let mut steps = vec![];
    for name in &scales.allowed {
        if scales.required.contains(name) || stored.tensors.contains_key(name.as_str()) {
            steps.push(stored.take(name, &[1], &[Dtype::F32])?);
        }
    }
    let tokenizer = stored.tensors.remove(TOKENIZER).cloned();
    if let Some(name) = stored.tensors.keys().next() {
        return Err(Error::Unsupported {
            file: source.file.clone(),
            name: format!("tensor {name}"),
            reason: "the layout has no place for it".into(),
            offset: None,
        });
    }
    let chat_template = metadata.text(key::CHAT_TEMPLATE)?.map(str::to_string);
    metadata.text(key::NAME)?;
    Ok(Plan {
        architecture,
        quantization,
        storage,
        factors,
        linears,
        steps,
        tokenizer,
        chat_template,
    })
}

pub(super) struct Metadata<'a> {
    file: String,
    values: &'a BTreeMap<String, String>,
}

impl Metadata<'_> {
    /// An error in a value of the header; the offset is the header's.
    pub fn wrong(&self, key: &str, reason: String) -> Error {
        Error::Format {
            file: self.file.clone(),
            offset: HEADER,
            reason: format!("{key}: {reason}"),
        }
    }

    /// A version that is read and nothing it does not know: an unknown key could change what the
    /// numbers mean.
    fn check_keys(&self) -> Result<()> {
        const KNOWN: [&str; 9] = [
            FORMAT_KEY,
            key::NAME,
            key::CONFIG,
            key::WEIGHTS,
            key::BLOCKS,
            key::LOW_RANK,
            key::LINEARS,
            key::QUANTIZATION,
            key::CHAT_TEMPLATE,
        ];
        let unsupported = |name: String, reason: &str| Error::Unsupported {
            file: self.file.clone(),
            name,
            reason: reason.into(),
            offset: None,
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
            if name == key::LINEARS && self.is_version_1() {
                return Err(unsupported(format!("metadata key {name}"), "version 2 has it"));
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
pub(super) struct Stored<'a> {
    file: String,
    tensors: BTreeMap<&'a str, &'a Info>,
}

impl Stored<'_> {
    /// The tensor `name`, which must be there in this shape and one of these types.
    pub fn take(&mut self, name: &str, shape: &[usize], dtypes: &[Dtype]) -> Result<Info> {
        let file = self.file.clone();
        let Some(info) = self.tensors.remove(name).cloned() else {
            return Err(Error::MissingTensor { file, tensor: name.into(), offset: None });
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
                offset: None,
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
            (Some(spec), None, Ok(shape)) => Storage::Packed(Box::new(PackedParts::plan(
                metadata,
                key::WEIGHTS,
                stored,
                name,
                shape,
                spec,
            )?)),
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

/// What a key of the metadata says of linears, by the names of their weights, each planned by
/// `plan`: linears of layers that are packed, and nothing else.
fn of_linears<T: DeserializeOwned + Serialize, P>(
    metadata: &Metadata,
    key: &str,
    architecture: &Architecture,
    storage: &BTreeMap<String, Storage>,
    mut plan: impl FnMut(&TensorSpec, [usize; 2], T) -> Result<P>,
) -> Result<BTreeMap<String, P>> {
    let mut said: BTreeMap<String, T> = metadata.json(key)?.unwrap_or_default();
    let mut planned = BTreeMap::new();
    for want in architecture.tensors() {
        let Some(value) = said.remove(&want.name) else { continue };
        if !matches!((want.role, &storage[&want.name]), (Role::Linear(_), Storage::Packed(_))) {
            let reason = format!("{}: is no packed linear of a block", want.name);
            return Err(metadata.wrong(key, reason));
        }
        let parts = plan(&want, [want.shape[0], want.shape[1]], value)?;
        planned.insert(want.name, parts);
    }
    match said.keys().next() {
        Some(name) => {
            Err(metadata.wrong(key, format!("{name:?} is no weight of this architecture")))
        }
        None => Ok(planned),
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

fn read_weight(source: &mut Source, storage: &Storage) -> Result<TensorData> {
    match storage {
        Storage::Float(info) => float_data(source, info),
        Storage::Blocks { kind, bytes } => Ok(TensorData::Blocks {
            kind: *kind,
            bytes: source.values(bytes.begin, bytes.elements())?,
        }),
        Storage::Packed(parts) => Ok(TensorData::Packed(parts.read(source)?)),
    }
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
