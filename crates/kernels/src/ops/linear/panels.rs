//! A quantized weight in the layout that the kernels read: made once, when a model is loaded or
//! after an optimizer step.
//!
//! A panel is 16 rows. Its codes (unsigned: `code - min_code`) lie in lines of 64 bytes, one
//! 32-bit word per row, so that a sum over columns never crosses lanes: AVX-512 reads a line whole,
//! AVX2 in two halves, simd128 in four quarters. A word holds four neighbouring columns of 8 bits
//! (grids of 5 to 8 bits), eight of 4 or sixteen of 2, and three words hold 32 columns of 3 bits:
//! cells, see [`cells`](super::cells). Each weight group starts on a cell and is filled up with
//! zeros, and so are the rows of the last panel. Scales follow, 16 at a time in the order of
//! the groups, as f16 where the codec stores them so. Codes may index a table of levels, which a
//! kernel looks up after it has unpacked them: see [`table`](super::table).

use super::cells::{self, bits_of, pack, unpack};
use super::segments::{Geometry, Layout};
use super::table::Table;
use super::transpose::side_by_side;
use crate::pack::unpack_row;
use crate::quant::activation::{self, BLOCKS};
use crate::quant::nearest::unsigned_codes;
use crate::quant::tensor::QuantTensor;
use crate::{ActivationSpec, Pool, QuantSpec, ScaleCodec, dispatch};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Rows of a panel: the i32 lanes of an AVX-512 register.
pub(super) const ROWS: usize = 16;
/// Weights that one task packs or decodes, at least.
const PIECE: usize = 1 << 15;

/// One word of every row of a panel.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u32; ROWS]);

/// Scales of 16 rows, group after group.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scales {
    F16(Vec<[f16; ROWS]>),
    F32(Vec<[f32; ROWS]>),
}

/// A quantized weight `[rows, cols]`, ready to be multiplied by
/// [`linear_panels`](super::linear_panels).
#[derive(Clone, Debug, PartialEq)]
pub struct WeightPanels {
    rows: usize,
    spec: QuantSpec,
    pub(super) geometry: Geometry,
    /// For activations with one scale per token, and per block.
    layouts: [Layout; BLOCKS.len()],
    /// `[panels, lines of a row]`.
    pub(super) lines: Vec<Line>,
    pub(super) scales: Scales,
    /// `[panels, groups]`; empty without zero points.
    pub(super) zero_points: Vec<[u8; ROWS]>,
    /// Where codes are not integers but index levels.
    pub(super) table: Option<Table>,
}

impl WeightPanels {
    /// The panels of a packed matrix whose rows have no tables of their own.
    pub fn new(pool: &Pool, w: &QuantTensor) -> Self {
        assert!(w.spec.row_table().is_none(), "tables of rows are decoded, not laid out");
        Self::packed(pool, w, w.spec.table().map(|table| Table::new(&table.padded(), w.spec)))
    }

    /// The panels of a packed matrix whose codes index a table: the value of a weight is
    /// `levels[code - smallest code] as f32 * scale`. The grid has at most 4 bits and no zero points;
    /// levels beyond its codes are not read, and the others stand in any order.
    pub fn with_table(pool: &Pool, w: &QuantTensor, levels: &[i8; 16]) -> Self {
        assert!(w.zero_points.is_empty(), "a table has no zero points");
        Self::packed(pool, w, Some(Table::new(levels, w.spec)))
    }

    fn packed(pool: &Pool, w: &QuantTensor, table: Option<Table>) -> Self {
        let exact = |s: &[f32]| {
            let (mut half, mut back) = ([f16::ZERO; 256], [0.0; 256]);
            s.chunks(256).all(|s| {
                half[..s.len()].convert_from_f32_slice(s);
                half[..s.len()].convert_to_f32_slice(&mut back[..s.len()]);
                s.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits())
            })
        };
        // Scales that their codec does not hold exactly, which nothing of ours writes, are kept as
        // they are.
        let codec = if w.spec.scale.bytes() == 2 && exact(&w.scales) {
            ScaleCodec::F16
        } else {
            ScaleCodec::F32
        };
        let mut out = Self::empty(w.rows, w.cols, w.spec, codec, table);
        out.set_scales(pool, &w.scales, &w.zero_points);
        let (geometry, bits) = (out.geometry, w.spec.bits());
        out.fill(pool, |row, units| {
            let packed = w.row_packed(row);
            if geometry.padded == w.cols {
                return unpack_row(packed, bits, units);
            }
            let mut whole = vec![0; w.cols];
            unpack_row(packed, bits, &mut whole);
            for (columns, start) in (0..geometry.groups).map(|g| geometry.columns(g)) {
                units[start..start + columns.len()].copy_from_slice(&whole[columns]);
            }
        });
        out
    }

    /// Quantizes `w` `[rows, cols]` into panels in one pass: the codes of
    /// [`quantize`](crate::quant::nearest::quantize) and of LSQ's forward. Scales are stored by
    /// the codec first.
    pub fn quantize(
        pool: &Pool,
        w: &[f32],
        rows: usize,
        cols: usize,
        spec: QuantSpec,
        scales: &[f32],
        zero_points: &[u8],
    ) -> Self {
        let mut out = Self::empty(rows, cols, spec, spec.scale, None);
        out.requantize(pool, w, scales, zero_points);
        out
    }

    /// [`Self::quantize`] with the same shape and quantizer into the memory at hand: after an
    /// optimizer step. Not for panels with a table, whose codes are not the nearest integers.
    pub fn requantize(&mut self, pool: &Pool, w: &[f32], scales: &[f32], zero_points: &[u8]) {
        let (cols, q, geometry) = (self.cols(), self.spec, self.geometry);
        let n = q.granularity.scales(self.rows, cols);
        let affine = q.has_zero_point();
        assert!(self.table.is_none(), "requantize knows integers only");
        assert_eq!(
            (w.len(), scales.len(), zero_points.len()),
            (self.rows * cols, n, if affine { n } else { 0 }),
            "shapes of requantize"
        );
        let mut stored = vec![0.0; n];
        pool.chunks_mut(&mut stored, PIECE, |i, out| {
            out.iter_mut().zip(&scales[i * PIECE..]).for_each(|(out, &s)| *out = q.scale.store(s));
        });
        self.set_scales(pool, &stored, zero_points);
        self.fill(pool, |row, units| {
            let first = q.granularity.scale_index(row, 0, cols);
            let zero_points = zero_points.get(first..).unwrap_or_default();
            let w = &w[row * cols..][..cols];
            unsigned_codes(
                w,
                &stored[first..],
                zero_points,
                (geometry.group, geometry.group.next_multiple_of(geometry.cell)),
                q,
                units,
            );
        });
    }

    fn empty(
        rows: usize,
        cols: usize,
        spec: QuantSpec,
        codec: ScaleCodec,
        table: Option<Table>,
    ) -> Self {
        let geometry = Geometry::new(cols, spec.granularity, bits_of(spec.bits()));
        let panels = rows.div_ceil(ROWS);
        let scales = panels * geometry.groups;
        let affine = spec.has_zero_point();
        let correction = match &table {
            Some(table) => table.offset,
            None if affine => -1,
            None => spec.min_code(),
        };
        Self {
            rows,
            spec,
            geometry,
            layouts: BLOCKS.map(|block| Layout::new(&geometry, correction, block)),
            lines: vec![Line([0; ROWS]); panels * geometry.lines],
            scales: match codec {
                ScaleCodec::F16 => Scales::F16(vec![[f16::ZERO; ROWS]; scales]),
                _ => Scales::F32(vec![[0.0; ROWS]; scales]),
            },
            zero_points: if affine { vec![[0; ROWS]; scales] } else { vec![] },
            table,
        }
    }

    /// Scales as stored, and zero points, in the order of [`QuantTensor`].
    fn set_scales(&mut self, pool: &Pool, scales: &[f32], zero_points: &[u8]) {
        let (rows, cols, granularity) = (self.rows, self.cols(), self.spec.granularity);
        let (groups, panels) =
            (self.geometry.groups.max(1), (PIECE / self.geometry.padded.max(1)).max(1));
        fn set<T: Copy>(
            out: &mut [[T; ROWS]],
            groups: usize,
            rows: usize,
            value: impl Fn(usize, usize) -> T,
        ) {
            for (p, out) in out.chunks_mut(groups).enumerate() {
                for r in 0..ROWS.min(rows - p * ROWS) {
                    out.iter_mut().enumerate().for_each(|(g, out)| out[r] = value(p * ROWS + r, g));
                }
            }
        }
        let index = |row, g| granularity.scale_index(row, 0, cols) + g;
        let run = panels * groups;
        match &mut self.scales {
            Scales::F32(out) => {
                pool.chunks_mut(out, run, |i, out| {
                    let first = i * panels * ROWS;
                    set(out, groups, rows - first, |row, g| scales[index(first + row, g)]);
                });
            }
            Scales::F16(out) => {
                pool.chunks_mut(out, run, |i, out| {
                    let (first, mut wide) = (i * panels * ROWS, vec![[0.0; ROWS]; out.len()]);
                    set(&mut wide, groups, rows - first, |row, g| scales[index(first + row, g)]);
                    out.as_flattened_mut().convert_from_f32_slice(wide.as_flattened());
                });
            }
        }
        pool.chunks_mut(&mut self.zero_points, run, |i, out| {
            let first = i * panels * ROWS;
            set(out, groups, rows - first, |row, g| zero_points[index(first + row, g)]);
        });
    }

    /// Fills the lines: `units(row, out)` writes the unsigned codes of a row, groups filled up;
    /// what it leaves is 0.
    fn fill(&mut self, pool: &Pool, units: impl Fn(usize, &mut [u8]) + Sync) {
        let (rows, padded, lines) = (self.rows, self.geometry.padded, self.geometry.lines);
        if lines == 0 {
            return;
        }
        let bits = self.geometry.bits;
        let panels = (PIECE / (ROWS * padded)).max(1);
        pool.chunks_mut(&mut self.lines, panels * lines, |i, out| {
            let (mut row_units, mut words) = (vec![0; padded], vec![0; ROWS * lines]);
            for (p, out) in out.chunks_mut(lines).enumerate() {
                let first = (i * panels + p) * ROWS;
                for (r, words) in words.chunks_exact_mut(lines).enumerate() {
                    if first + r < rows {
                        units(first + r, &mut row_units);
                        pack(bits, &row_units, words);
                    } else {
                        words.fill(0);
                    }
                }
                side_by_side(&words, out);
            }
        });
    }

    /// O: number of output features.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// I: number of input features.
    pub fn cols(&self) -> usize {
        self.geometry.cols
    }
    /// The grid and scales of the weight that the panels were made from.
    pub fn spec(&self) -> QuantSpec {
        self.spec
    }
    /// How the tokens that it is multiplied by are laid out.
    pub(super) fn layout(&self, activation: ActivationSpec) -> &Layout {
        let block = activation::block(activation);
        &self.layouts
            [BLOCKS.iter().position(|b| *b == block).expect("a layout of every block length")]
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        let scales = match &self.scales {
            Scales::F16(s) => size_of_val(s.as_slice()),
            Scales::F32(s) => size_of_val(s.as_slice()),
        };
        size_of_val(self.lines.as_slice()) + scales + size_of_val(self.zero_points.as_slice())
    }

    /// Values of one row in f32: (code - zero_point) as f32 * scale, those of
    /// [`QuantTensor::decode_row`], or level as f32 * scale.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols(), "one value per column");
        self.decode_part(row, 0, out);
    }

    /// [`Self::decode_row`] from column `first` on, as many as `out` has.
    pub fn decode_part(&self, row: usize, first: usize, mut out: &mut [f32]) {
        let (geometry, r) = (self.geometry, row % ROWS);
        let lines = &self.lines[row / ROWS * geometry.lines..][..geometry.lines];
        let (mut at, mut units) = (first, [0; 256]);
        while !out.is_empty() {
            let g = at / geometry.group;
            let (columns, start) = geometry.columns(g);
            let place = row / ROWS * geometry.groups + g;
            let scale = match &self.scales {
                Scales::F16(s) => s[place][r].to_f32(),
                Scales::F32(s) => s[place][r],
            };
            let offset = match &self.table {
                Some(table) => table.offset,
                None => {
                    let zero_point = self.zero_points.get(place).map_or(0, |z| z[r] as i32);
                    self.spec.min_code() - zero_point
                }
            };
            // Whole cells, of which the first columns may be skipped.
            let inside = at - columns.start;
            let skip = inside % geometry.cell;
            let count = (columns.end - at).min(out.len()).min(units.len() - skip);
            let units = &mut units[..(skip + count).next_multiple_of(geometry.cell)];
            unpack(
                geometry.bits,
                &lines[(start + inside) / geometry.cell * cells::lines(geometry.bits)..],
                r,
                units,
            );
            if let Some(table) = &self.table {
                table.look_up(&mut units[skip..]);
            }
            let (now, later) = out.split_at_mut(count);
            values_of(&units[skip..], offset, scale, now);
            (out, at) = (later, at + count);
        }
    }

    /// All values `[rows, cols]`.
    pub fn decode(&self, pool: &Pool, out: &mut [f32]) {
        let cols = self.cols().max(1);
        assert_eq!(out.len(), self.rows * self.cols(), "one value per element");
        let rows = PIECE.div_ceil(cols).next_multiple_of(ROWS);
        pool.chunks_mut(out, rows * cols, |i, piece| {
            for (j, row) in piece.chunks_exact_mut(cols).enumerate() {
                self.decode_row(i * rows + j, row);
            }
        });
    }
}

dispatch! {
    fn values_of(units: &[u8], offset: i32, scale: f32, out: &mut [f32]) {
        for (out, &u) in out.iter_mut().zip(units) {
            *out = (u as i32 + offset) as f32 * scale;
        }
    }
}
