//! A [`Model`] to GGUF v3: what llama.cpp and its kin need to run it, and what this project needs
//! to read the same model back.
//!
//! Written in one pass and the same way every time: metadata in a fixed order, tensors in the order
//! of the forward, each padded to the alignment. A packed tensor's codes and scales go through
//! unchanged; nothing is quantized here.

use super::container::DEFAULT_ALIGNMENT;
use super::entries::{Entries, put_string};
use super::metadata::{Carried, ValueType};
use super::vocabulary::for_file;
use super::{FORMAT, GgmlType, caps, ends, fields, keys, quantization, rope};
use crate::architecture::fields::Form;
use crate::architecture::storage::{self, Stored};
use crate::architecture::{Architecture, Role, family};
use crate::blocks::{self, packed};
use crate::error::{Error, Result};
use crate::forms;
use crate::model::{Model, Tensor, TensorData};
use crate::tokenizer::{Prefix, TokenKind, TokenizerModel, Vocabulary, unused_token};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

const VERSION: u32 = 3;
/// Of the block layouts; 2 since 2023.
const QUANTIZATION_VERSION: u32 = 2;
/// Score of rows without a token, as llama.cpp's converter writes it.
const UNUSED_SCORE: f32 = -1000.0;

/// Writes `model` as GGUF v3.
///
/// Errors: `Unencodable` for a packed tensor that no block type holds exactly, `MissingTensor` or
/// `Shape` for a model that does not fit its architecture, `Unsupported` for low-rank factors,
/// other parts of linears or a value the format has no room for, `Io`.
pub fn write(model: &Model, out: &mut dyn Write) -> Result<()> {
    model.refuse_low_rank(FORMAT, "GGUF")?;
    model.refuse_linear_parts(FORMAT, "GGUF files cannot store it")?;
    let tensors = plan(model)?;
    let metadata = write_metadata(model, &tensors)?;
    let mut header = vec![];
    header.extend(b"GGUF");
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend(metadata.count.to_le_bytes());
    header.extend(metadata.bytes);
    let mut offset = 0u64;
    for tensor in &tensors {
        describe(tensor, offset, &mut header);
        offset = (offset + tensor.bytes()).next_multiple_of(DEFAULT_ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
    let mut write = |bytes: &[u8]| {
        out.write_all(bytes).map_err(|source| Error::Io { path: FORMAT.into(), source })
    };
    write(&header)?;
    for tensor in &tensors {
        for row in 0..tensor.rows {
            write(&tensor.row_bytes(row)?)?;
        }
        let end = tensor.bytes();
        write(&vec![0; (end.next_multiple_of(DEFAULT_ALIGNMENT) - end) as usize])?;
    }
    Ok(())
}

/// A tensor as it will be in the file.
struct Planned<'a> {
    name: String,
    shape: Vec<usize>,
    kind: GgmlType,
    rows: usize,
    cols: usize,
    data: Data<'a>,
}

enum Data<'a> {
    /// Rows of tensors of the model: the tensor and its row for each row of the file, which are
    /// those of one tensor where there is no list.
    Of {
        tensors: Vec<Cow<'a, Tensor>>,
        sources: Option<Vec<(usize, usize)>>,
    },
    RopeFactors(Vec<f32>),
}

impl Planned<'_> {
    fn bytes(&self) -> u64 {
        self.rows as u64 * (self.cols / self.kind.block_elements() * self.kind.block_bytes()) as u64
    }

    /// Bytes of row `row` of the file.
    fn row_bytes(&self, row: usize) -> Result<Vec<u8>> {
        let (tensors, sources) = match &self.data {
            Data::RopeFactors(factors) => {
                return Ok(factors.iter().flat_map(|f| f.to_le_bytes()).collect());
            }
            Data::Of { tensors, sources } => (tensors, sources),
        };
        let (tensor, row) = sources.as_ref().map_or((0, row), |sources| sources[row]);
        let (tensor, range) = (&*tensors[tensor], row * self.cols..(row + 1) * self.cols);
        Ok(match (&tensor.data, self.kind) {
            (TensorData::F32(v), _) => v[range].iter().flat_map(|x| x.to_le_bytes()).collect(),
            // Norms, biases and the like are F32 in GGUF whatever they were.
            (TensorData::F16(v), GgmlType::F32) => {
                v[range].iter().flat_map(|x| x.to_f32().to_le_bytes()).collect()
            }
            (TensorData::BF16(v), GgmlType::F32) => {
                v[range].iter().flat_map(|x| x.to_f32().to_le_bytes()).collect()
            }
            (TensorData::F16(v), _) => v[range].iter().flat_map(|x| x.to_le_bytes()).collect(),
            (TensorData::BF16(v), _) => v[range].iter().flat_map(|x| x.to_le_bytes()).collect(),
            (TensorData::Packed(matrix), _) => {
                packed::pack_row(matrix, row).map_err(|e| with_tensor(e, &self.name))?
            }
            (TensorData::Blocks { bytes, .. }, _) => {
                let length = bytes.len() / tensor.rows();
                bytes[row * length..][..length].to_vec()
            }
        })
    }
}

/// The same refusal, naming the tensor.
fn with_tensor(error: Error, name: &str) -> Error {
    match error {
        Error::Unencodable { format, row, reason } => {
            Error::Unencodable { format, row, reason: format!("tensor {name}: {reason}") }
        }
        other => other,
    }
}

/// Every tensor of the architecture, checked against it, and the rope factors if there are any.
fn plan(model: &Model) -> Result<Vec<Planned<'_>>> {
    let held = model.architecture.in_form(Form::Gguf);
    let mut planned = vec![];
    for stored in storage::stored(&model.architecture, Form::Gguf) {
        let mut tensors = vec![];
        let mut kinds = vec![];
        for piece in &stored.pieces {
            let spec = &piece.tensor;
            let Some(tensor) = model.tensors.get(&spec.name) else {
                return Err(Error::MissingTensor {
                    file: FORMAT.into(),
                    tensor: spec.name.clone(),
                    offset: None,
                });
            };
            if tensor.shape != spec.shape || !holds_its_shape(tensor) {
                return Err(Error::Shape {
                    file: FORMAT.into(),
                    tensor: spec.name.clone(),
                    expected: spec.shape.clone(),
                    got: tensor.shape.clone(),
                    offset: None,
                });
            }
            kinds.push(stored_kind(tensor, spec.role, &spec.name)?);
            let forms = [&model.architecture, &held];
            tensors.push(forms::in_file(FORMAT, tensor, piece, forms)?);
        }
        planned.push(of_pieces(stored, tensors, &kinds)?);
    }
    for (name, factors) in rope::tensors_of(&model.architecture) {
        let cols = factors.len();
        planned.push(Planned {
            name: name.into(),
            shape: vec![cols],
            kind: GgmlType::F32,
            rows: 1,
            cols,
            data: Data::RopeFactors(factors),
        });
    }
    Ok(planned)
}

/// A tensor of the file out of those of the model, which must all be of one type.
fn of_pieces<'a>(
    stored: Stored,
    tensors: Vec<Cow<'a, Tensor>>,
    kinds: &[GgmlType],
) -> Result<Planned<'a>> {
    let kind = kinds[0];
    if let Some(other) = kinds.iter().position(|&other| other != kind) {
        let reason = format!(
            "{} of {} is {}, and {} is {}: a GGUF file holds both in one tensor, so they must be \
             quantized alike",
            stored.pieces[other].tensor.name,
            stored.name,
            kinds[other].name(),
            stored.pieces[0].tensor.name,
            kind.name()
        );
        return Err(Error::Unencodable { format: FORMAT.into(), row: 0, reason });
    }
    let sources = stored.sources();
    let (rows, cols) = match (&sources, tensors[..].first()) {
        (None, Some(tensor)) => (tensor.rows(), tensor.cols()),
        _ => (stored.rows(), stored.cols()),
    };
    let Stored { name, shape, .. } = stored;
    Ok(Planned { name, shape, kind, rows, cols, data: Data::Of { tensors, sources } })
}

/// Whether there are as many values as the shape needs.
fn holds_its_shape(tensor: &Tensor) -> bool {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    match &tensor.data {
        TensorData::F32(v) => v.len() == rows * cols,
        TensorData::F16(v) => v.len() == rows * cols,
        TensorData::BF16(v) => v.len() == rows * cols,
        TensorData::Packed(m) => {
            let code_bytes = rows * halfstep_kernels::pack::row_bytes(cols, m.spec.bits());
            let scales = m.spec.granularity.scales(rows, cols);
            let zero_points = if m.spec.has_zero_point() { scales } else { 0 };
            (m.rows, m.cols, m.codes.len(), m.scales.len(), m.zero_points.len())
                == (rows, cols, code_bytes, scales, zero_points)
        }
        TensorData::Blocks { kind, bytes } => {
            blocks::row_bytes(*kind, cols).is_some_and(|row| row * rows == bytes.len())
        }
    }
}

/// The type a tensor is stored as: what it is, but one-dimensional tensors are F32.
fn stored_kind(tensor: &Tensor, role: Role, name: &str) -> Result<GgmlType> {
    let kind = match &tensor.data {
        TensorData::F32(_) => GgmlType::F32,
        TensorData::F16(_) => GgmlType::F16,
        TensorData::BF16(_) => GgmlType::BF16,
        TensorData::Blocks { kind, .. } => *kind,
        TensorData::Packed(matrix) => packed::check(matrix).map_err(|e| with_tensor(e, name))?,
    };
    match role.is_vector() {
        true if kind.is_float() => Ok(GgmlType::F32),
        true => Err(Error::Unencodable {
            format: FORMAT.into(),
            row: 0,
            reason: format!("{name} is {}; norms and biases are F32", kind.name()),
        }),
        false => Ok(kind),
    }
}

fn describe(tensor: &Planned, offset: u64, header: &mut Vec<u8>) {
    put_string(&tensor.name, header);
    header.extend((tensor.shape.len() as u32).to_le_bytes());
    for &dimension in tensor.shape.iter().rev() {
        header.extend((dimension as u64).to_le_bytes());
    }
    header.extend(tensor.kind.id().to_le_bytes());
    header.extend(offset.to_le_bytes());
}

/// Refuses a decoder that no GGUF file holds.
///
/// Errors: `Unsupported`, naming the field.
pub fn check(architecture: &Architecture) -> Result<()> {
    let name = architecture_name(architecture)?;
    architecture.check_family(FORMAT)?;
    fields::write(architecture, name, &mut Entries::default())
}

/// `general.architecture` of the decoder's files.
fn architecture_name(architecture: &Architecture) -> Result<&'static str> {
    let family = family::of(architecture);
    if let Some(name) = family.gguf_architecture() {
        return Ok(name);
    }
    // Its fields tell why.
    let mut entries = Entries::default();
    let mut writer = fields::Writer { entries: &mut entries, architecture: family.name() };
    family.describe(&mut writer, &mut architecture.clone())?;
    let reason = "GGUF files know no such architecture".into();
    Err(Error::Unsupported {
        file: FORMAT.into(),
        name: family.class().into(),
        reason,
        offset: None,
    })
}

fn write_metadata(model: &Model, tensors: &[Planned]) -> Result<Entries> {
    let mut entries = Entries::default();
    let name = architecture_name(&model.architecture)?;
    entries.string(keys::ARCHITECTURE, name, caps::STRING_BYTES)?;
    entries.string("general.type", "model", caps::STRING_BYTES)?;
    entries.string(keys::NAME, &model.name, caps::STRING_BYTES)?;
    entries.u32(keys::FILE_TYPE, file_type(tensors) as usize)?;
    entries.u32(keys::QUANTIZATION_VERSION, QUANTIZATION_VERSION as usize)?;
    model.architecture.check_family(FORMAT)?;
    fields::write(&model.architecture, name, &mut entries)?;
    if let Some(tokenizer) = &model.tokenizer {
        write_vocabulary(&tokenizer.vocabulary, &model.architecture, &model.carried, &mut entries)?;
    }
    if let Some(template) = &model.chat_template {
        entries.string(keys::CHAT_TEMPLATE, template, caps::CHAT_TEMPLATE_BYTES)?;
    }
    if let Some(quantization) = &model.quantization {
        let json = quantization::write(quantization, &model.architecture)?;
        entries.string(keys::OWN_QUANTIZATION, &json, caps::STRING_BYTES)?;
    }
    for (key, value) in &model.carried {
        // A key of ours has the model's own value; one of another place is none of these.
        if !keys::INTERPRETED.contains(&key.as_str()) {
            entries.key(key, value.kind).extend(&value.bytes);
        }
    }
    for (key, value) in &model.provenance {
        let key = format!("{}{key}", keys::OWN_PREFIX);
        if keys::is_reserved(&key) {
            let reason = "this key is taken; give the provenance another name".into();
            return Err(Error::Unsupported {
                file: FORMAT.into(),
                name: key,
                reason,
                offset: None,
            });
        }
        entries.string(&key, value, caps::STRING_BYTES)?;
    }
    Ok(entries)
}

fn write_vocabulary(
    v: &Vocabulary,
    architecture: &Architecture,
    carried: &BTreeMap<String, Carried>,
    entries: &mut Entries,
) -> Result<()> {
    if v.tokens.len() > architecture.vocab_size {
        let reason = format!(
            "{} tokens for an embedding of {} rows",
            v.tokens.len(),
            architecture.vocab_size
        );
        return Err(Error::Tokenizer { reason });
    }
    let (model, v) = &for_file(v, FORMAT)?;
    entries.string(keys::TOKENIZER_MODEL, model, caps::STRING_BYTES)?;
    let pre = match v.model {
        TokenizerModel::ByteLevel => v.pre.as_str(),
        TokenizerModel::Merges => "gemma4",
        _ => "default",
    };
    entries.string(keys::TOKENIZER_PRE, pre, caps::STRING_BYTES)?;
    // An embedding may have more rows than there are tokens; a client wants a name for every row.
    let padding = v.tokens.len()..architecture.vocab_size;
    let tokens: Vec<String> =
        v.tokens.iter().cloned().chain(padding.clone().map(unused_token)).collect();
    entries.strings(keys::TOKENS, &tokens);
    let kinds = entries.array(keys::TOKEN_TYPES, ValueType::I32, architecture.vocab_size);
    v.kinds
        .iter()
        .copied()
        .chain(padding.map(|_| TokenKind::Unused))
        .for_each(|kind| kinds.extend((kind as i32).to_le_bytes()));
    if !v.scores.is_empty() {
        let scores = entries.array(keys::SCORES, ValueType::F32, architecture.vocab_size);
        for id in 0..architecture.vocab_size {
            let score = v.scores.get(id).copied().unwrap_or(UNUSED_SCORE);
            scores.extend(score.to_le_bytes());
        }
    }
    if matches!(v.model, TokenizerModel::ByteLevel | TokenizerModel::Merges) {
        entries.strings(keys::MERGES, &v.merges);
    }
    if v.model != TokenizerModel::ByteLevel {
        entries.boolean(keys::ADD_SPACE_PREFIX, v.spaces.prefix != Prefix::Never);
    }
    if v.spaces.collapse {
        entries.boolean(keys::REMOVE_EXTRA_WHITESPACES, true);
    }
    // Without it llama.cpp takes token 11 of byte-level BPE for the end, whatever that is.
    let eos = v.eos.or_else(|| v.end_tokens().first().copied());
    let roles = [(keys::BOS, v.bos), (keys::EOS, eos)];
    let others = [(keys::UNKNOWN, v.unknown), (keys::PADDING, v.padding)];
    for (key, id) in roles.into_iter().chain(ends::written(v, carried)?).chain(others) {
        if let Some(id) = id {
            entries.u32(key, id as usize)?;
        }
    }
    entries.boolean(keys::ADD_BOS, v.add_bos);
    entries.boolean(keys::ADD_EOS, v.add_eos);
    Ok(())
}

/// llama.cpp's number for "mostly this type": the type that holds most values of two-dimensional
/// tensors other than the embedding and head.
fn file_type(tensors: &[Planned]) -> u32 {
    let values = |kind: GgmlType| {
        tensors
            .iter()
            .filter(|t| t.kind == kind && t.name.starts_with("blk."))
            .map(|t| t.rows as u64 * t.cols as u64)
            .sum::<u64>()
    };
    match GgmlType::ALL.into_iter().max_by_key(|&kind| values(kind)) {
        Some(GgmlType::F16) => 1,
        Some(GgmlType::Q4_0) => 2,
        Some(GgmlType::Q4_1) => 3,
        Some(GgmlType::Q8_0) => 7,
        Some(GgmlType::Q5_0) => 8,
        Some(GgmlType::Q5_1) => 9,
        Some(GgmlType::Q2_K) => 10,
        Some(GgmlType::Q3_K) => 11,
        Some(GgmlType::Q4_K) => 14,
        Some(GgmlType::Q5_K) => 16,
        Some(GgmlType::Q6_K) => 18,
        Some(GgmlType::BF16) => 32,
        Some(GgmlType::TQ1_0) => 36,
        Some(GgmlType::TQ2_0) => 37,
        Some(GgmlType::MXFP4) => 38,
        Some(GgmlType::F32) | None => 0,
    }
}
