//! A matrix of codes with its scales: the one in-memory form of a quantized weight.

use super::element::Element;
use super::spec::{Granularity, QuantSpec};
use crate::Pool;
use crate::pack::{pack_row, row_bytes, unpack_row};

/// Quantized weight `[rows, cols]`. Value of an element = (code - zero_point) * scale, or level
/// of the code * scale, in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantTensor {
    /// Number of rows: output features.
    pub rows: usize,
    /// Number of columns: input features, those that a product sums over.
    pub cols: usize,
    /// Which codes there are, which elements share a scale, and how scales are stored.
    pub spec: QuantSpec,
    /// `code - spec.min_code()` as unsigned `bits`-bit numbers, little-endian bit order, each row
    /// padded to a whole byte.
    pub codes: Vec<u8>,
    /// Scales as stored (already rounded to the scale codec), `spec.granularity.scales(rows, cols)`
    /// of them.
    pub scales: Vec<f32>,
    /// The scales of nested scales; empty for single ones.
    pub outer_scales: Vec<f32>,
    /// One per scale, unpacked; empty without zero points.
    pub zero_points: Vec<u8>,
    /// Levels of every row, ascending, `[rows, 2^bits]`; empty unless each row has its own table.
    pub tables: Vec<i8>,
}

impl QuantTensor {
    /// Packs codes `[rows, cols]` (each within the grid).
    pub fn from_codes(
        spec: QuantSpec,
        rows: usize,
        cols: usize,
        codes: &[i16],
        scales: Vec<f32>,
        zero_points: Vec<u8>,
    ) -> Self {
        assert_eq!(codes.len(), rows * cols, "one code per element");
        assert_eq!(scales.len(), spec.granularity.scales(rows, cols), "one scale per group");
        assert!(
            zero_points.is_empty() || zero_points.len() == scales.len(),
            "one zero point per scale, or none"
        );
        debug_assert!(
            codes.iter().all(|&c| (spec.min_code()..=spec.max_code()).contains(&(c as i32))),
            "codes of the element"
        );
        let bytes = row_bytes(cols, spec.bits());
        let mut packed = vec![0; rows * bytes];
        if cols > 0 {
            for (row, out) in codes.chunks_exact(cols).zip(packed.chunks_exact_mut(bytes)) {
                pack_row(row, spec, out);
            }
        }
        assert!(!spec.scale.is_nested(), "single scales");
        let (outer_scales, tables) = (vec![], vec![]);
        Self { rows, cols, spec, codes: packed, scales, outer_scales, zero_points, tables }
    }

    /// Adds the rows of a matrix of the same grid, whose scales are of rows or of their groups.
    pub fn append(&mut self, below: Self) {
        assert_eq!((self.cols, self.spec), (below.cols, below.spec), "one grid");
        assert!(
            self.spec.granularity != Granularity::Tensor && !self.spec.scale.is_nested(),
            "scales of rows"
        );
        self.rows += below.rows;
        self.codes.extend(below.codes);
        self.scales.extend(below.scales);
        self.zero_points.extend(below.zero_points);
        self.tables.extend(below.tables);
    }

    /// The packed bytes of one row.
    pub fn row_packed(&self, row: usize) -> &[u8] {
        let bytes = row_bytes(self.cols, self.spec.bits());
        &self.codes[row * bytes..(row + 1) * bytes]
    }

    /// Codes of one row, unpacked.
    pub fn row_codes(&self, row: usize, out: &mut [i16]) {
        let (min, bits) = (self.spec.min_code() as i16, self.spec.bits());
        let packed = self.row_packed(row);
        let mut piece = [0u8; 256];
        // 256 codes of any width fill whole bytes, so each piece starts on one.
        for (i, out) in out[..self.cols].chunks_mut(piece.len()).enumerate() {
            let piece = &mut piece[..out.len()];
            unpack_row(&packed[i * 32 * bits as usize..], bits, piece);
            out.iter_mut().zip(piece.iter()).for_each(|(o, &u)| *o = u as i16 + min);
        }
    }

    /// What the codes of a row index. None: they are the numbers themselves.
    pub fn levels(&self, row: usize) -> Option<[i8; 16]> {
        match self.spec.element {
            Element::Int(_) => None,
            Element::Table(table) => Some(table.padded()),
            Element::RowTable(table) => {
                let (count, mut levels) = (table.levels(), [0; 16]);
                levels[..count].copy_from_slice(&self.tables[row * count..][..count]);
                Some(levels)
            }
        }
    }

    /// Zero point of a scale: 0 without.
    pub fn zero_point(&self, scale_index: usize) -> i32 {
        self.zero_points.get(scale_index).map_or(0, |&z| z as i32)
    }

    /// Values of one row in f32: (code - zero_point) as f32 * scale, or level as f32 * scale.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        let levels = self.levels(row);
        let min = if levels.is_some() { i8::MIN.into() } else { self.spec.min_code() };
        let (bits, packed) = (self.spec.bits(), self.row_packed(row));
        let group = self.granularity().group_size(self.cols);
        let mut piece = [0u8; 256];
        for (i, out) in out[..self.cols].chunks_mut(piece.len()).enumerate() {
            let (first, piece) = (i * 256, &mut piece[..out.len()]);
            unpack_row(&packed[i * 32 * bits as usize..], bits, piece);
            if let Some(levels) = levels {
                // Shifted, to go on as unsigned numbers.
                piece
                    .iter_mut()
                    .for_each(|u| *u = levels[usize::from(*u)].wrapping_sub(i8::MIN) as u8);
            }
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

    /// Bytes as stored in a `halfstep` file: codes, scales, zero points, levels of rows.
    pub fn stored_bytes(&self) -> usize {
        let zero_points = self
            .spec
            .zero_point_shape(self.rows, self.cols)
            .map_or(0, |[rows, bytes]| rows * bytes);
        let outer = self
            .spec
            .scale
            .outer(self.scales.len(), self.granularity().groups(self.cols))
            .map_or(0, |(codec, count)| codec.bytes() * count);
        let scales = self.scales.len() * self.spec.scale.bytes() + outer;
        self.codes.len() + scales + zero_points + self.tables.len()
    }

    /// Whether codes, scales, zero points and tables have the lengths that shape and spec call for.
    pub fn is_whole(&self) -> bool {
        let scales = self.spec.granularity.scales(self.rows, self.cols);
        self.spec.check().is_ok()
            && self.codes.len() == self.rows * row_bytes(self.cols, self.spec.bits())
            && self.scales.len() == scales
            && self.outer_scales.len()
                == self
                    .spec
                    .scale
                    .outer(scales, self.spec.granularity.groups(self.cols))
                    .map_or(0, |(_, count)| count)
            && self.zero_points.len() == if self.spec.has_zero_point() { scales } else { 0 }
            && self.tables.len()
                == self.spec.row_table().map_or(0, |table| self.rows * table.levels())
    }

    /// Which elements share a scale.
    pub fn granularity(&self) -> Granularity {
        self.spec.granularity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Int, IntRange, ScaleCodec};
    use proptest::prelude::*;

    fn grids() -> impl Strategy<Value = Int> {
        (
            2u8..=8,
            prop_oneof![
                Just(IntRange::Symmetric),
                Just(IntRange::Narrow),
                Just(IntRange::Unsigned)
            ],
        )
            .prop_map(|(bits, range)| Int { bits, range })
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
                let spec = QuantSpec::int(grid, granularity, ScaleCodec::F32);
                let n = granularity.scales(rows, cols);
                let zeros = if grid.range == IntRange::Unsigned { n } else { 0 };
                (
                    prop::collection::vec(grid.min() as i16..=grid.max() as i16, rows * cols),
                    prop::collection::vec(-2f32..2.0, n),
                    prop::collection::vec(0u8..=grid.max() as u8, zeros),
                )
                    .prop_map(move |(codes, scales, zeros)| {
                        (QuantTensor::from_codes(spec, rows, cols, &codes, scales, zeros), codes)
                    })
            })
    }

    proptest! {
        #[test]
        fn codes_and_values_come_back((matrix, codes) in matrices()) {
            let (rows, cols) = (matrix.rows, matrix.cols);
            prop_assert_eq!(matrix.codes.len(), rows * (cols * matrix.spec.bits() as usize).div_ceil(8));
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
        let q = QuantSpec::int(Int::unsigned(3), Granularity::Channel, ScaleCodec::F16);
        let m = QuantTensor::from_codes(q, 1, 3, &[5, 3, 6], vec![1.0], vec![0]);
        assert_eq!(m.codes, [0b10_011_101, 0b1]);
        assert_eq!(m.stored_bytes(), 2 + 2 + 1);
    }

    /// The sizes that docs/format.md names, in bits of a weight.
    #[test]
    fn zero_points_take_the_bits_of_the_grid() {
        let bits = |granularity| {
            let q = QuantSpec::int(Int::unsigned(2), granularity, ScaleCodec::F16);
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

    #[test]
    fn rows_decode_by_their_own_levels_and_products_use_them() {
        use crate::ActivationSpec;
        use crate::ops::linear::{integer_sums, linear_packed};
        use crate::quant::element::RowTable;
        let (rows, cols, table) = (3, 40, RowTable { bits: 3 });
        let spec = QuantSpec::new(table, Granularity::Group(16), ScaleCodec::F32);
        let codes: Vec<i16> = (0..rows * cols).map(|i| (i * 5 % 8) as i16).collect();
        let scales: Vec<f32> = (0..9).map(|i| 0.5 + i as f32).collect();
        let packed = QuantTensor::from_codes(spec, rows, cols, &codes, scales.clone(), vec![]);
        assert!(!packed.is_whole(), "no levels");
        let tables: Vec<i8> = (0..24).map(|i| (i % 8 * 9 - 40 - i / 8 * 7) as i8).collect();
        let w = QuantTensor { tables: tables.clone(), ..packed };
        assert!(w.is_whole() && spec.check_tables(&tables).is_ok());
        assert_eq!(w.stored_bytes(), 3 * 15 + 9 * 4 + 24);
        let mut values = vec![0.0; rows * cols];
        w.decode(&Pool::new(2), &mut values);
        for (i, value) in values.iter().enumerate() {
            let (row, col) = (i / cols, i % cols);
            let level = tables[row * 8 + codes[i] as usize];
            assert_eq!(*value, f32::from(level) * scales[row * 3 + col / 16]);
        }
        let x: Vec<f32> = (0..cols).map(|i| (i as f32 - 19.0) / 3.0).collect();
        let activation = ActivationSpec::token(8);
        let (mut y, mut code) = (vec![0.0; rows], vec![0i8; cols]);
        linear_packed(&Pool::serial(), &x, &w, activation, None, &mut y, 1);
        let mut scale = vec![];
        crate::quant::activation::quantize(activation, &x, cols, None, &mut code, &mut scale);
        let sums = integer_sums(&x, &w, activation, None, 1);
        for row in 0..rows {
            let groups =
                (0..3).map(|g| f64::from(sums[row * 3 + g]) * f64::from(scales[row * 3 + g]));
            let want = groups.sum::<f64>() * f64::from(scale[0]);
            assert!((f64::from(y[row]) - want).abs() < 1e-4 * want.abs().max(1.0), "{row}");
        }
    }

    #[test]
    fn levels_of_rows_ascend_and_hold_a_needed_0() {
        use crate::quant::element::RowTable;
        let check = |scale, levels: &[i8]| {
            let spec = QuantSpec::new(RowTable { bits: 2 }, Granularity::Channel, scale);
            spec.check_tables(levels).map_err(|(at, reason)| format!("{at}: {reason}"))
        };
        let refused = |scale, levels: &[i8]| check(scale, levels).expect_err("no table");
        check(ScaleCodec::F16, &[-127, -1, 1, 127, 3, 3, 3, 3]).expect("equal neighbours");
        check(ScaleCodec::E8M0, &[-9, 0, 0, 127]).expect("a level of 0");
        let fault = refused(ScaleCodec::F16, &[0, 1, 2, 3, 0, 2, 1, 3]);
        assert_eq!(fault, "6: the levels of row 1 ascend; 1 follows 2");
        assert!(refused(ScaleCodec::F16, &[-128, 1, 2, 3]).contains("level 0 of row 0 is -128"));
        let fault = refused(ScaleCodec::E8M0, &[0, 1, 2, 3, -1, 1, 2, 3]);
        assert!(fault.starts_with("4: row 1 has no level of 0"), "{fault}");
    }
}
