//! WebAssembly's simd128: a line is four registers of 4 rows each. Bytes 0 and 2 of a word, then 1
//! and 3, become the 16-bit pairs of one multiply-add.

use super::cells::{THIRD, each_quad, lines, mask, place, quads};
use super::kernel::{Outputs, PanelView, start};
use super::panels::{Line, ROWS};
use super::segments::Segment;
use super::table::ENTRIES;
use super::tokens::View;
use std::arch::wasm32::*;

/// Rows of a register.
const ROWS_EACH: usize = 4;
const QUARTERS: usize = ROWS / ROWS_EACH;

/// See [`Kernel::run`](super::kernel::Kernel::run): `y` `[tokens, panels]`.
pub fn tile<const BITS: u32, const UNIT: u32>(
    strip: &[PanelView],
    segments: &[Segment],
    x: View,
    y: &mut [Outputs],
) {
    let size = y.len() / strip.len();
    for y in &mut *y {
        y.0 = [0.0; ROWS];
    }
    for (p, panel) in strip.iter().enumerate() {
        let units = register(panel.units);
        for (j, s) in segments.iter().enumerate() {
            let scales = panel.scales.get(s.group);
            for t in 0..size {
                let mut sums = registers(start(panel, s.group, x.corrections[j * size + t]));
                let cells = &panel.lines[s.weight / quads(BITS) * lines(BITS)..]
                    [..s.quads / quads(BITS) * lines(BITS)];
                let tokens = &x.quads[s.token * size + t..];
                for (i, cell) in cells.chunks_exact(lines(BITS)).enumerate() {
                    each_quad!(BITS, q, {
                        let a = pairs(tokens[(i * quads(BITS) + q) * size]);
                        for (sum, codes) in sums.iter_mut().zip(quad::<BITS>(cell, q)) {
                            let w = if UNIT == BITS { codes } else { i8x16_swizzle(units, codes) };
                            *sum = i32x4_add(*sum, dot(w, a));
                        }
                    });
                }
                let scale = x.scales[j * size + t];
                let y = &mut y[t * strip.len() + p];
                for (r, sum) in sums.into_iter().enumerate() {
                    let sums = [
                        i32x4_extract_lane::<0>(sum),
                        i32x4_extract_lane::<1>(sum),
                        i32x4_extract_lane::<2>(sum),
                        i32x4_extract_lane::<3>(sum),
                    ];
                    for (i, sum) in sums.into_iter().enumerate() {
                        let row = r * ROWS_EACH + i;
                        y.0[row] += sum as f32 * (scales[row] * scale);
                    }
                }
            }
        }
    }
}

/// Codes of quad `j` of a cell.
#[inline(always)]
fn quad<const BITS: u32>(cell: &[Line], j: usize) -> [v128; QUARTERS] {
    match place(BITS, j) {
        Some((line, shift)) => bits(&cell[line], shift, mask(BITS)),
        None => {
            let (low, high) = (bits(&cell[j - 6], 6, mask(2)), bits(&cell[2], j as u32 - 2, THIRD));
            std::array::from_fn(|i| v128_or(low[i], high[i]))
        }
    }
}

/// `line >> shift & mask` in every word.
#[inline(always)]
fn bits(line: &Line, shift: u32, mask: u32) -> [v128; QUARTERS] {
    registers_of(&line.0).map(|words| v128_and(u32x4_shr(words, shift), u32x4_splat(mask)))
}

/// A quad of activations: bytes 0 and 2, and 1 and 3, as pairs of 16 bits in every lane.
#[inline(always)]
fn pairs(quad: u32) -> [v128; 2] {
    let a = u32x4_splat(quad);
    [i16x8_shr(i16x8_shl(a, 8), 8), i16x8_shr(a, 8)]
}

/// Four unsigned bytes times four signed ones in every lane.
#[inline(always)]
fn dot(w: v128, a: [v128; 2]) -> v128 {
    let low = v128_and(w, u16x8_splat(255));
    i32x4_add(i32x4_dot_i16x8(low, a[0]), i32x4_dot_i16x8(u16x8_shr(w, 8), a[1]))
}

#[inline(always)]
fn register(x: &[u8; ENTRIES]) -> v128 {
    let word = |i: usize| u32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]);
    u32x4(word(0), word(1), word(2), word(3))
}

#[inline(always)]
fn registers(x: [i32; ROWS]) -> [v128; QUARTERS] {
    registers_of(&x.map(|x| x as u32))
}

#[inline(always)]
fn registers_of(x: &[u32; ROWS]) -> [v128; QUARTERS] {
    std::array::from_fn(|i| u32x4(x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]))
}
