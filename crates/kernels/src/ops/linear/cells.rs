//! How codes lie in the lines of a panel.
//!
//! A word is a row's share of a line. A quad, four neighbouring columns, lies at one place in the
//! four bytes of a word: shifts and masks give what a dot product takes. A cell is as many lines as
//! hold whole quads, which follow one another from the low bits up:
//!
//!     bits   grids of      lines   columns   quad j of a row's words
//!      8     5 to 8 bits     1         4     word
//!      4     4 bits          1         8     word >> 4 j & 0x0f0f0f0f
//!      3     3 bits          3        32     j < 6: word[j / 2] >> 3 (j % 2) & 0x07070707
//!                                            6, 7: word[j - 6] >> 6 & 0x03030303
//!                                                  | word[2] >> (j - 2) & 0x04040404
//!      2     2 bits          1        16     word >> 2 j & 0x03030303
//!
//! Two codes of 3 bits leave two bits of a byte: those of the first two lines are the low bits of a
//! quad each, those of the third are the high bits of both.

use super::panels::{Line, ROWS};
use super::segments::QUAD;
use crate::dispatch;

/// Calls a function that takes two constants: the bits of a code, and those of the unit that it
/// stands for, which are others where codes index a [`Table`](super::table::Table).
macro_rules! of_bits {
    ($bits:expr, $($function:ident)::+, $($argument:expr),+) => {
        match $bits {
            (2, 2) => $($function)::+::<2, 2>($($argument),+),
            (3, 3) => $($function)::+::<3, 3>($($argument),+),
            (4, 4) => $($function)::+::<4, 4>($($argument),+),
            (2, _) => $($function)::+::<2, 8>($($argument),+),
            (3, _) => $($function)::+::<3, 8>($($argument),+),
            (4, _) => $($function)::+::<4, 8>($($argument),+),
            _ => $($function)::+::<8, 8>($($argument),+),
        }
    };
}
pub(super) use of_bits;

/// [`of_bits`] for a function that makes use of units of fewer than 8 bits.
#[cfg(target_arch = "x86_64")]
macro_rules! of_close_bits {
    ($bits:expr, $($function:ident)::+, $($argument:expr),+) => {
        match $bits {
            (2, 5) => $($function)::+::<2, 5>($($argument),+),
            (3, 4) => $($function)::+::<3, 4>($($argument),+),
            (4, 5) => $($function)::+::<4, 5>($($argument),+),
            bits => of_bits!(bits, $($function)::+, $($argument),+),
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use of_close_bits;

/// The loop over the quads of a cell written out, which the compiler leaves a loop when there are
/// many: lines and shifts are constants then.
macro_rules! each_quad {
    ($bits:expr, $j:ident, $body:block) => { each_quad!($bits, $j, $body, 0 1 2 3 4 5 6 7) };
    ($bits:expr, $j:ident, $body:block, $($index:literal)+) => {
        $(if $index < quads($bits) {
            let $j = $index;
            $body
        })+
    };
}
pub(super) use each_quad;

/// Bits that a code of `bits` bits takes in a panel.
pub(super) const fn bits_of(bits: u8) -> u32 {
    match bits {
        ..=2 => 2,
        3 => 3,
        4 => 4,
        _ => 8,
    }
}

/// Bits of the units of a table whose levels lie close together, in the sense that 16 bits hold the
/// sums of two products of such units for all quads of a cell.
pub(super) const fn close_units(bits: u8) -> u32 {
    if bits_of(bits) == 3 { 4 } else { 5 }
}

/// Lines of a cell.
#[inline(always)]
pub(super) const fn lines(bits: u32) -> usize {
    if bits == 3 { 3 } else { 1 }
}

/// Quads of a cell.
#[inline(always)]
pub(super) const fn quads(bits: u32) -> usize {
    8 * lines(bits) / bits as usize
}

/// Where the first quads of a cell lie, of which every byte holds as many codes as fit: the line,
/// and the lowest bit. None: in bits left over.
#[inline(always)]
pub(super) const fn place(bits: u32, j: usize) -> Option<(usize, u32)> {
    let fit = (8 / bits) as usize;
    if j < lines(bits) * fit { Some((j / fit, bits * (j % fit) as u32)) } else { None }
}

/// The low `bits` of every byte of a word.
#[inline(always)]
pub(super) const fn mask(bits: u32) -> u32 {
    0x0101_0101 * (0xff >> (8 - bits))
}

/// The third bit of every byte of a word.
pub(super) const THIRD: u32 = 0x0404_0404;

/// Codes of quad `j` of row `r` of a cell, one per byte.
#[inline(always)]
pub(super) fn word<const BITS: u32>(cell: &[Line], j: usize, r: usize) -> u32 {
    match place(BITS, j) {
        Some((line, shift)) => cell[line].0[r] >> shift & mask(BITS),
        None => cell[j - 6].0[r] >> 6 & mask(2) | cell[2].0[r] >> (j - 2) & THIRD,
    }
}

/// [`of_bits`], with the lines and quads of a cell as constants too.
macro_rules! of_cells {
    ($bits:expr, $function:ident, $($argument:expr),+) => {
        match $bits {
            2 => $function::<2, 1, 4>($($argument),+),
            3 => $function::<3, 3, 8>($($argument),+),
            4 => $function::<4, 1, 2>($($argument),+),
            _ => $function::<8, 1, 1>($($argument),+),
        }
    };
}

dispatch! {
    /// Words of a row, one per line, from the unsigned codes of its columns.
    pub(super) fn pack(bits: u32, units: &[u8], words: &mut [u32]) {
        of_cells!(bits, pack_cells, units, words);
    }
}

#[inline(always)]
fn pack_cells<const BITS: u32, const LINES: usize, const QUADS: usize>(
    units: &[u8],
    words: &mut [u32],
) {
    let cells = units.as_chunks::<QUAD>().0.as_chunks::<QUADS>().0;
    for (words, units) in words.as_chunks_mut::<LINES>().0.iter_mut().zip(cells) {
        *words = [0; LINES];
        for j in 0..QUADS {
            let codes = u32::from_le_bytes(units[j]);
            match place(BITS, j) {
                Some((line, shift)) => words[line] |= codes << shift,
                None => {
                    words[j - 6] |= (codes & mask(2)) << 6;
                    words[2] |= (codes & THIRD) << (j - 2);
                }
            }
        }
    }
}

/// Unsigned codes of row `r` of a panel, those of whole cells.
pub(super) fn unpack(bits: u32, lines: &[Line], r: usize, units: &mut [u8]) {
    of_cells!(bits, unpack_cells, lines, r, units);
}

fn unpack_cells<const BITS: u32, const LINES: usize, const QUADS: usize>(
    lines: &[Line],
    r: usize,
    units: &mut [u8],
) {
    assert!(r < ROWS);
    let cells = units.as_chunks_mut::<QUAD>().0.as_chunks_mut::<QUADS>().0;
    for (units, cell) in cells.iter_mut().zip(lines.as_chunks::<LINES>().0) {
        for j in 0..QUADS {
            units[j] = word::<BITS>(cell, j, r).to_le_bytes();
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
        assert_eq!(
            words[0].to_le_bytes(),
            [0b11_10_01_00, 0b10_10_01_01, 0b01_10_01_10, 0b00_10_01_11]
        );
        // Of 3 bits: quad j holds 0, 1, j, 7.
        let units: Vec<u8> = (0..8).flat_map(|j| [0, 1, j, 7]).collect();
        let mut words = [0; 3];
        pack(3, &units, &mut words);
        let bytes = words.map(u32::to_le_bytes);
        assert_eq!(
            bytes,
            [
                [0, 0b01_001_001, 0b10_001_000, 0xff],
                [0, 0b01_001_001, 0b11_011_010, 0xff],
                [0, 0b00_001_001, 0b11_101_100, 0xff]
            ]
        );
    }
}
