//! The `halfstep` file: safetensors with packed codes and scales, everything a model needs in one
//! file; docs/format.md is its description.
//!
//! This module is the layout (names, shapes, what a value may be), which reader and writer share:
//! what the reader refuses, the writer cannot make.

mod linears;
mod packed;
mod quantizers;
mod read;
mod write;

pub use read::{describe, read};
pub(crate) use write::float_entry;
pub use write::write;

use crate::architecture::Architecture;
use crate::config::{MAX_CONFIG_BYTES, MAX_INTERMEDIATE};
use crate::hugging_face::MAX_TEMPLATE_BYTES;
use crate::quantization::Quantization;
use crate::safetensors::{Dtype, MAX_HEADER_BYTES};
use halfstep_kernels::pack::{row_bytes, unpack_row};
use halfstep_kernels::{Granularity, QuantSpec, ScaleCodec};
use std::collections::BTreeSet;

/// Metadata key that makes a safetensors file ours.
pub const FORMAT_KEY: &str = "halfstep.format";
/// The version of a file that holds integers with f32 or f16 scales.
pub const FORMAT_VERSION: &str = "1";
/// The version of a file that holds tables of levels, other codecs of scales, other parts of linears
/// than weight, bias and factors, or quantizers of activations or cache that differ between sites.
pub const FORMAT_VERSION_2: &str = "2";

mod key {
    pub const NAME: &str = "halfstep.name";
    pub const CONFIG: &str = "halfstep.config";
    /// JSON: weight name to `StoredQuantizer`.
    pub const WEIGHTS: &str = "halfstep.weights";
    /// JSON: weight name to ggml block type.
    pub const BLOCKS: &str = "halfstep.blocks";
    /// JSON: weight name to the rank of the factors beside it.
    pub const LOW_RANK: &str = "halfstep.low_rank";
    /// JSON: weight name to `StoredLinear`, the other parts of the linear. Version 2 only.
    pub const LINEARS: &str = "halfstep.linears";
    pub const QUANTIZATION: &str = "halfstep.quantization";
    pub const CHAT_TEMPLATE: &str = "halfstep.chat_template";
    pub const PROVENANCE_PREFIX: &str = "halfstep.provenance.";
}

/// Longest value of a metadata key, in bytes; a provenance value is bounded by the header alone.
fn value_cap(key: &str) -> usize {
    match key {
        key::CHAT_TEMPLATE => MAX_TEMPLATE_BYTES as usize,
        // Room for every tensor of the largest architecture.
        key::WEIGHTS | key::BLOCKS | key::LOW_RANK | key::LINEARS => 4 << 20,
        key if key.starts_with(key::PROVENANCE_PREFIX) => MAX_HEADER_BYTES as usize,
        _ => MAX_CONFIG_BYTES,
    }
}

/// A U8 tensor: the bytes of a tokenizer.json.
const TOKENIZER: &str = "halfstep.tokenizer";

/// Stored parts of a weight are called `<weight>.codes` and so on.
mod part {
    pub const CODES: &str = "codes";
    pub const SCALE: &str = "scale";
    /// Of nested scales.
    pub const OUTER_SCALE: &str = "outer_scale";
    pub const ZERO_POINT: &str = "zero_point";
    /// Of rows that have tables of their own.
    pub const LEVELS: &str = "levels";
    pub const BLOCKS: &str = "blocks";
    pub const LOW_RANK_A: &str = "low_rank_a";
    pub const LOW_RANK_B: &str = "low_rank_b";
}

fn scale_dtype(codec: ScaleCodec) -> Dtype {
    match codec.bytes() {
        4 => Dtype::F32,
        2 => Dtype::F16,
        _ => Dtype::U8,
    }
}

/// How the scales of nested scales are stored, and their number. None: there are none.
fn outer_scales(spec: QuantSpec, rows: usize, cols: usize) -> Option<(ScaleCodec, usize)> {
    let scales = spec.granularity.scales(rows, cols);
    spec.scale.outer(scales, spec.granularity.groups(cols))
}

/// `[1]`, `[rows]` or `[rows, groups]`.
fn scale_shape(granularity: Granularity, rows: usize, cols: usize) -> Vec<usize> {
    match granularity {
        Granularity::Tensor => vec![1],
        Granularity::Channel => vec![rows],
        Granularity::Group(_) => vec![rows, granularity.groups(cols)],
    }
}

fn check_quantizer(q: QuantSpec) -> std::result::Result<(), String> {
    check_bits("weights", q.bits())?;
    if let Granularity::Group(n) = q.granularity
        && !(1..=MAX_INTERMEDIATE).contains(&n)
    {
        return Err(format!("groups of {n}, not 1 to {MAX_INTERMEDIATE}"));
    }
    q.check()
}

fn check_bits(what: &str, bits: u8) -> std::result::Result<(), String> {
    if (2..=8).contains(&bits) { Ok(()) } else { Err(format!("{what} of {bits} bits, not 2 to 8")) }
}

/// The steps a static quantizer may store, and of those the ones that the forward reads: of the
/// cache, and of the inputs of packed linears.
struct StaticScales {
    allowed: BTreeSet<String>,
    required: BTreeSet<String>,
}

fn static_scales(
    architecture: &Architecture,
    quantization: Option<&Quantization>,
    is_packed: impl Fn(&str) -> bool,
) -> StaticScales {
    let mut steps = StaticScales { allowed: BTreeSet::new(), required: BTreeSet::new() };
    let Some(q) = quantization else { return steps };
    for layer in 0..architecture.layers.len() {
        let linears = architecture.linears(layer);
        for site in architecture.sites(layer) {
            if q.at(layer, site).is_static() {
                let read = site.is_cache()
                    || linears.iter().any(|linear| {
                        linear.kind.input() == site && is_packed(&linear.kind.weight_name(layer))
                    });
                steps.allowed.insert(site.static_scale_name(layer));
                steps.required.extend(read.then(|| site.static_scale_name(layer)));
            }
        }
    }
    steps
}

/// A value that may not stand in a file: which element, and why.
type Fault = (usize, String);

/// The scales of nested scales.
fn check_outer_scales(scales: &[f32]) -> std::result::Result<(), Fault> {
    match scales.iter().position(|s| !(s.is_finite() && *s >= 0.0)) {
        Some(i) => Err((i, format!("outer scale {i} is {}, not a number from 0", scales[i]))),
        None => Ok(()),
    }
}

fn check_scales(scales: &[f32]) -> std::result::Result<(), Fault> {
    match scales.iter().position(|s| !s.is_finite()) {
        Some(i) => Err((i, format!("scale {i} is {}", scales[i]))),
        None => Ok(()),
    }
}

fn check_step(step: f32) -> std::result::Result<(), String> {
    if step.is_finite() && step > 0.0 {
        Ok(())
    } else {
        Err(format!("a step is a positive number, not {step}"))
    }
}

/// Zero points as they are in memory: codes of the grid.
fn check_zero_points(spec: QuantSpec, zero_points: &[u8]) -> std::result::Result<(), Fault> {
    match zero_points.iter().position(|&z| z as i32 > spec.max_code()) {
        Some(i) => Err((
            i,
            format!("zero point {i} is {}, outside of 0 to {}", zero_points[i], spec.max_code()),
        )),
        None => Ok(()),
    }
}

/// Every code is one of the grid, and the bits that fill up the last byte of a row are 0.
fn check_codes(spec: QuantSpec, cols: usize, codes: &[u8]) -> std::result::Result<(), Fault> {
    let bits = spec.bits();
    check_padding(bits, cols, codes)?;
    if spec.every_pattern_is_a_code() {
        return Ok(());
    }
    let (bytes, largest) = (row_bytes(cols, bits), (spec.max_code() - spec.min_code()) as u8);
    let mut unpacked = vec![0; cols];
    for (row, packed) in codes.chunks_exact(bytes.max(1)).enumerate() {
        unpack_row(packed, bits, &mut unpacked);
        if let Some(col) = unpacked.iter().position(|&c| c > largest) {
            return Err((
                row * bytes + col * bits as usize / 8,
                format!("code of row {row}, column {col} is outside of the grid"),
            ));
        }
    }
    Ok(())
}

/// Rows of `count` numbers of `bits` bits each: what is left over in a row's last byte is 0.
fn check_padding(bits: u8, count: usize, packed: &[u8]) -> std::result::Result<(), Fault> {
    let bytes = row_bytes(count, bits);
    let padding = bytes * 8 - count * bits as usize;
    let wrong = |packed: &[u8]| padding > 0 && packed[bytes - 1] >> (8 - padding) != 0;
    match packed.chunks_exact(bytes.max(1)).position(wrong) {
        Some(row) => {
            Err((row * bytes + bytes - 1, format!("row {row} is not filled up with zero bits")))
        }
        None => Ok(()),
    }
}
