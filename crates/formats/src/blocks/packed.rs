//! Q4_0, Q4_1, Q8_0 and TQ2_0 bytes to and from [`QuantTensor`], the form the runtime computes with.
//! Codes and scales go through unchanged, and so do zero points: Q4_1 holds one as m = -z * d, which
//! is exact for scales of [`halfstep_kernels::ScaleCodec::F16Short`].

use super::tq2_0;
use crate::error::{Error, Result};
use crate::gguf::GgmlType;
use half::f16;
use halfstep_kernels::QuantSpec;
use halfstep_kernels::quant::tensor::QuantTensor;

/// The types that are packed, and the quantizer each is.
const TYPES: [(GgmlType, QuantSpec); 4] = [
    (GgmlType::Q4_0, QuantSpec::Q4_0),
    (GgmlType::Q4_1, QuantSpec::Q4_1),
    (GgmlType::Q8_0, QuantSpec::Q8_0),
    (GgmlType::TQ2_0, QuantSpec::TQ2_0),
];
/// Values of a block of Q4_0, Q4_1 or Q8_0.
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

/// Bytes of a block's codes: all but the f16 scale and, in Q4_1, the f16 minimum after it.
const fn code_bytes(kind: GgmlType) -> usize {
    super::block_bytes(kind) - if matches!(kind, GgmlType::Q4_1) { 4 } else { 2 }
}

/// What Q4_1 stores for a zero point in addition to the scale: -z * d. None for what does not come
/// back from it: a scale of another codec or below 0, no code, and a zero point of a scale of 0.
fn minimum(scale: f32, zero_point: u8) -> Option<f16> {
    let stored = QuantSpec::Q4_1.scale.store(scale);
    let held = stored == scale && stored.is_finite() && scale.is_sign_positive();
    let least = if scale == 0.0 { 0 } else { QuantSpec::Q4_1.max_code() };
    (held && i32::from(zero_point) <= least).then(|| match zero_point {
        // Not -0, which ggml's quantizer does not write for a group from 0 on either.
        0 => f16::ZERO,
        z => f16::from_f32(f32::from(z) * -scale),
    })
}

/// The inverse of [`minimum`]. None: the minimum is no such multiple of the scale.
fn zero_point(scale: f32, stored: f32) -> Option<u8> {
    // The conversion saturates, and makes 0 of 0 / 0.
    let zero_point = (-stored / scale).round_ties_even() as u8;
    let own = minimum(scale, zero_point)?;
    (own.to_f32().to_bits() == stored.to_bits()).then_some(zero_point)
}

/// A packed matrix from rows of a packed type; None for another type, for a code that our grid does
/// not have and ggml's quantizer never makes (-128 in Q8_0, 3 in TQ2_0), and for a minimum in Q4_1
/// that stands for no zero point, as those of ggml's quantizer.
pub fn unpack(kind: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Option<QuantTensor> {
    let (_, quantizer) = *TYPES.iter().find(|(k, _)| *k == kind)?;
    let (block_bytes, at) = (super::block_bytes(kind), scale_offset(kind));
    let blocks = bytes.chunks_exact(block_bytes);
    let code_bytes = code_bytes(kind);
    let (mut scales, mut codes) =
        (Vec::with_capacity(blocks.len()), Vec::with_capacity(blocks.len() * code_bytes));
    let mut zero_points = vec![];
    for block in blocks {
        let scale = super::half_at(block, at);
        scales.push(scale);
        if kind == GgmlType::Q4_1 {
            zero_points.push(zero_point(scale, super::half_at(block, 2))?);
        }
        let stored = if at == 0 { &block[block_bytes - code_bytes..] } else { &block[..at] };
        match kind {
            GgmlType::Q4_0 | GgmlType::Q4_1 => codes.extend(
                (0..BLOCK / 2).map(|i| nibble(stored, 2 * i) | nibble(stored, 2 * i + 1) << 4),
            ),
            GgmlType::Q8_0 if stored.contains(&(i8::MIN as u8)) => return None,
            GgmlType::Q8_0 => codes.extend(stored.iter().map(|&b| b.wrapping_sub(Q8_MIN as u8))),
            // Both bits of a code.
            _ if stored.iter().any(|b| b & b >> 1 & 0x55 != 0) => return None,
            _ => codes.extend(ternary_in_order(stored)),
        }
    }
    let outer_scales = vec![];
    let (spec, tables) = (quantizer, vec![]);
    Some(QuantTensor { rows, cols, spec, codes, scales, outer_scales, zero_points, tables })
}

/// Element `j` of the nibbles of a Q4_0 or Q4_1 block.
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

/// The block type that holds this matrix exactly (but for scales and zero points, which [`pack_row`]
/// checks).
///
/// Errors: `Unencodable` for another quantizer than those of the packed types, or rows that are not
/// whole blocks.
pub fn check(matrix: &QuantTensor) -> Result<GgmlType> {
    let refuse =
        |format: &str, reason: String| Error::Unencodable { format: format.into(), row: 0, reason };
    let Some(kind) = block_type(matrix.spec) else {
        let quantizer = matrix.spec;
        let would = "Q4_0 (symmetric 4 bit) and Q8_0 (narrow 8 bit) with groups of 32, TQ2_0 (narrow 2 bit) with groups of 256, all with f16 scales, and Q4_1 (unsigned 4 bit with zero points, groups of 32, f16short scales) are";
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
/// Errors: `Unencodable` as [`check`] gives it, for a scale that is not an f16 number, and for a scale
/// and zero point that Q4_1 does not hold.
pub fn pack_row(matrix: &QuantTensor, row: usize) -> Result<Vec<u8>> {
    let refuse =
        |format: &str, reason: String| Error::Unencodable { format: format.into(), row, reason };
    let kind = check(matrix)?;
    let (blocks, code_bytes) = (matrix.cols / super::block_elements(kind), code_bytes(kind));
    let codes = &matrix.codes[row * blocks * code_bytes..][..blocks * code_bytes];
    let mut out = Vec::with_capacity(blocks * super::block_bytes(kind));
    for (codes, index) in codes.chunks_exact(code_bytes).zip(row * blocks..) {
        let scale = matrix.scales[index];
        let stored = f16::from_f32(scale);
        if stored.to_f32().to_bits() != scale.to_bits() && !scale.is_nan() {
            return Err(refuse(kind.name(), format!("scale {scale:e} is not an f16 number")));
        }
        let start = out.len();
        if kind == GgmlType::Q4_1 {
            let zero_point = matrix.zero_points[index];
            let Some(minimum) = minimum(scale, zero_point) else {
                let reason = format!(
                    "zero point {zero_point} with scale {scale:e}; it holds 0 to 15 with scales from 2^-14 to 4352 of 7 significant bits, and 0 with 0"
                );
                return Err(refuse(kind.name(), reason));
            };
            out.extend(minimum.to_le_bytes());
        }
        let place = start + scale_offset(kind);
        match kind {
            GgmlType::Q4_0 | GgmlType::Q4_1 => {
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
        // ggml's quantizer makes blocks of Q4_1 that have no zero point.
        for (kind, quantizer) in TYPES.into_iter().filter(|t| t.0 != GgmlType::Q4_1) {
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

    /// One row of a block each: the numbers, and all codes there are.
    fn q4_1(numbers: &[(f32, f32)]) -> Vec<u8> {
        let halves = |(d, m): (f32, f32)| [d, m].map(|x| f16::from_f32(x).to_le_bytes());
        let codes: Vec<u8> = (0..16).map(|j| j | (15 - j) << 4).collect();
        let block = |&pair: &(f32, f32)| [halves(pair).concat(), codes.clone()].concat();
        numbers.iter().flat_map(block).collect()
    }

    /// Every zero point with every scale of the codec, and a group of zeros.
    #[test]
    fn q4_1_holds_scales_and_zero_points_of_its_codec() {
        let mut pairs = vec![(0.0, 0)];
        for bits in 0..f16::INFINITY.to_bits() {
            let scale = f16::from_bits(bits).to_f32();
            if scale > 0.0 && QuantSpec::Q4_1.scale.store(scale) == scale {
                pairs.extend((0..16).map(|z| (scale, z)));
            }
        }
        let numbers: Vec<(f32, f32)> =
            pairs.iter().map(|&(d, z)| (d, 0.0 - f32::from(z) * d)).collect();
        let bytes = q4_1(&numbers);
        let matrix = unpack(GgmlType::Q4_1, pairs.len(), 32, &bytes).expect("packed");
        assert!(matrix.is_whole() && matrix.spec == QuantSpec::Q4_1);
        let (mut want, mut got) = ([0.0; 32], [0.0; 32]);
        for (row, (&(scale, zero_point), block)) in pairs.iter().zip(bytes.chunks(20)).enumerate() {
            assert_eq!((matrix.scales[row], matrix.zero_points[row]), (scale, zero_point));
            assert_eq!(pack_row(&matrix, row).expect("packable"), block, "{scale:e} {zero_point}");
            super::super::decode(GgmlType::Q4_1, block, &mut want);
            matrix.decode_row(row, &mut got);
            assert_eq!(got.map(f32::to_bits), want.map(f32::to_bits), "{scale:e} {zero_point}");
        }
    }

    #[test]
    fn q4_1_with_another_minimum_stays_a_block() {
        let long = 1.0 + 1.0 / 128.0;
        for numbers in [
            (1.0, -16.0),
            (1.0, 1.0),
            (1.0, -3.5),
            (1.0, -0.0),
            (-1.0, 3.0),
            (0.0, -1.0),
            (-0.0, 0.0),
            (long, -2.0 * long),
            (2f32.powi(-15), 0.0),
            (4416.0, 0.0),
            (f32::INFINITY, 0.0),
            (f32::NAN, 0.0),
            (1.0, f32::NAN),
        ] {
            let bytes = q4_1(&[(1.0, -3.0), numbers]);
            assert!(unpack(GgmlType::Q4_1, 1, 64, &bytes).is_none(), "{numbers:?}");
        }
    }

    #[test]
    fn a_zero_point_that_q4_1_does_not_hold_is_refused() {
        let matrix = unpack(GgmlType::Q4_1, 1, 32, &q4_1(&[(1.0, -3.0)])).expect("packed");
        let (long, cases) = (1.0 + 1.0 / 128.0, [(1.0, 16), (0.0, 1), (-1.0, 3), (f32::NAN, 0)]);
        for (scale, zero_point) in cases.into_iter().chain([(long, 0)]) {
            let (scales, zero_points) = (vec![scale], vec![zero_point]);
            let matrix = QuantTensor { scales, zero_points, ..matrix.clone() };
            let refused = pack_row(&matrix, 0);
            assert!(matches!(refused, Err(Error::Unencodable { .. })), "{scale:e} {zero_point}");
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
