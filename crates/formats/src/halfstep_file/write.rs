//! Writing: the same model gives the same bytes, and nothing is written that the reader would
//! refuse.

use super::linears::{self, StoredLinear};
use super::quantizers::{StoredQuantizer, StoredSpec};
use super::*;
use crate::error::{Error, Result};
use crate::hugging_face::check_vocabulary;
use crate::low_rank::LowRank;
use crate::model::{Model, Tensor, TensorData};
use crate::safetensors::{self, Entry};
use crate::{config, inventory};
use half::f16;
use half::slice::HalfFloatSliceExt;
use halfstep_kernels::pack::pack_row;
use halfstep_kernels::quant::tensor::QuantTensor;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

/// Writes the whole file. Errors: `MissingTensor`, `Shape`, `Unsupported` (a tensor, key, low-rank
/// factor or other part of a linear without a place), `Unencodable` (a value outside of its grid, a
/// scale that its codec does not hold), `Io`.
pub fn write(model: &Model, out: &mut dyn Write) -> Result<()> {
    let wanted = model.architecture.tensors();
    inventory::check_shapes(&model.name, &wanted, |name| {
        model.tensors.get(name).map(|t| t.shape.clone())
    })?;
    let present: BTreeMap<&str, ()> = model.tensors.keys().map(|k| (k.as_str(), ())).collect();
    if let Some(name) = inventory::extra(&wanted, &present).first() {
        let name = format!("tensor {name}");
        return Err(Error::Unsupported {
            file: model.name.clone(),
            name,
            reason: "the architecture has no place for it".into(),
            offset: None,
        });
    }
    let mut weights = Weights::default();
    for (name, tensor) in &model.tensors {
        weights.add(name, tensor)?;
    }
    model.check_low_rank()?;
    for (name, factors) in &model.low_rank {
        weights.add_low_rank(name, factors)?;
    }
    model.check_linear_parts()?;
    for (name, parts) in &model.linear_parts {
        let shape = [model.tensors[name].rows(), model.tensors[name].cols()];
        let linear = linears::store(name, shape, parts, &mut weights.entries)?;
        weights.linears.insert(name, linear);
    }
    let mut metadata = metadata(model, &weights)?;
    if let Some(q) = &model.quantization {
        q.check(&model.architecture).map_err(|reason| unencodable(key::QUANTIZATION, reason))?;
        let without_steps = Quantization { static_scales: BTreeMap::new(), ..q.clone() };
        metadata.insert(key::QUANTIZATION.into(), json(&without_steps)?);
        step_entries(&model.architecture, q, &mut weights)?;
    }
    if let Some((name, value)) = metadata.iter().find(|(name, value)| value.len() > value_cap(name))
    {
        return Err(unencodable(
            name,
            format!("{} bytes, more than {}", value.len(), value_cap(name)),
        ));
    }
    let mut entries = weights.entries;
    if let Some(tokenizer) = &model.tokenizer {
        check_vocabulary(tokenizer, &model.architecture, &model.name)?;
        let text = tokenizer.to_json().into_bytes();
        entries.push(Entry {
            name: TOKENIZER.into(),
            dtype: Dtype::U8,
            shape: vec![text.len()],
            data: text.into(),
        });
    }
    safetensors::write(entries, &metadata, out)
        .map_err(|source| Error::Io { path: model.name.clone(), source })
}

fn unencodable(what: &str, reason: String) -> Error {
    Error::Unencodable { format: "halfstep".into(), row: 0, reason: format!("{what}: {reason}") }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| unencodable("metadata", e.to_string()))
}

fn metadata(model: &Model, weights: &Weights) -> Result<BTreeMap<String, String>> {
    let config = config::to_json(&model.architecture)?.to_string();
    if config::parse(key::CONFIG, config.as_bytes())? != model.architecture {
        return Err(unencodable(key::CONFIG, "does not read back as it was".into()));
    }
    let mut metadata: BTreeMap<String, String> = model
        .provenance
        .iter()
        .map(|(k, v)| (format!("{}{k}", key::PROVENANCE_PREFIX), v.clone()))
        .collect();
    let alike = model.quantization.as_ref().is_none_or(|q| q.exceptions.is_empty());
    let of_version_1: Option<BTreeMap<&str, StoredQuantizer>> = (weights.packed.iter())
        .map(|(&name, &spec)| Some((name, StoredQuantizer::new(spec).filter(|_| alike)?)))
        .collect();
    let of_version_1 = of_version_1.filter(|_| alike && weights.linears.is_empty());
    let version = if of_version_1.is_some() { FORMAT_VERSION } else { FORMAT_VERSION_2 };
    metadata.insert(FORMAT_KEY.into(), version.into());
    metadata.insert(key::NAME.into(), model.name.clone());
    metadata.insert(key::CONFIG.into(), config);
    if !weights.packed.is_empty() {
        let of_version_2: BTreeMap<&str, StoredSpec> =
            weights.packed.iter().map(|(&name, &spec)| (name, spec.into())).collect();
        let weights = of_version_1.map_or_else(|| json(&of_version_2), |specs| json(&specs))?;
        metadata.insert(key::WEIGHTS.into(), weights);
    }
    if !weights.blocks.is_empty() {
        metadata.insert(key::BLOCKS.into(), json(&weights.blocks)?);
    }
    if !weights.low_rank.is_empty() {
        metadata.insert(key::LOW_RANK.into(), json(&weights.low_rank)?);
    }
    if !weights.linears.is_empty() {
        metadata.insert(key::LINEARS.into(), json(&weights.linears)?);
    }
    if let Some(template) = &model.chat_template {
        metadata.insert(key::CHAT_TEMPLATE.into(), template.clone());
    }
    Ok(metadata)
}

/// The tensors to write, and how each weight that is not float is stored.
#[derive(Default)]
struct Weights<'a> {
    entries: Vec<Entry<'a>>,
    packed: BTreeMap<&'a str, QuantSpec>,
    blocks: BTreeMap<&'a str, &'static str>,
    low_rank: BTreeMap<&'a str, usize>,
    linears: BTreeMap<&'a str, StoredLinear>,
}

impl<'a> Weights<'a> {
    fn add(&mut self, name: &'a str, tensor: &'a Tensor) -> Result<()> {
        match &tensor.data {
            TensorData::Packed(matrix) => {
                self.packed.insert(name, matrix.spec);
                packed_entries(name, &tensor.shape, matrix, &mut self.entries)
            }
            TensorData::Blocks { kind, bytes } => {
                let row_bytes = crate::blocks::row_bytes(*kind, tensor.cols());
                let is_matrix = tensor.shape.len() == 2 && !kind.is_float();
                let Some(row_bytes) =
                    row_bytes.filter(|b| is_matrix && b * tensor.rows() == bytes.len())
                else {
                    return Err(unencodable(
                        name,
                        format!(
                            "{} bytes of {} blocks for shape {:?}",
                            bytes.len(),
                            kind.name(),
                            tensor.shape
                        ),
                    ));
                };
                self.blocks.insert(name, kind.name());
                self.entries.push(entry(
                    name,
                    part::BLOCKS,
                    Dtype::U8,
                    vec![tensor.rows(), row_bytes],
                    bytes,
                ));
                Ok(())
            }
            float => {
                let entry = float_entry(name, &tensor.shape, float);
                self.entries.push(entry.ok_or_else(|| {
                    unencodable(name, "as many values as its shape says are needed".into())
                })?);
                Ok(())
            }
        }
    }

    /// Checked factors.
    fn add_low_rank(&mut self, name: &'a str, factors: &'a LowRank) -> Result<()> {
        if !self.packed.contains_key(name) {
            return Err(unencodable(
                name,
                "low-rank factors of a weight that is not packed".into(),
            ));
        }
        let LowRank { rank, a, b } = factors;
        let values =
            |factor: &'a [f16]| -> &'a [u8] { bytemuck::cast_slice(factor.reinterpret_cast()) };
        self.low_rank.insert(name, *rank);
        self.entries.push(entry(
            name,
            part::LOW_RANK_A,
            Dtype::F16,
            vec![*rank, a.len() / rank],
            values(a),
        ));
        self.entries.push(entry(
            name,
            part::LOW_RANK_B,
            Dtype::F16,
            vec![b.len() / rank, *rank],
            values(b),
        ));
        Ok(())
    }
}

pub(super) fn entry<'a>(
    name: &str,
    part: &str,
    dtype: Dtype,
    shape: Vec<usize>,
    data: impl Into<Cow<'a, [u8]>>,
) -> Entry<'a> {
    Entry { name: format!("{name}.{part}"), dtype, shape, data: data.into() }
}

/// A float tensor as it is stored; None for packed data or another number of values than the shape
/// says.
pub(crate) fn float_entry<'a>(
    name: &str,
    shape: &[usize],
    data: &'a TensorData,
) -> Option<Entry<'a>> {
    let (dtype, bytes): (Dtype, &[u8]) = match data {
        TensorData::F32(v) => (Dtype::F32, bytemuck::cast_slice(v)),
        TensorData::F16(v) => (Dtype::F16, bytemuck::cast_slice(v.reinterpret_cast())),
        TensorData::BF16(v) => (Dtype::BF16, bytemuck::cast_slice(v.reinterpret_cast())),
        TensorData::Packed(_) | TensorData::Blocks { .. } => return None,
    };
    let fits = shape.iter().product::<usize>() * dtype.bytes() == bytes.len();
    fits.then(|| Entry { name: name.into(), dtype, shape: shape.to_vec(), data: bytes.into() })
}

/// The tensors of a packed weight of this shape.
pub(super) fn packed_entries<'a>(
    name: &str,
    shape: &[usize],
    matrix: &'a QuantTensor,
    entries: &mut Vec<Entry<'a>>,
) -> Result<()> {
    checked_entries(name, shape, matrix, entries).map_err(|(row, reason)| Error::Unencodable {
        format: "halfstep".into(),
        row,
        reason: format!("{name}: {reason}"),
    })
}

/// The row of a fault, and the fault.
fn checked_entries<'a>(
    name: &str,
    shape: &[usize],
    matrix: &'a QuantTensor,
    entries: &mut Vec<Entry<'a>>,
) -> std::result::Result<(), Fault> {
    let QuantTensor { rows, cols, spec: q, codes, scales, outer_scales, zero_points, tables } =
        matrix;
    let (rows, cols) = (*rows, *cols);
    check_quantizer(*q).map_err(|reason| (0, reason))?;
    let code_bytes = row_bytes(cols, q.bits());
    let scale_count = q.granularity.scales(rows, cols);
    let outer = super::outer_scales(*q, rows, cols);
    let zero_count = if q.has_zero_point() { scale_count } else { 0 };
    let levels = q.row_table().map_or(0, |table| table.levels());
    if shape != [rows, cols]
        || tables.len() != rows * levels
        || (codes.len(), scales.len(), zero_points.len(), outer_scales.len())
            != (rows * code_bytes, scale_count, zero_count, outer.map_or(0, |(_, count)| count))
    {
        let sizes = format!(
            "{rows} x {cols}, {} bytes of codes, {} scales, {} zero points",
            codes.len(),
            scales.len(),
            zero_points.len()
        );
        return Err((0, format!("parts do not fit together: {sizes}")));
    }
    check_codes(*q, cols, codes).map_err(|(at, reason)| (at / code_bytes, reason))?;
    let row_of_scale = |(at, reason): Fault| (at * rows / scale_count, reason);
    check_scales(scales).map_err(row_of_scale)?;
    check_zero_points(*q, zero_points).map_err(row_of_scale)?;
    q.check_tables(tables).map_err(|(at, reason)| (at / levels, reason))?;
    let shape = scale_shape(q.granularity, rows, cols);
    let codec = if q.scale.is_nested() { "nested".into() } else { format!("{:?}", q.scale) };
    let codec = codec.to_lowercase();
    let no_number =
        |i: usize| row_of_scale((i, format!("scale {:e} is no {codec} number", scales[i])));
    let per_row = q.granularity.groups(cols);
    let scale_bytes = q.scale.encode(scales, outer_scales, per_row).map_err(no_number)?;
    if let Some((codec, count)) = outer {
        check_outer_scales(outer_scales).map_err(|(_, reason)| (0, reason))?;
        let bytes = codec.encode(outer_scales, &[], 1).map_err(|i| {
            (0, format!("outer scale {:e} is no number of its codec", outer_scales[i]))
        })?;
        entries.push(entry(name, part::OUTER_SCALE, scale_dtype(codec), vec![count], bytes));
    }
    entries.push(entry(name, part::CODES, Dtype::U8, vec![rows, code_bytes], codes));
    entries.push(entry(name, part::SCALE, scale_dtype(q.scale), shape, scale_bytes));
    if levels > 0 {
        let bytes: &[u8] = bytemuck::cast_slice(tables);
        entries.push(entry(name, part::LEVELS, Dtype::I8, vec![rows, levels], bytes));
    }
    if let Some(shape) = q.zero_point_shape(rows, cols) {
        entries.push(entry(
            name,
            part::ZERO_POINT,
            Dtype::U8,
            shape.into(),
            packed_zero_points(*q, shape, zero_points),
        ));
    }
    Ok(())
}

/// Each row of zero points as a row of codes.
fn packed_zero_points(spec: QuantSpec, [rows, bytes]: [usize; 2], zero_points: &[u8]) -> Vec<u8> {
    let codes: Vec<i16> = zero_points.iter().map(|&z| z.into()).collect();
    let mut packed = vec![0; rows * bytes];
    let groups = (codes.len() / rows.max(1)).max(1);
    codes
        .chunks_exact(groups)
        .zip(packed.chunks_exact_mut(bytes.max(1)))
        .for_each(|(row, out)| pack_row(row, spec, out));
    packed
}

fn step_entries<'a>(
    a: &Architecture,
    q: &'a Quantization,
    weights: &mut Weights<'a>,
) -> Result<()> {
    let wrong = |name: &str, reason: String| unencodable(&format!("step {name}"), reason);
    let steps = static_scales(a, Some(q), |name| weights.packed.contains_key(name));
    if let Some(name) = steps.required.iter().find(|name| !q.static_scales.contains_key(*name)) {
        return Err(wrong(name, "a static quantizer needs it".into()));
    }
    for (name, step) in &q.static_scales {
        if !steps.allowed.contains(name) {
            return Err(wrong(name, "no static quantizer reads it".into()));
        }
        check_step(*step).map_err(|reason| wrong(name, reason))?;
        weights.entries.push(Entry {
            name: name.clone(),
            dtype: Dtype::F32,
            shape: vec![1],
            data: step.to_le_bytes().to_vec().into(),
        });
    }
    Ok(())
}
