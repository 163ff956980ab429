//! Where the columns of a row lie in the panels, and which of them are summed together.
//!
//! A quad is four neighbouring columns. Each weight group starts on a whole cell of the panel (4 to
//! 32 columns) and is filled up with zeros. A segment is what has one weight scale and one
//! activation scale; it covers the cells it touches, and where it does not begin or end on a cell,
//! the activations placed for it are zero outside of it, which leaves its integer sum as it is.

use super::cells::{lines, quads};
use crate::Granularity;

/// Columns an integer sum may run over: (255 - 0) * 128 * 65536 still fits in i32.
pub(super) const MAX_SEGMENT: usize = 1 << 16;

/// Columns of a quad.
pub(super) const QUAD: usize = 4;

/// Where the columns of a row lie: groups of `group` columns, each filled up to whole cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Geometry {
    pub cols: usize,
    pub group: usize,
    /// Bits of a code in a panel, and the columns of a cell.
    pub bits: u32,
    pub cell: usize,
    pub groups: usize,
    /// Columns of a row with all groups filled up, and the lines they make.
    pub padded: usize,
    pub lines: usize,
}

impl Geometry {
    pub fn new(cols: usize, granularity: Granularity, bits: u32) -> Self {
        let cell = quads(bits) * QUAD;
        let group = granularity.group_size(cols).max(1);
        let groups = cols.div_ceil(group);
        let last = cols - groups.saturating_sub(1) * group;
        let padded =
            groups.saturating_sub(1) * group.next_multiple_of(cell) + last.next_multiple_of(cell);
        Self { cols, group, bits, cell, groups, padded, lines: padded / cell * lines(bits) }
    }
    /// Columns of group `g`, and where it starts once all groups are filled up.
    pub fn columns(&self, g: usize) -> (std::ops::Range<usize>, usize) {
        (
            g * self.group..self.cols.min((g + 1) * self.group),
            g * self.group.next_multiple_of(self.cell),
        )
    }
}

/// A run of columns with one weight scale and one activation scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Segment {
    pub start: usize,
    pub end: usize,
    /// Index of the weight scale within a row's scales.
    pub group: usize,
    /// Index of the activation scale within a token's scales.
    pub block: usize,
    /// Where its quads lie in a row of the weight and among a token's, and how many there are
    /// (whole cells).
    pub weight: usize,
    pub token: usize,
    pub quads: usize,
    /// Columns of its first cell that belong to another segment.
    pub skip: usize,
}

/// Cuts a row at every border of a weight group and, if the activations have one scale per block of
/// columns, of a block.
pub(super) fn segments(geometry: &Geometry, block: Option<usize>) -> Vec<Segment> {
    let (cols, group, cell) = (geometry.cols, geometry.group, geometry.cell);
    let block = block.unwrap_or(cols.max(1));
    let (mut out, mut start, mut token) = (vec![], 0, 0);
    while start < cols {
        let end = cols
            .min((start / group + 1) * group)
            .min((start / block + 1) * block)
            .min(start + MAX_SEGMENT);
        let place = start / group * group.next_multiple_of(cell) + start % group;
        let skip = place % cell;
        let quads = (skip + end - start).next_multiple_of(cell) / QUAD;
        out.push(Segment {
            start,
            end,
            group: start / group,
            block: start / block,
            weight: (place - skip) / QUAD,
            token,
            quads,
            skip,
        });
        (start, token) = (end, token + quads);
    }
    out
}

/// How the tokens of a product are laid out: what must be equal for two weights to share them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    pub cols: usize,
    pub segments: Vec<Segment>,
    /// Quads of one token.
    pub quads: usize,
    /// Whether these are simply its codes.
    pub plain: bool,
    /// What the sum of a segment's activation codes is multiplied by before the products are added:
    /// the smallest code; -1 with zero points, which the kernels multiply by; the offset of a
    /// table.
    pub correction: i32,
}

impl Layout {
    pub fn new(geometry: &Geometry, correction: i32, block: Option<usize>) -> Self {
        let segments = segments(geometry, block);
        let quads = segments.last().map_or(0, |s| s.token + s.quads);
        let plain = segments.iter().all(|s| s.skip == 0 && s.start == s.token * QUAD);
        Self { cols: geometry.cols, segments, quads, plain, correction }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_its_place_in_weight_and_token() {
        for cols in [1, 2, 7, 8, 31, 32, 33, 64, 100, 257] {
            for group in [1, 3, 8, 20, 32, 33, 48, 64, 300] {
                for bits in [8, 4, 3, 2] {
                    for block in [None, Some(32), Some(256)] {
                        let geometry = Geometry::new(cols, Granularity::Group(group), bits);
                        let cell = geometry.cell;
                        let (mut next, mut token) = (0, 0);
                        for s in segments(&geometry, block) {
                            assert_eq!((s.start, s.token), (next, token));
                            (next, token) = (s.end, token + s.quads);
                            let (columns, start) = geometry.columns(s.group);
                            assert_eq!(s.weight * QUAD + s.skip, start + s.start - columns.start);
                            assert!(
                                s.skip + s.end - s.start <= s.quads * QUAD
                                    && (s.weight * QUAD).is_multiple_of(cell)
                                    && (s.quads * QUAD).is_multiple_of(cell)
                            );
                            assert!(s.weight + s.quads <= geometry.padded / QUAD);
                        }
                        assert_eq!(next, cols);
                    }
                }
            }
        }
    }
}
