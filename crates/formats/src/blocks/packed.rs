//! Q4_0 and Q8_0 bytes to and from [`PackedMatrix`], the form the runtime computes with. Codes and scales go through unchanged.

use crate::error::{Error, Result};
use crate::gguf::GgmlType;
use half::f16;
use halfstep_kernels::WeightQuantizer;
use halfstep_kernels::pack::PackedMatrix;

const BLOCK: usize = 32;
/// What Q8_0's code -127 is stored as in a file; -128 exists there but not in our grid.
const Q8_MIN: i8 = -127;

/// The block type a packed matrix is stored as, if it is exactly one.
pub fn block_type(quantizer: WeightQuantizer) -> Option<GgmlType> {
    match quantizer {
        WeightQuantizer::Q4_0 => Some(GgmlType::Q4_0),
        WeightQuantizer::Q8_0 => Some(GgmlType::Q8_0),
        _ => None,
    }
}

/// A packed matrix from Q4_0 or Q8_0 rows; None for another type, and for Q8_0 with a code of -128, which our Q8_0 grid does not have
/// (ggml's quantizer never makes one).
pub fn unpack(kind: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Option<PackedMatrix> {
    let quantizer = match kind {
        GgmlType::Q4_0 => WeightQuantizer::Q4_0,
        GgmlType::Q8_0 => WeightQuantizer::Q8_0,
        _ => return None,
    };
    let block_bytes = super::block_bytes(kind);
    let blocks = bytes.chunks_exact(block_bytes);
    let (mut scales, mut codes) = (Vec::with_capacity(blocks.len()), Vec::with_capacity(blocks.len() * (block_bytes - 2)));
    for block in blocks {
        scales.push(super::half_at(block, 0));
        let stored = &block[2..];
        if kind == GgmlType::Q4_0 {
            codes.extend((0..BLOCK / 2).map(|i| nibble(stored, 2 * i) | nibble(stored, 2 * i + 1) << 4));
        } else {
            if stored.contains(&(i8::MIN as u8)) {
                return None;
            }
            codes.extend(stored.iter().map(|&b| b.wrapping_sub(Q8_MIN as u8)));
        }
    }
    Some(PackedMatrix { rows, cols, quantizer, codes, scales, zero_points: vec![] })
}

/// Element `j` of a Q4_0 block's nibbles.
fn nibble(stored: &[u8], j: usize) -> u8 {
    if j < BLOCK / 2 { stored[j] & 15 } else { stored[j - BLOCK / 2] >> 4 }
}

/// The block type that holds this matrix exactly (but for its scales, which [`pack_row`] checks).
///
/// Errors: `Unencodable` for another quantizer than Q4_0 or Q8_0, or rows that are not whole blocks.
pub fn check(matrix: &PackedMatrix) -> Result<GgmlType> {
    let refuse = |format: &str, reason: String| Error::Unencodable { format: format.into(), row: 0, reason };
    let Some(kind) = block_type(matrix.quantizer) else {
        let quantizer = matrix.quantizer;
        let would = "Q4_0 (symmetric 4 bit) and Q8_0 (narrow 8 bit) with groups of 32 and f16 scales are, and the halfstep format holds any grid";
        return Err(refuse("gguf", format!("{quantizer:?} is not a block type of GGUF; {would}")));
    };
    if !matrix.cols.is_multiple_of(BLOCK) {
        return Err(refuse(kind.name(), format!("rows of {} columns are not whole blocks of {BLOCK}; the halfstep format holds them", matrix.cols)));
    }
    Ok(kind)
}

/// The bytes of one row of a packed matrix.
///
/// Errors: `Unencodable` as [`check`] gives it, or for a scale that is not an f16 number.
pub fn pack_row(matrix: &PackedMatrix, row: usize) -> Result<Vec<u8>> {
    let refuse = |format: &str, reason: String| Error::Unencodable { format: format.into(), row, reason };
    let kind = check(matrix)?;
    let (blocks, code_bytes) = (matrix.cols / BLOCK, super::block_bytes(kind) - 2);
    let codes = &matrix.codes[row * blocks * code_bytes..][..blocks * code_bytes];
    let mut out = Vec::with_capacity(blocks * (code_bytes + 2));
    for (codes, &scale) in codes.chunks_exact(code_bytes).zip(&matrix.scales[row * blocks..][..blocks]) {
        let stored = f16::from_f32(scale);
        if stored.to_f32().to_bits() != scale.to_bits() && !scale.is_nan() {
            return Err(refuse(kind.name(), format!("scale {scale:e} is not an f16 number")));
        }
        out.extend(stored.to_le_bytes());
        if kind == GgmlType::Q4_0 {
            let code = |j: usize| codes[j / 2] >> (j % 2 * 4) & 15;
            out.extend((0..BLOCK / 2).map(|j| code(j) | code(j + BLOCK / 2) << 4));
        } else {
            out.extend(codes.iter().map(|&c| c.wrapping_add(Q8_MIN as u8)));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_rows_give_back_their_bytes_and_values() {
        let (rows, cols) = (3, 96);
        for kind in [GgmlType::Q4_0, GgmlType::Q8_0] {
            let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 89 % 257) as f32 - 128.0) * 0.01).collect();
            let bytes: Vec<u8> = values.chunks(cols).flat_map(|row| super::super::encode(kind, row).expect("encodable")).collect();
            let matrix = unpack(kind, rows, cols, &bytes).expect("packed");
            let again: Vec<u8> = (0..rows).flat_map(|row| pack_row(&matrix, row).expect("packable")).collect();
            assert_eq!(bytes, again, "{}", kind.name());
            let mut want = vec![0.0; cols];
            for row in 0..rows {
                super::super::decode(kind, &bytes[row * bytes.len() / rows..][..bytes.len() / rows], &mut want);
                let bits = matrix.quantizer.grid.bits as usize;
                let code = |col: usize| if bits == 4 { matrix.codes[row * cols / 2 + col / 2] >> (col % 2 * 4) & 15 } else { matrix.codes[row * cols + col] };
                for (col, want) in want.iter().enumerate() {
                    let got = (code(col) as i32 + matrix.quantizer.grid.min()) as f32 * matrix.scales[row * cols / 32 + col / 32];
                    assert_eq!(got.to_bits(), want.to_bits(), "{} row {row} col {col}", kind.name());
                }
            }
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
