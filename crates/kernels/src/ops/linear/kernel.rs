//! The integer products of a panel and a few tokens, and their float combination:
//!
//!     sum = sum over the segment of u a + (min - z) * sum of a      u = code - min
//!     sum = sum over the segment of u a + offset * sum of a         u = level - offset, of a table
//!     y += f32(sum) * (weight scale * activation scale)             segment by segment, in order
//!
//! with a the code of the activation.
//!
//! Integer sums are exact and wrap at most on the way, so every kernel gives the same bytes. They
//! are written several times because the instructions that matter are out of the compiler's reach:
//! `vpdpbusd` of AVX-512 VNNI and AVX-VNNI (four u8 x i8 products into an i32 lane), `vpmaddubsw`
//! and `vpmaddwd` of AVX2, `i32x4.dot_i16x8_s` of simd128.

use super::cells::of_bits;
#[cfg(target_arch = "x86_64")]
use super::cells::of_close_bits;
use super::panels::{Line, ROWS, Scales, WeightPanels};
use super::segments::{Layout, Segment};
use super::table::ENTRIES;
use super::tokens::{Tokens, View};
#[cfg(target_arch = "x86_64")]
use crate::dispatch;
use half::f16;
use std::ops::Range;

/// The kernels, chosen once per call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kernel {
    // A module for the browser has one kernel: whether there is simd128 is fixed when it is made.
    #[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
    Plain,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

/// A panel as a tile reads it.
#[derive(Clone, Copy)]
pub(super) struct PanelView<'a> {
    pub lines: &'a [Line],
    pub scales: ScalesView<'a>,
    pub zero_points: &'a [[u8; ROWS]],
    /// Unit of every code, where codes index a table.
    pub units: &'a [u8; ENTRIES],
}

/// The outputs of one token and the rows of a panel, on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Outputs(pub [f32; ROWS]);

/// Scales per group.
#[derive(Clone, Copy)]
pub(super) enum ScalesView<'a> {
    F16(&'a [[f16; ROWS]]),
    F32(&'a [[f32; ROWS]]),
}

/// The result, written in pieces by several tasks: y `[M, O]`.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub data: *mut f32,
    pub rows: usize,
}
// SAFETY: tasks write disjoint parts of the slice it was made from, which outlives them.
#[allow(unsafe_code)]
unsafe impl Send for Output {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Output {}

impl Output {
    /// Where the columns of `panel` begin in row `token`, and how many there are.
    ///
    /// # Safety
    /// `token` must be one of y's rows.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub unsafe fn place(&self, token: usize, panel: usize) -> (*mut f32, usize) {
        let first = panel * ROWS;
        // SAFETY: within a row that the caller vouches for.
        (unsafe { self.data.add(token * self.rows + first) }, ROWS.min(self.rows - first))
    }

    /// Writes a tile `[tokens, panels]` from (token, panel) on.
    ///
    /// # Safety
    /// The tile's tokens must be rows of y, and no other task may write their columns of the tile's
    /// panels.
    #[allow(unsafe_code)]
    unsafe fn put(&self, token: usize, panel: usize, tile: &[Outputs], panels: usize) {
        for (t, values) in tile.chunks_exact(panels).enumerate() {
            for (p, values) in values.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let (at, count) = self.place(token + t, panel + p);
                    std::ptr::copy_nonoverlapping(values.0.as_ptr(), at, count);
                }
            }
        }
    }
}

/// Panels that a tile of many tokens works on together.
const STRIP: usize = 2;
/// Tokens of the largest group.
const MOST: usize = 12;

impl Kernel {
    pub fn choose() -> Self {
        #[cfg(target_arch = "x86_64")]
        match dispatch::level() {
            dispatch::Level::Avx512 if Self::Vnni.runs() => return Self::Vnni,
            dispatch::Level::Avx512 | dispatch::Level::Avx2 if Self::AvxVnni.runs() => {
                return Self::AvxVnni;
            }
            dispatch::Level::Avx512 | dispatch::Level::Avx2 if Self::Avx2.runs() => {
                return Self::Avx2;
            }
            _ => {}
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        return Self::Simd128;
        #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
        Self::Plain
    }

    /// Whether this CPU has its instructions.
    #[cfg(target_arch = "x86_64")]
    pub fn runs(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
        match self {
            Self::Plain => true,
            Self::Avx2 => avx2,
            Self::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
            Self::Vnni => {
                avx2 && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512bw")
            }
        }
    }

    /// Groups of tokens it has tiles for.
    pub fn sizes(self) -> &'static [usize] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => &[12, 8, 4, 1],
            _ => &[4, 1],
        }
    }

    /// Writes the outputs of the rows of `panels` for the tokens of `groups`.
    ///
    /// # Safety
    /// The kernel must run on this CPU. `layout` must be made for `w`, `tokens` for `layout` with
    /// this kernel's sizes. y must have a row for every token and a column for every row of `w`,
    /// and nobody else may touch these columns of these tokens.
    #[allow(unsafe_code)]
    pub unsafe fn run(
        self,
        w: &WeightPanels,
        panels: Range<usize>,
        layout: &Layout,
        tokens: &Tokens,
        groups: Range<usize>,
        y: Output,
    ) {
        let mut tile = [Outputs([0.0; ROWS]); MOST * STRIP];
        for first in panels.clone().step_by(STRIP) {
            let count = STRIP.min(panels.end - first);
            let strip: [PanelView; STRIP] =
                std::array::from_fn(|i| w.panel(first + i.min(count - 1)));
            for group in &tokens.groups[groups.clone()] {
                let tile = &mut tile[..group.size * count];
                // SAFETY: the caller vouches for the instructions, for y, and that panels, segments
                // and tokens belong together.
                unsafe {
                    self.tile(
                        &strip[..count],
                        w.bits(),
                        &layout.segments,
                        tokens.view(*group, layout),
                        tile,
                    );
                    match self {
                        #[cfg(target_arch = "x86_64")]
                        Self::Vnni => super::avx512::put(&y, group.first, first, tile, count),
                        _ => y.put(group.first, first, tile, count),
                    }
                }
            }
        }
    }

    /// The outputs of the strip's rows: `y` `[tokens, panels of the strip]`; `bits`: of a code and
    /// of a unit.
    ///
    /// # Safety
    /// The kernel must run on this CPU; every panel must hold the segments' lines and groups, `x`
    /// the tokens whose outputs `y` holds.
    // Where only the plain kernel is, nothing in it is unsafe.
    #[allow(unsafe_code, unused_unsafe)]
    unsafe fn tile(
        self,
        strip: &[PanelView],
        bits: (u32, u32),
        segments: &[Segment],
        x: View,
        y: &mut [Outputs],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                #[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
                Self::Plain => super::plain::tile(strip, bits, segments, x, y),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                Self::Simd128 => of_bits!(bits, super::simd128::tile, strip, segments, x, y),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => {
                    of_close_bits!(bits, super::avx2::plain::tile, strip, segments, x, y)
                }
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni => of_bits!(bits, super::avx2::vnni::tile, strip, segments, x, y),
                #[cfg(target_arch = "x86_64")]
                Self::Vnni => of_bits!(bits, super::avx512::tile, strip, segments, x, y),
            }
        }
    }
}

impl WeightPanels {
    fn panel(&self, index: usize) -> PanelView<'_> {
        let (lines, groups) = (self.geometry.lines, self.geometry.groups);
        let run = index * groups..(index + 1) * groups;
        PanelView {
            lines: &self.lines[index * lines..][..lines],
            scales: match &self.scales {
                Scales::F16(s) => ScalesView::F16(&s[run.clone()]),
                Scales::F32(s) => ScalesView::F32(&s[run.clone()]),
            },
            zero_points: self.zero_points.get(run).unwrap_or_default(),
            units: self.table.as_ref().map_or(&[0; ENTRIES], |table| &table.units),
        }
    }

    /// Bits of a code, and of the unit that it stands for: itself unless there is a table.
    fn bits(&self) -> (u32, u32) {
        let bits = self.geometry.bits;
        (bits, self.table.as_ref().map_or(bits, |table| table.bits))
    }
}

impl ScalesView<'_> {
    /// The scales of group `g`.
    #[inline(always)]
    pub fn get(&self, g: usize) -> [f32; ROWS] {
        match self {
            ScalesView::F32(s) => s[g],
            ScalesView::F16(s) => {
                let mut out = [0.0; ROWS];
                for r in 0..ROWS {
                    out[r] = widened(s[g][r]);
                }
                out
            }
        }
    }
}

/// f16 to f32 by the adder: exact, subnormals too.
#[inline(always)]
fn widened(x: f16) -> f32 {
    let (bits, sign) =
        (u32::from(x.to_bits() & 0x7fff) << 13, u32::from(x.to_bits() & 0x8000) << 16);
    // Exponents are 112 apart; the product makes subnormals whole. Infinities and what is no number
    // keep the highest exponent.
    let finite = f32::from_bits(bits) * f32::from_bits((127 + 112) << 23);
    let special = f32::from_bits(bits | 0x7f80_0000);
    f32::from_bits((if bits >= 0x7c00 << 13 { special } else { finite }).to_bits() | sign)
}

/// What the sums of a segment start at: the codes' offset times the sum of the activation codes.
#[inline(always)]
pub(super) fn start(panel: &PanelView, group: usize, correction: i32) -> [i32; ROWS] {
    let mut out = [correction; ROWS];
    if let Some(zero_points) = panel.zero_points.get(group) {
        for r in 0..ROWS {
            out[r] = (zero_points[r] as i32).wrapping_mul(correction);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_widened_exactly() {
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits);
            assert!(
                widened(x).to_bits() == x.to_f32().to_bits() || x.is_nan() && widened(x).is_nan(),
                "{bits:x}"
            );
        }
    }
}
