//! Q4_0, Q8_0 and TQ2_0 bytes to and from [`QuantTensor`], the form the runtime computes with.
//! Codes and scales go through unchanged.

use super::tq2_0;
use crate::error::{Error, Result};
use crate::gguf::GgmlType;
use half::f16;
use halfstep_kernels::QuantSpec;
use halfstep_kernels::quant::tensor::QuantTensor;

/// The types that are packed, and the quantizer each is.
const TYPES: [(GgmlType, QuantSpec); 3] = [
    (GgmlType::Q4_0, QuantSpec::Q4_0),
    (GgmlType::Q8_0, QuantSpec::Q8_0),
    (GgmlType::TQ2_0, QuantSpec::TQ2_0),
];
/// Values of a block of Q4_0 or Q8_0.
const BLOCK: usize = 32;
/// What Q8_0's code -127 is stored as in a file; -128 exists there but not in our grid.
const Q8_MIN: i8 = -127;

/// The block type a packed matrix is stored as, if it is exactly one.
pub fn block_type(quantizer: QuantSpec) -> Option<GgmlType> {
    TYPES.iter().find(|(_, q)| *q == quantizer).map(|(kind, _)| *kind)
}

/// Bytes of a block before its f16 scale; the rest of the codes follow it.
const fn scale_offset(kind: GgmlType) -> usize {
    if matches!(kind, GgmlType::TQ2_0) { super::block_bytes(kind) - 2 } else { 0 }
}

/// A packed matrix from rows of a packed type; None for another type, and for a code that our grid
/// does not have and ggml's quantizer never makes: -128 in Q8_0, 3 in TQ2_0.
pub fn unpack(kind: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Option<QuantTensor> {
    let (_, quantizer) = *TYPES.iter().find(|(k, _)| *k == kind)?;
    let (block_bytes, at) = (super::block_bytes(kind), scale_offset(kind));
    let blocks = bytes.chunks_exact(block_bytes);
    let (mut scales, mut codes) =
        (Vec::with_capacity(blocks.len()), Vec::with_capacity(blocks.len() * (block_bytes - 2)));
    for block in blocks {
        scales.push(super::half_at(block, at));
        let stored = if at == 0 { &block[2..] } else { &block[..at] };
        match kind {
            GgmlType::Q4_0 => codes.extend(
                (0..BLOCK / 2).map(|i| nibble(stored, 2 * i) | nibble(stored, 2 * i + 1) << 4),
            ),
            GgmlType::Q8_0 if stored.contains(&(i8::MIN as u8)) => return None,
            GgmlType::Q8_0 => codes.extend(stored.iter().map(|&b| b.wrapping_sub(Q8_MIN as u8))),
            // Both bits of a code.
            _ if stored.iter().any(|b| b & b >> 1 & 0x55 != 0) => return None,
            _ => codes.extend(ternary_in_order(stored)),
        }
    }
    let (outer_scales, zero_points) = (vec![], vec![]);
    Some(QuantTensor { rows, cols, spec: quantizer, codes, scales, outer_scales, zero_points })
}

/// Element `j` of a Q4_0 block's nibbles.
fn nibble(stored: &[u8], j: usize) -> u8 {
    if j < BLOCK / 2 { stored[j] & 15 } else { stored[j - BLOCK / 2] >> 4 }
}

/// The codes of a TQ2_0 block, four to a byte, in the order of their elements.
fn ternary_in_order(stored: &[u8]) -> [u8; 64] {
    let mut codes = [0; 64];
    for (byte, &q) in stored.iter().enumerate() {
        for part in 0..4 {
            let element = tq2_0::element(byte, part);
            codes[element / 4] |= (q >> (2 * part) & 3) << (element % 4 * 2);
        }
    }
    codes
}

/// The inverse of [`ternary_in_order`].
fn ternary_as_stored(codes: &[u8]) -> [u8; 64] {
    let code = |element: usize| codes[element / 4] >> (element % 4 * 2) & 3;
    std::array::from_fn(|byte| {
        (0..4).fold(0, |q, part| q | code(tq2_0::element(byte, part)) << (2 * part))
    })
}

/// The block type that holds this matrix exactly (but for its scales, which [`pack_row`] checks).
///
/// Errors: `Unencodable` for another quantizer than those of the packed types, or rows that are not
/// whole blocks.
pub fn check(matrix: &QuantTensor) -> Result<GgmlType> {
    let refuse =
        |format: &str, reason: String| Error::Unencodable { format: format.into(), row: 0, reason };
    let Some(kind) = block_type(matrix.spec) else {
        let quantizer = matrix.spec;
        let would = "Q4_0 (symmetric 4 bit) and Q8_0 (narrow 8 bit) with groups of 32, TQ2_0 (narrow 2 bit) with groups of 256, all with f16 scales, are";
        return Err(refuse(
            "gguf",
            format!(
                "{quantizer:?} is not a block type of GGUF; {would}, and the halfstep format holds any grid"
            ),
        ));
    };
    let block = super::block_elements(kind);
    if !matrix.cols.is_multiple_of(block) {
        return Err(refuse(
            kind.name(),
            format!(
                "rows of {} columns are not whole blocks of {block}; the halfstep format holds them",
                matrix.cols
            ),
        ));
    }
    Ok(kind)
}

/// The bytes of one row of a packed matrix.
///
/// Errors: `Unencodable` as [`check`] gives it, or for a scale that is not an f16 number.
pub fn pack_row(matrix: &QuantTensor, row: usize) -> Result<Vec<u8>> {
    let refuse =
        |format: &str, reason: String| Error::Unencodable { format: format.into(), row, reason };
    let kind = check(matrix)?;
    let (blocks, code_bytes) =
        (matrix.cols / super::block_elements(kind), super::block_bytes(kind) - 2);
    let codes = &matrix.codes[row * blocks * code_bytes..][..blocks * code_bytes];
    let mut out = Vec::with_capacity(blocks * (code_bytes + 2));
    for (codes, &scale) in
        codes.chunks_exact(code_bytes).zip(&matrix.scales[row * blocks..][..blocks])
    {
        let stored = f16::from_f32(scale);
        if stored.to_f32().to_bits() != scale.to_bits() && !scale.is_nan() {
            return Err(refuse(kind.name(), format!("scale {scale:e} is not an f16 number")));
        }
        let place = out.len() + scale_offset(kind);
        match kind {
            GgmlType::Q4_0 => {
                let code = |j: usize| codes[j / 2] >> (j % 2 * 4) & 15;
                out.extend((0..BLOCK / 2).map(|j| code(j) | code(j + BLOCK / 2) << 4));
            }
            GgmlType::Q8_0 => out.extend(codes.iter().map(|&c| c.wrapping_add(Q8_MIN as u8))),
            _ => out.extend(ternary_as_stored(codes)),
        }
        out.splice(place..place, stored.to_le_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_rows_give_back_their_bytes_and_values() {
        for (kind, quantizer) in TYPES {
            let (rows, cols) = (3, 3 * super::super::block_elements(kind));
            let values: Vec<f32> =
                (0..rows * cols).map(|i| ((i * 89 % 257) as f32 - 128.0) * 0.01).collect();
            let bytes: Vec<u8> = values
                .chunks(cols)
                .flat_map(|row| super::super::encode(kind, row).expect("encodable"))
                .collect();
            let matrix = unpack(kind, rows, cols, &bytes).expect("packed");
            let again: Vec<u8> =
                (0..rows).flat_map(|row| pack_row(&matrix, row).expect("packable")).collect();
            assert_eq!(bytes, again, "{}", kind.name());
            assert_eq!((matrix.spec, block_type(quantizer)), (quantizer, Some(kind)));
            let (mut want, mut got) = (vec![0.0; cols], vec![0.0; cols]);
            for row in 0..rows {
                super::super::decode(
                    kind,
                    &bytes[row * bytes.len() / rows..][..bytes.len() / rows],
                    &mut want,
                );
                matrix.decode_row(row, &mut got);
                assert!(
                    got.iter().map(|v| v.to_bits()).eq(want.iter().map(|v| v.to_bits())),
                    "{} row {row}",
                    kind.name()
                );
            }
        }
    }

    /// In every place of a block.
    #[test]
    fn a_ternary_code_of_3_stays_in_its_block() {
        for bit in (0..512).step_by(2) {
            let mut bytes = [0u8; 66];
            bytes[bit / 8] = 2 << (bit % 8);
            assert!(unpack(GgmlType::TQ2_0, 1, 256, &bytes).is_some(), "2 at bit {bit}");
            bytes[bit / 8] = 3 << (bit % 8);
            assert!(unpack(GgmlType::TQ2_0, 1, 256, &bytes).is_none(), "3 at bit {bit}");
        }
    }

    #[test]
    fn a_code_of_minus_128_stays_in_its_block() {
        let mut bytes = vec![0u8; 34];
        bytes[5] = 0x80;
        assert!(unpack(GgmlType::Q8_0, 1, 32, &bytes).is_none());
        bytes[5] = 0x81;
        assert!(unpack(GgmlType::Q8_0, 1, 32, &bytes).is_some());
    }

    #[test]
    fn a_scale_between_two_halves_is_refused() {
        let mut matrix = unpack(GgmlType::Q8_0, 1, 32, &[0u8; 34]).expect("packed");
        matrix.scales[0] = 1.0 + 1e-5;
        assert!(matches!(pack_row(&matrix, 0), Err(Error::Unencodable { .. })));
    }
}
