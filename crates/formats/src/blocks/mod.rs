//! ggml block codecs as byte layouts, one file each: what a block's bytes mean in f32, and for the
//! types this project writes, which bytes ggml's reference quantizer gives.
//!
//! Layouts were compared with ggml's reference decoder; decoding and encoding are f32 throughout,
//! multiplication before addition, no fused multiply-add. Rows are a whole number of blocks.

#![allow(non_camel_case_types)]

mod bf16;
mod f16;
mod f32;
mod k_scales;
mod mxfp4;
pub mod packed;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod ternary;
mod tq1_0;
mod tq2_0;

use crate::error::{Error, Result};
use crate::gguf::GgmlType;

/// Why a block of values has no encoding.
type Refusal = &'static str;
/// Encodes one block of `ELEMENTS` values into `BYTES` bytes.
type EncodeBlock = fn(&[f32], &mut [u8]) -> std::result::Result<(), Refusal>;

/// One block type.
trait Codec {
    /// Values per block.
    const ELEMENTS: usize;
    /// Bytes per block.
    const BYTES: usize;
    /// None: this type is read, not made.
    const ENCODE: Option<EncodeBlock> = None;
    /// Decodes one block of `BYTES` bytes into `ELEMENTS` values.
    fn decode(block: &[u8], out: &mut [f32]);
}

/// The list of block types: `with_codec!(kind, C => body)` runs `body` with `C` the codec of
/// `kind`.
macro_rules! with_codec {
    ($kind:expr, $codec:ident => $body:expr) => {
        with_codec!(@list $kind, $codec, $body, F32 f32, F16 f16, BF16 bf16, Q4_0 q4_0, Q4_1 q4_1,
            Q5_0 q5_0, Q5_1 q5_1, Q8_0 q8_0, Q2_K q2_k, Q3_K q3_k, Q4_K q4_k, Q5_K q5_k, Q6_K q6_k,
            TQ1_0 tq1_0, TQ2_0 tq2_0, MXFP4 mxfp4)
    };
    (@list $kind:expr, $codec:ident, $body:expr, $($name:ident $module:ident),*) => {
        match $kind { $(GgmlType::$name => { type $codec = $module::$name; $body })* }
    };
}

/// Values per block.
pub const fn block_elements(kind: GgmlType) -> usize {
    with_codec!(kind, C => C::ELEMENTS)
}

/// Bytes per block.
pub const fn block_bytes(kind: GgmlType) -> usize {
    with_codec!(kind, C => C::BYTES)
}

/// Bytes of a row of `cols` values, or None if that is not a whole number of blocks (or overflows).
pub fn row_bytes(kind: GgmlType, cols: usize) -> Option<usize> {
    let elements = block_elements(kind);
    if cols.is_multiple_of(elements) {
        (cols / elements).checked_mul(block_bytes(kind))
    } else {
        None
    }
}

/// Decodes whole blocks. `bytes` and `out` must be of matching length: callers have checked sizes
/// that come from a file.
pub fn decode(kind: GgmlType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        Some(bytes.len()),
        row_bytes(kind, out.len()),
        "{}: bytes and values must match",
        kind.name()
    );
    with_codec!(kind, C => {
        for (block, out) in bytes.chunks_exact(C::BYTES).zip(out.chunks_exact_mut(C::ELEMENTS)) {
            C::decode(block, out);
        }
    })
}

/// Can [`encode`] make this type?
pub fn encodes(kind: GgmlType) -> bool {
    with_codec!(kind, C => C::ENCODE.is_some())
}

/// The bytes ggml's reference quantizer gives for one row.
///
/// Errors: `Unsupported` for a type that is only read; `Unencodable` (row 0: the caller knows which
/// row it gave) when the row is not a whole number of blocks, holds a non-finite value, or needs a
/// scale that f16 cannot hold.
pub fn encode(kind: GgmlType, row: &[f32]) -> Result<Vec<u8>> {
    let refuse = |reason: String| Error::Unencodable { format: kind.name().into(), row: 0, reason };
    let Some(bytes) = row_bytes(kind, row.len()) else {
        return Err(refuse(format!(
            "{} values are not a whole number of blocks of {}",
            row.len(),
            block_elements(kind)
        )));
    };
    with_codec!(kind, C => {
        let Some(encode_block) = C::ENCODE else {
            let reason = "this type is read, not written; Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TQ1_0, \
                 TQ2_0, MXFP4, F16, BF16 and F32 are";
            return Err(Error::Unsupported {
                file: "encoding".into(),
                name: kind.name().into(),
                reason: reason.into(), offset: None,
            });
        };
        let mut out = vec![0; bytes];
        let blocks = row.chunks_exact(C::ELEMENTS).zip(out.chunks_exact_mut(C::BYTES));
        for (i, (values, block)) in blocks.enumerate() {
            encode_block(values, block).map_err(|reason| refuse(format!("block {i}: {reason}")))?;
        }
        Ok(out)
    })
}

/// The f16 at byte `at`, as f32.
fn half_at(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Stores `value` as f16 at byte `at`.
fn store_half(block: &mut [u8], at: usize, value: f32) -> std::result::Result<(), Refusal> {
    let stored = half::f16::from_f32(value);
    if !stored.is_finite() {
        return Err("its scale or minimum is beyond f16");
    }
    block[at..at + 2].copy_from_slice(&stored.to_le_bytes());
    Ok(())
}

/// `1 / d`, 0 for 0: ggml multiplies by the inverse of the step, taken before the step's f16
/// rounding.
fn inverse(d: f32) -> std::result::Result<f32, Refusal> {
    let id = if d == 0.0 { 0.0 } else { 1.0 / d };
    if d.is_finite() && id.is_finite() { Ok(id) } else { Err("its step has no finite inverse") }
}

fn check_finite(values: &[f32]) -> std::result::Result<(), Refusal> {
    if values.iter().all(|v| v.is_finite()) { Ok(()) } else { Err("a value is not finite") }
}

/// The first element of largest magnitude, with its sign; 0 for zeros.
fn signed_max(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |max, &v| if v.abs() > max.abs() { v } else { max })
}

/// Smallest and largest value.
fn min_max(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(min, max), &v| {
        (if v < min { v } else { min }, if v > max { v } else { max })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_no_whole_number_of_blocks_is_refused() {
        for kind in GgmlType::ALL.into_iter().filter(|&k| encodes(k) && block_elements(k) > 1) {
            assert!(
                matches!(encode(kind, &[1.0; 33]), Err(Error::Unencodable { .. })),
                "{}",
                kind.name()
            );
        }
    }

    #[test]
    fn non_finite_values_are_refused_by_block_types() {
        for kind in GgmlType::ALL.into_iter().filter(|&k| encodes(k) && block_elements(k) > 1) {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut row = vec![0.5; 256];
                row[200] = bad;
                assert!(
                    matches!(encode(kind, &row), Err(Error::Unencodable { .. })),
                    "{} {bad}",
                    kind.name()
                );
            }
        }
    }

    #[test]
    fn types_that_are_only_read_are_refused_by_name() {
        match encode(GgmlType::Q6_K, &[0.0; 256]) {
            Err(Error::Unsupported { name, .. }) => assert_eq!(name, "Q6_K"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn encoding_is_idempotent() {
        // A decoded row of Q8_0 or a ternary type lies on its own grid, so encoding it again
        // changes no byte.
        let row: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0).collect();
        for kind in [
            GgmlType::Q4_0,
            GgmlType::Q5_0,
            GgmlType::TQ1_0,
            GgmlType::TQ2_0,
            GgmlType::MXFP4,
            GgmlType::F16,
            GgmlType::BF16,
            GgmlType::F32,
        ] {
            let bytes = encode(kind, &row).expect("encodable");
            let mut values = vec![0.0; 256];
            decode(kind, &bytes, &mut values);
            let again = encode(kind, &values).expect("encodable");
            assert_eq!(bytes, again, "{}", kind.name());
        }
    }
}
