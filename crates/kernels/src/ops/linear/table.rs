//! A table of levels: value = scale * level of the code, for grids of at most 4 bits whose values
//! are not evenly spaced (E2M1, NF4, powers of two) or do not include zero (half shift).
//!
//! The products take an unsigned factor of a weight, so a kernel turns every code into a *unit*,
//! `level - offset`, by one byte shuffle, and the offset times the sum of the activation codes is
//! added as that of an integer grid is: the integer sums are those of the levels themselves.
//! Without `vpdpbusd`, AVX2 takes units of 8 bits as two halves, by two shuffles and two products;
//! where the levels lie within 32 (16 for codes of 3 bits) of each other, one of each will do.

use super::cells::close_units;
use crate::QuantSpec;

/// Entries of a table: what a byte shuffle looks up.
pub(super) const ENTRIES: usize = 16;

/// What the kernels know of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// Level of every code less `offset`; 0 where the grid has no such code.
    pub units: [u8; ENTRIES],
    /// -128, so that all such tables share their activations; the lowest level where the levels lie
    /// so close together that units take fewer bits.
    pub offset: i32,
    /// Bits of a unit: 8, or [`close_units`] of the codes.
    pub bits: u32,
}

impl Table {
    /// `levels`: one per code of the grid, from the smallest code on; what follows is not read.
    pub fn new(levels: &[i8; ENTRIES], spec: QuantSpec) -> Self {
        assert!(spec.bits() <= 4, "a table has at most {ENTRIES} levels");
        let used = &levels[..(spec.max_code() - spec.min_code() + 1) as usize];
        let (mut low, mut high) = (i8::MAX, i8::MIN);
        for &level in used {
            (low, high) = (low.min(level), high.max(level));
        }
        let close = close_units(spec.bits());
        let (offset, bits) = if i32::from(high) - i32::from(low) < 1 << close {
            (i32::from(low), close)
        } else {
            (i32::from(i8::MIN), 8)
        };
        let mut units = [0; ENTRIES];
        for (unit, &level) in units.iter_mut().zip(used) {
            *unit = (i32::from(level) - offset) as u8;
        }
        Self { units, offset, bits }
    }

    /// Units of codes, in their place.
    pub fn look_up(&self, codes: &mut [u8]) {
        for code in codes {
            *code = self.units[usize::from(*code) % ENTRIES];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Granularity, Int, ScaleCodec};

    #[test]
    fn units_and_offset_are_the_levels() {
        let e2m1 = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
        let nf4 = [-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127];
        let shifted = e2m1.map(|level| level + 100);
        for (levels, grid, bits, offset) in [
            (e2m1, Int::symmetric(4), 5, -12),
            (shifted, Int::symmetric(4), 5, 88),
            (nf4, Int::symmetric(4), 8, -128),
            (nf4, Int::narrow(3), 8, -128),
            (e2m1, Int::symmetric(3), 4, 0),
            ([-128, 127, -128, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], Int::narrow(2), 8, -128),
        ] {
            let table =
                Table::new(&levels, QuantSpec::int(grid, Granularity::Channel, ScaleCodec::F32));
            assert_eq!((table.bits, table.offset), (bits, offset), "{levels:?} {grid:?}");
            let codes = (grid.max() - grid.min() + 1) as usize;
            let mut units: Vec<u8> = (0..codes as u8).collect();
            table.look_up(&mut units);
            for (&unit, &level) in units.iter().zip(&levels) {
                assert_eq!(i32::from(unit) + table.offset, i32::from(level));
                assert!(u32::from(unit) >> table.bits == 0);
            }
        }
    }
}
