//! The products in plain loops, compiled for every level: where no other kernel is, and what the
//! others are compared with.

use super::cells::{each_quad, lines, of_bits, quads, word};
use super::kernel::{Outputs, PanelView, start};
use super::panels::{Line, ROWS};
use super::segments::{QUAD, Segment};
use super::table::ENTRIES;
use super::tokens::View;
use crate::dispatch;

dispatch! {
    /// See [`Kernel::run`](super::kernel::Kernel::run): `y` `[tokens, panels]`.
    pub(super) fn tile(
        strip: &[PanelView],
        bits: (u32, u32),
        segments: &[Segment],
        x: View,
        y: &mut [Outputs],
    ) {
        of_bits!(bits, sized, strip, segments, x, y);
    }
}

#[inline(always)]
fn sized<const BITS: u32, const UNIT: u32>(
    strip: &[PanelView],
    segments: &[Segment],
    x: View,
    y: &mut [Outputs],
) {
    let size = y.len() / strip.len();
    for i in 0..y.len() {
        let (t, panel) = (i / strip.len(), &strip[i % strip.len()]);
        y[i].0 = [0.0; ROWS];
        for j in 0..segments.len() {
            let s = &segments[j];
            let mut sums = start(panel, s.group, x.corrections[j * size + t]);
            let cells = &panel.lines[s.weight / quads(BITS) * lines(BITS)..]
                [..s.quads / quads(BITS) * lines(BITS)];
            for (i, cell) in cells.chunks_exact(lines(BITS)).enumerate() {
                each_quad!(BITS, q, {
                    let units = quad::<BITS, UNIT>(cell, q, panel.units);
                    let a = x.quads[(s.token + i * quads(BITS) + q) * size + t].to_le_bytes();
                    for k in 0..QUAD {
                        let a = a[k] as i8 as i32;
                        for r in 0..ROWS {
                            sums[r] = sums[r].wrapping_add((units[r] >> (8 * k) & 255) as i32 * a);
                        }
                    }
                });
            }
            let (scales, scale) = (panel.scales.get(s.group), x.scales[j * size + t]);
            for r in 0..ROWS {
                y[i].0[r] += sums[r] as f32 * (scales[r] * scale);
            }
        }
    }
}

/// Units of quad `j` of a cell, one per byte.
#[inline(always)]
fn quad<const BITS: u32, const UNIT: u32>(
    cell: &[Line],
    j: usize,
    units: &[u8; ENTRIES],
) -> [u32; ROWS] {
    let mut out = [0; ROWS];
    for r in 0..ROWS {
        out[r] = word::<BITS>(cell, j, r);
        if UNIT != BITS {
            let codes = out[r].to_le_bytes();
            let mut of_codes = [0; QUAD];
            for k in 0..QUAD {
                of_codes[k] = units[codes[k] as usize % ENTRIES];
            }
            out[r] = u32::from_le_bytes(of_codes);
        }
    }
    out
}
