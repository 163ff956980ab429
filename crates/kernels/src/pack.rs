//! A matrix of integer codes with its scales: the one in-memory form of a quantized weight.

use crate::{CodeRange, Granularity, IntGrid, Pool, QuantSpec};

/// Quantized weight `[rows, cols]`. Value of an element = (code - zero_point) * scale, in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantTensor {
    pub rows: usize,
    pub cols: usize,
    pub quantizer: QuantSpec,
    /// `code - grid.min()` as unsigned `bits`-bit numbers, little-endian bit order, each row padded
    /// to a whole byte.
    pub codes: Vec<u8>,
    /// As stored (already rounded to the scale codec), `quantizer.granularity.scales(rows, cols)` of
    /// them.
    pub scales: Vec<f32>,
    /// Affine grids only: one zero point per scale, unpacked; empty otherwise.
    pub zero_points: Vec<u8>,
}

/// Bytes of one packed row.
pub fn row_bytes(cols: usize, bits: u8) -> usize {
    (cols * bits as usize).div_ceil(8)
}

/// Rows, and bytes of a row, of the zero points as a file packs them: in the grid's own bits, as
/// codes are. None for a grid that has none.
pub fn zero_point_shape(quantizer: QuantSpec, rows: usize, cols: usize) -> Option<[usize; 2]> {
    let [rows, groups] = if quantizer.granularity == Granularity::Tensor {
        [1, 1]
    } else {
        [rows, quantizer.granularity.groups(cols)]
    };
    (quantizer.grid.range == CodeRange::Affine)
        .then(|| [rows, row_bytes(groups, quantizer.grid.bits)])
}

/// Packs the codes of one row; bits of a code outside `bits` are dropped.
pub fn pack_row(codes: &[i16], grid: IntGrid, out: &mut [u8]) {
    let min = grid.min() as i16;
    match grid.bits {
        8 => out.iter_mut().zip(codes).for_each(|(o, &c)| *o = c.wrapping_sub(min) as u8),
        4 => {
            let (pairs, last) = codes.as_chunks::<2>();
            for (o, [low, high]) in out.iter_mut().zip(pairs) {
                *o = (low.wrapping_sub(min) as u8 & 15) | ((high.wrapping_sub(min) as u8) << 4);
            }
            if let [c] = last {
                out[pairs.len()] = c.wrapping_sub(min) as u8 & 15;
            }
        }
        2 => pack_bits::<2>(codes, min, out),
        3 => pack_bits::<3>(codes, min, out),
        5 => pack_bits::<5>(codes, min, out),
        6 => pack_bits::<6>(codes, min, out),
        7 => pack_bits::<7>(codes, min, out),
        bits => unreachable!("a grid of {bits} bits"),
    }
}

/// Mask of fields of `codes` codes, one at the start of every second lane of `lane` bits.
const fn fields<const B: usize>(codes: usize, lane: usize) -> u64 {
    let (field, mut mask, mut at) = ((1 << (codes * B)) - 1, 0, 0);
    while at < 64 {
        mask |= field << at;
        at += 2 * lane;
    }
    mask
}

/// 8 codes of `B` bits, one after the other, to one per byte: halves are drawn apart, then
/// quarters, then eighths.
#[inline(always)]
fn spread<const B: usize>(mut word: u64) -> u64 {
    for (codes, lane) in [(4, 32), (2, 16), (1, 8)] {
        let (even, shift) = (fields::<B>(codes, lane), lane - codes * B);
        word = (word & even) | (word << shift & even << lane);
    }
    word
}

/// The inverse of [`spread`].
#[inline(always)]
fn gather<const B: usize>(mut bytes: u64) -> u64 {
    for (codes, lane) in [(1, 8), (2, 16), (4, 32)] {
        let (even, shift) = (fields::<B>(codes, lane), lane - codes * B);
        bytes = (bytes & even) | (bytes & even << lane) >> shift;
    }
    bytes
}

/// 8 codes of `B` bits fill `B` whole bytes.
fn pack_bits<const B: usize>(codes: &[i16], min: i16, out: &mut [u8]) {
    for (codes, out) in codes.chunks(8).zip(out.chunks_mut(B)) {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(codes).for_each(|(byte, &c)| *byte = c.wrapping_sub(min) as u8);
        let word = gather::<B>(u64::from_le_bytes(bytes)).to_le_bytes();
        out.iter_mut().zip(word).for_each(|(o, byte)| *o = byte);
    }
}

/// Unsigned codes (`code - grid.min()`) of one packed row.
pub fn unpack_row(packed: &[u8], bits: u8, out: &mut [u8]) {
    match bits {
        8 => out.copy_from_slice(&packed[..out.len()]),
        4 => {
            let (pairs, last) = out.as_chunks_mut::<2>();
            let whole = pairs.len();
            for (pair, &byte) in pairs.iter_mut().zip(packed) {
                *pair = [byte & 15, byte >> 4];
            }
            if let [o] = last {
                *o = packed[whole] & 15;
            }
        }
        2 => unpack_bits::<2>(packed, out),
        3 => unpack_bits::<3>(packed, out),
        5 => unpack_bits::<5>(packed, out),
        6 => unpack_bits::<6>(packed, out),
        7 => unpack_bits::<7>(packed, out),
        bits => unreachable!("a grid of {bits} bits"),
    }
}

fn unpack_bits<const B: usize>(packed: &[u8], out: &mut [u8]) {
    for (out, packed) in out.chunks_mut(8).zip(packed.chunks(B)) {
        let mut word = [0; 8];
        word.iter_mut().zip(packed).for_each(|(byte, &p)| *byte = p);
        let bytes = spread::<B>(u64::from_le_bytes(word)).to_le_bytes();
        out.iter_mut().zip(bytes).for_each(|(o, byte)| *o = byte);
    }
}

impl QuantTensor {
    /// Packs codes `[rows, cols]` (each within the grid).
    pub fn from_codes(
        quantizer: QuantSpec,
        rows: usize,
        cols: usize,
        codes: &[i16],
        scales: Vec<f32>,
        zero_points: Vec<u8>,
    ) -> Self {
        assert_eq!(codes.len(), rows * cols, "one code per element");
        assert_eq!(scales.len(), quantizer.granularity.scales(rows, cols), "one scale per group");
        assert!(
            zero_points.is_empty() || zero_points.len() == scales.len(),
            "one zero point per scale, or none"
        );
        debug_assert!(
            codes
                .iter()
                .all(|&c| (quantizer.grid.min()..=quantizer.grid.max()).contains(&(c as i32))),
            "codes within the grid"
        );
        let bytes = row_bytes(cols, quantizer.grid.bits);
        let mut packed = vec![0; rows * bytes];
        if cols > 0 {
            for (row, out) in codes.chunks_exact(cols).zip(packed.chunks_exact_mut(bytes)) {
                pack_row(row, quantizer.grid, out);
            }
        }
        Self { rows, cols, quantizer, codes: packed, scales, zero_points }
    }

    /// The packed bytes of one row.
    pub fn row_packed(&self, row: usize) -> &[u8] {
        let bytes = row_bytes(self.cols, self.quantizer.grid.bits);
        &self.codes[row * bytes..(row + 1) * bytes]
    }

    /// Codes of one row, unpacked.
    pub fn row_codes(&self, row: usize, out: &mut [i16]) {
        let (min, bits) = (self.quantizer.grid.min() as i16, self.quantizer.grid.bits);
        let packed = self.row_packed(row);
        let mut piece = [0u8; 256];
        // 256 codes of any width fill whole bytes, so each piece starts on one.
        for (i, out) in out[..self.cols].chunks_mut(piece.len()).enumerate() {
            let piece = &mut piece[..out.len()];
            unpack_row(&packed[i * 32 * bits as usize..], bits, piece);
            out.iter_mut().zip(piece.iter()).for_each(|(o, &u)| *o = u as i16 + min);
        }
    }

    /// Zero point of a scale: 0 on grids without one.
    pub fn zero_point(&self, scale_index: usize) -> i32 {
        self.zero_points.get(scale_index).map_or(0, |&z| z as i32)
    }

    /// Values of one row in f32: (code - zero_point) as f32 * scale.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        let (bits, min) = (self.quantizer.grid.bits, self.quantizer.grid.min());
        let packed = self.row_packed(row);
        let group = self.granularity().group_size(self.cols);
        let mut piece = [0u8; 256];
        for (i, out) in out[..self.cols].chunks_mut(piece.len()).enumerate() {
            let (first, piece) = (i * 256, &mut piece[..out.len()]);
            unpack_row(&packed[i * 32 * bits as usize..], bits, piece);
            let mut at = 0;
            while at < out.len() {
                let column = first + at;
                let end = out.len().min((column / group + 1) * group - first);
                let index = self.granularity().scale_index(row, column, self.cols);
                let (scale, offset) = (self.scales[index], min - self.zero_point(index));
                out[at..end]
                    .iter_mut()
                    .zip(&piece[at..end])
                    .for_each(|(o, &u)| *o = (u as i32 + offset) as f32 * scale);
                at = end;
            }
        }
    }

    /// All values `[rows, cols]`.
    pub fn decode(&self, pool: &Pool, out: &mut [f32]) {
        assert_eq!(out.len(), self.rows * self.cols, "one value per element");
        let cols = self.cols.max(1);
        let rows = (16384 / cols).max(1);
        pool.chunks_mut(out, rows * cols, |i, piece| {
            for (j, row) in piece.chunks_exact_mut(cols).enumerate() {
                self.decode_row(i * rows + j, row);
            }
        });
    }

    /// Bytes as stored in a `halfstep` file: codes + scales + zero points.
    pub fn stored_bytes(&self) -> usize {
        let zero_points = zero_point_shape(self.quantizer, self.rows, self.cols)
            .map_or(0, |[rows, bytes]| rows * bytes);
        self.codes.len() + self.scales.len() * self.quantizer.scale_codec.bytes() + zero_points
    }
    pub fn grid(&self) -> IntGrid {
        self.quantizer.grid
    }
    pub fn granularity(&self) -> Granularity {
        self.quantizer.granularity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScaleCodec;
    use proptest::prelude::*;

    fn grids() -> impl Strategy<Value = IntGrid> {
        (
            2u8..=8,
            prop_oneof![
                Just(CodeRange::Symmetric),
                Just(CodeRange::Narrow),
                Just(CodeRange::Affine)
            ],
        )
            .prop_map(|(bits, range)| IntGrid { bits, range })
    }

    fn matrices() -> impl Strategy<Value = (QuantTensor, Vec<i16>)> {
        (
            grids(),
            1usize..5,
            1usize..700,
            prop_oneof![
                Just(Granularity::Tensor),
                Just(Granularity::Channel),
                (1usize..300).prop_map(Granularity::Group)
            ],
        )
            .prop_flat_map(|(grid, rows, cols, granularity)| {
                let quantizer = QuantSpec { grid, granularity, scale_codec: ScaleCodec::F32 };
                let n = granularity.scales(rows, cols);
                let zeros = if grid.range == CodeRange::Affine { n } else { 0 };
                (
                    prop::collection::vec(grid.min() as i16..=grid.max() as i16, rows * cols),
                    prop::collection::vec(-2f32..2.0, n),
                    prop::collection::vec(0u8..=grid.max() as u8, zeros),
                )
                    .prop_map(move |(codes, scales, zeros)| {
                        (
                            QuantTensor::from_codes(quantizer, rows, cols, &codes, scales, zeros),
                            codes,
                        )
                    })
            })
    }

    proptest! {
        #[test]
        fn codes_and_values_come_back((matrix, codes) in matrices()) {
            let (rows, cols) = (matrix.rows, matrix.cols);
            prop_assert_eq!(matrix.codes.len(), rows * (cols * matrix.grid().bits as usize).div_ceil(8));
            let mut values = vec![0.0; rows * cols];
            matrix.decode(&Pool::new(2), &mut values);
            let mut row_codes = vec![0; cols];
            for row in 0..rows {
                matrix.row_codes(row, &mut row_codes);
                prop_assert_eq!(&row_codes[..], &codes[row * cols..(row + 1) * cols]);
                for (col, &code) in row_codes.iter().enumerate() {
                    let index = matrix.granularity().scale_index(row, col, cols);
                    let want = (code as i32 - matrix.zero_point(index)) as f32 * matrix.scales[index];
                    prop_assert_eq!(values[row * cols + col].to_bits(), want.to_bits());
                }
            }
        }
    }

    #[test]
    fn bits_lie_little_endian() {
        let q = QuantSpec {
            grid: IntGrid::affine(3),
            granularity: Granularity::Channel,
            scale_codec: ScaleCodec::F16,
        };
        let m = QuantTensor::from_codes(q, 1, 3, &[5, 3, 6], vec![1.0], vec![0]);
        assert_eq!(m.codes, [0b10_011_101, 0b1]);
        assert_eq!(m.stored_bytes(), 2 + 2 + 1);
    }

    /// The sizes that docs/format.md names, in bits of a weight.
    #[test]
    fn zero_points_take_the_bits_of_the_grid() {
        let bits = |granularity| {
            let q =
                QuantSpec { grid: IntGrid::affine(2), granularity, scale_codec: ScaleCodec::F16 };
            let scales = granularity.scales(64, 512);
            let m = QuantTensor::from_codes(
                q,
                64,
                512,
                &[0; 64 * 512],
                vec![1.0; scales],
                vec![0; scales],
            );
            8.0 * m.stored_bytes() as f64 / (64.0 * 512.0)
        };
        assert_eq!(bits(Granularity::Group(64)), 2.28125);
        assert_eq!(bits(Granularity::Group(32)), 2.5625);
        assert_eq!(bits(Granularity::Channel), 2.0 + 24.0 / 512.0);
        assert_eq!(bits(Granularity::Tensor), 2.0 + 24.0 / (64.0 * 512.0));
    }
}
