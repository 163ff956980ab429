//! Weight codes and activation codes as the integer dot products want them.
//!
//! A panel is 16 rows of a packed matrix. Its codes lie in quads: one `u32` per row holds four unsigned codes (`code - grid.min()`), lowest
//! byte first, and 16 of them stand side by side, so that one register holds four columns of every row and a sum over columns never crosses
//! lanes. Integer sums do not depend on the order of the columns inside a segment; so a quad takes the columns that unpack most easily, and
//! the activation codes are put in the same order.
use super::Segment;
use super::fill::fill;
use crate::pack::{self, PackedMatrix};
use crate::quant::activation;
use crate::{ActivationQuantizer, CodeRange, Pool};

/// Rows of a panel: the i32 lanes of an AVX-512 register.
pub(super) const ROWS: usize = 16;

/// Which columns share a quad.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// Four neighbours; a segment is filled up with zeros to a multiple of 4.
    Neighbours,
    /// Four neighbours that are four bytes of the packed row: 8 bits, segments of multiples of 4.
    Bytes,
    /// Of 8 neighbours (4-bit codes in 4 bytes) the even ones, then the odd ones: low and high halves of the bytes.
    EvenOdd,
}

/// Where the columns of a row go.
pub(super) struct Layout {
    pub segments: Vec<Segment>,
    /// Quads of segment s: `starts[s] .. starts[s + 1]`.
    pub starts: Vec<usize>,
    order: Order,
    /// `grid.min()`, and whether each scale has a zero point of its own.
    pub min: i32,
    pub affine: bool,
}

impl Layout {
    pub fn new(w: &PackedMatrix, segments: Vec<Segment>) -> Self {
        let grid = w.grid();
        let fit = |n: usize| segments.iter().all(|s| s.start.is_multiple_of(n) && s.end.is_multiple_of(n));
        let mut starts = vec![0];
        starts.extend(segments.iter().scan(0, |quads, s| {
            *quads += (s.end - s.start).div_ceil(4);
            Some(*quads)
        }));
        let order = match grid.bits {
            4 if fit(8) => Order::EvenOdd,
            8 if fit(4) => Order::Bytes,
            _ => Order::Neighbours,
        };
        Self { segments, starts, order, min: grid.min(), affine: grid.range == CodeRange::Affine }
    }
    pub fn quads(&self) -> usize {
        self.starts[self.segments.len()]
    }
}

/// 16 rows of a packed matrix; reused from panel to panel.
#[derive(Default)]
pub(super) struct Panel {
    pub quads: Vec<[u32; ROWS]>,
    /// Per segment: the scales of the rows, and on affine grids `grid.min() - zero_point`.
    pub scales: Vec<[f32; ROWS]>,
    pub offsets: Vec<[i32; ROWS]>,
    row: Vec<u8>,
}

impl Panel {
    /// Rows `first .. first + 16`; a row past the end repeats the last one.
    pub fn fill(&mut self, w: &PackedMatrix, first: usize, layout: &Layout) {
        let rows: [usize; ROWS] = std::array::from_fn(|r| (first + r).min(w.rows - 1));
        self.quads.resize(layout.quads(), [0; ROWS]);
        let mut packed: [&[[u8; 4]]; ROWS] = [&[]; ROWS];
        for (packed, &row) in packed.iter_mut().zip(&rows) {
            *packed = w.row_packed(row).as_chunks().0;
        }
        match layout.order {
            Order::EvenOdd => fill::<true>(packed, &mut self.quads),
            Order::Bytes => fill::<false>(packed, &mut self.quads),
            Order::Neighbours => {
                self.row.resize(w.cols, 0);
                for (r, row) in rows.into_iter().enumerate() {
                    pack::unpack_row(w.row_packed(row), w.grid().bits, &mut self.row);
                    for (s, quads) in layout.segments.iter().zip(layout.starts.windows(2)) {
                        let quads = &mut self.quads[quads[0]..quads[1]];
                        self.row[s.start..s.end].chunks(4).zip(quads).for_each(|(codes, quad)| quad[r] = quad_of(codes));
                    }
                }
            }
        }
        self.scales.clear();
        self.offsets.clear();
        let bases = rows.map(|row| w.partition().scale_index(row, 0, w.cols));
        for s in &layout.segments {
            self.scales.push(bases.map(|base| w.scales[base + s.group]));
            if layout.affine {
                self.offsets.push(bases.map(|base| layout.min - w.zero_point(base + s.group)));
            }
        }
    }
}

#[inline(always)]
fn quad_of(codes: &[u8]) -> u32 {
    match codes {
        &[a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => codes.iter().rev().fold(0, |quad, &c| quad << 8 | c as u32),
    }
}

/// Quantized activations of all tokens, in the layout of the weights.
pub(super) struct Tokens {
    layout_quads: usize,
    segments: usize,
    quads: Vec<u32>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

/// One token: codes in quads, and per segment the scale and the sum of its codes.
#[derive(Clone, Copy)]
pub(super) struct Token<'a> {
    pub quads: &'a [u32],
    pub scales: &'a [f32],
    pub sums: &'a [i32],
}

impl Tokens {
    pub fn new(pool: &Pool, x: &[f32], cols: usize, activation: ActivationQuantizer, step: Option<f32>, layout: &Layout) -> Self {
        let (m, segments, layout_quads) = (x.len() / cols, layout.segments.len(), layout.quads());
        let mut out = Self { layout_quads, segments, quads: vec![0; m * layout_quads], scales: vec![0.0; m * segments], sums: vec![0; m * segments] };
        // Tokens of one task.
        let tokens = (16384 / cols).max(1);
        let parts = out.quads.chunks_mut(tokens * layout_quads).zip(out.scales.chunks_mut(tokens * segments)).zip(out.sums.chunks_mut(tokens * segments));
        pool.parts(parts.collect(), |i, ((quads, scales), sums)| {
            let (mut codes, mut row_scales) = (vec![0i8; cols], vec![0.0; activation::scales_per_row(activation, cols)]);
            let parts = quads.chunks_mut(layout_quads).zip(scales.chunks_mut(segments)).zip(sums.chunks_mut(segments));
            for (((quads, scales), sums), x) in parts.zip(x[i * tokens * cols..].chunks(cols)) {
                activation::quantize_row(activation, x, step, &mut codes, &mut row_scales);
                place(&codes, layout, quads, sums);
                scales.iter_mut().zip(&layout.segments).for_each(|(scale, s)| *scale = row_scales[s.block]);
            }
        });
        out
    }
    pub fn token(&self, m: usize) -> Token<'_> {
        Token {
            quads: &self.quads[m * self.layout_quads..][..self.layout_quads],
            scales: &self.scales[m * self.segments..][..self.segments],
            sums: &self.sums[m * self.segments..][..self.segments],
        }
    }
}

/// Codes of one token into quads, and their sum per segment.
fn place(codes: &[i8], layout: &Layout, quads: &mut [u32], sums: &mut [i32]) {
    for (s, (range, sum)) in layout.segments.iter().zip(layout.starts.windows(2).zip(sums)) {
        let (codes, quads) = (&codes[s.start..s.end], &mut quads[range[0]..range[1]]);
        *sum = codes.iter().map(|&c| c as i32).sum();
        match layout.order {
            Order::Neighbours | Order::Bytes => {
                for (codes, quad) in codes.chunks(4).zip(quads) {
                    *quad = codes.iter().rev().fold(0, |quad, &c| quad << 8 | c as u8 as u32);
                }
            }
            Order::EvenOdd => {
                for (c, [even, odd]) in codes.as_chunks::<8>().0.iter().zip(quads.as_chunks_mut::<2>().0) {
                    let c = c.map(|c| c as u8);
                    *even = u32::from_le_bytes([c[0], c[2], c[4], c[6]]);
                    *odd = u32::from_le_bytes([c[1], c[3], c[5], c[7]]);
                }
            }
        }
    }
}
