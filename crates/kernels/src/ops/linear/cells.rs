//! How codes lie in the lines of a panel.
//!
//! A word is a row's share of a line. A quad, four neighbouring columns, lies at one place in the four bytes of a word: a shift and a mask give
//! what a dot product takes. Quads follow one another from the low bits up:
//!
//!     bits   grids of      columns of a line   quad j of a word
//!      8     5 to 8 bits           4           word
//!      4     3 and 4 bits          8           word >> 4 j & 0x0f0f0f0f
//!      2     2 bits               16           word >> 2 j & 0x03030303

use super::panels::{Line, ROWS};
use super::segments::QUAD;
use crate::{IntGrid, dispatch};

/// Calls a function that takes the bits of a code as a constant.
macro_rules! of_bits {
    ($bits:expr, $($function:ident)::+, $($argument:expr),+) => {
        match $bits {
            2 => $($function)::+::<2>($($argument),+),
            4 => $($function)::+::<4>($($argument),+),
            _ => $($function)::+::<8>($($argument),+),
        }
    };
}
pub(super) use of_bits;

/// Bits that a code of a grid takes in a panel.
pub(super) const fn bits_of(grid: IntGrid) -> u32 {
    match grid.bits {
        ..=2 => 2,
        3 | 4 => 4,
        _ => 8,
    }
}

/// Quads of a line: codes of a byte.
pub(super) const fn quads(bits: u32) -> usize {
    8 / bits as usize
}

/// A code's bits in every byte of a word.
pub(super) const fn mask(bits: u32) -> u32 {
    0x0101_0101 * (0xff >> (8 - bits))
}

/// Codes of quad `j` of a line, one per byte.
#[inline(always)]
pub(super) fn quad<const BITS: u32>(line: &Line, j: usize) -> [u32; ROWS] {
    let mut out = [0; ROWS];
    for r in 0..ROWS {
        out[r] = line.0[r] >> (BITS * j as u32) & mask(BITS);
    }
    out
}

dispatch! {
    /// Words of a row, one per line, from the unsigned codes of its columns.
    pub(super) fn pack(bits: u32, units: &[u8], words: &mut [u32]) {
        of_bits!(bits, pack_words, units, words);
    }
}

#[inline(always)]
fn pack_words<const BITS: u32>(units: &[u8], words: &mut [u32]) {
    let units = units.as_chunks::<QUAD>().0;
    for (word, units) in words.iter_mut().zip(units.chunks_exact(quads(BITS))) {
        *word = 0;
        for j in 0..quads(BITS) {
            *word |= u32::from_le_bytes(units[j]) << (BITS * j as u32);
        }
    }
}

/// Unsigned codes of row `r` of a panel, those of whole lines.
pub(super) fn unpack(bits: u32, lines: &[Line], r: usize, units: &mut [u8]) {
    of_bits!(bits, unpack_words, lines, r, units);
}

fn unpack_words<const BITS: u32>(lines: &[Line], r: usize, units: &mut [u8]) {
    let units = units.as_chunks_mut::<QUAD>().0;
    for (line, units) in lines.iter().zip(units.chunks_exact_mut(quads(BITS))) {
        for j in 0..quads(BITS) {
            units[j] = (line.0[r] >> (BITS * j as u32) & mask(BITS)).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quad_lies_at_one_place_in_four_bytes() {
        let units: Vec<u8> = (0..16).collect();
        let mut words = [0; 4];
        pack(8, &units, &mut words);
        assert_eq!(words, [0x0302_0100, 0x0706_0504, 0x0b0a_0908, 0x0f0e_0d0c]);
        let mut words = [0; 2];
        pack(4, &units, &mut words);
        assert_eq!(words, [0x7362_5140, 0xfbea_d9c8]);
        let mut words = [0];
        pack(2, &[0, 1, 2, 3, 1, 1, 1, 1, 2, 2, 2, 2, 3, 2, 1, 0], &mut words);
        assert_eq!(words[0].to_le_bytes(), [0b11_10_01_00, 0b10_10_01_01, 0b01_10_01_10, 0b00_10_01_11]);
    }
}
