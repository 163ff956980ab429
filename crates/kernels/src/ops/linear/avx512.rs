//! AVX-512 with VNNI: a line is one register, `vpdpbusd` multiplies four columns of 16 rows.
//!
//! Twelve tokens and two panels keep 24 sums in registers: a weight that is loaded serves twelve
//! products, an activation that is broadcast two. The outputs stay in the first-level cache, added
//! to after each segment.
#![allow(unsafe_code)]

use super::cells::{THIRD, each_quad, lines, mask, place, quads};
use super::kernel::{Output, Outputs, PanelView, ScalesView};
use super::panels::ROWS;
use super::segments::Segment;
use super::table::ENTRIES;
use super::tokens::View;
use std::arch::x86_64::*;

/// Bytes ahead of the weights in use that one token asks for, into the second-level cache: the
/// first has too few requests under way for memory.
const AHEAD: usize = 4096;

/// See [`super::kernel::Kernel::run`]: `y` `[tokens, panels]`, 1 or 2 panels, 12, 8, 4 or 1 tokens.
///
/// # Safety
/// Needs AVX-512 F, BW and VNNI; the panels must be of one matrix and hold the lines and groups of
/// the segments, `x` as many tokens as `y`.
pub unsafe fn tile<const BITS: u32, const UNIT: u32>(
    strip: &[PanelView],
    segments: &[Segment],
    x: View,
    y: &mut [Outputs],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match UNIT != BITS || strip[0].zero_points.is_empty() {
            true => sized::<BITS, UNIT, false>(strip, segments, x, y),
            false => sized::<BITS, UNIT, true>(strip, segments, x, y),
        }
    }
}

/// # Safety
/// As [`tile`]; `AFFINE`: the panels have zero points.
unsafe fn sized<const BITS: u32, const UNIT: u32, const AFFINE: bool>(
    strip: &[PanelView],
    segments: &[Segment],
    x: View,
    y: &mut [Outputs],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (y.len() / strip.len(), strip) {
            (12, &[a, b]) => several::<12, 2, BITS, UNIT, AFFINE>([a, b], segments, x, y),
            (8, &[a, b]) => several::<8, 2, BITS, UNIT, AFFINE>([a, b], segments, x, y),
            (4, &[a, b]) => several::<4, 2, BITS, UNIT, AFFINE>([a, b], segments, x, y),
            (12, &[a]) => several::<12, 1, BITS, UNIT, AFFINE>([a], segments, x, y),
            (8, &[a]) => several::<8, 1, BITS, UNIT, AFFINE>([a], segments, x, y),
            (4, &[a]) => several::<4, 1, BITS, UNIT, AFFINE>([a], segments, x, y),
            (1, _) => strip
                .iter()
                .zip(y)
                .for_each(|(panel, y)| single::<BITS, UNIT>(panel, segments, x, y)),
            (tokens, _) => unreachable!("no tile of {tokens} tokens"),
        }
    }
}

/// Writes a tile `[tokens, panels]` from (token, panel) on, whole registers at a time: the store
/// buffer has few entries.
///
/// # Safety
/// Needs AVX-512 F. The tile's tokens must be rows of y, and no other task may write their columns
/// of the tile's panels.
#[target_feature(enable = "avx512f")]
pub unsafe fn put(y: &Output, token: usize, panel: usize, tile: &[Outputs], panels: usize) {
    for (t, values) in tile.chunks_exact(panels).enumerate() {
        for (p, values) in values.iter().enumerate() {
            // SAFETY: the caller's promise; the mask leaves as many lanes as there are columns.
            unsafe {
                let (at, count) = y.place(token + t, panel + p);
                _mm512_mask_storeu_ps(
                    at,
                    (u32::MAX >> (2 * ROWS - count)) as __mmask16,
                    _mm512_load_ps(values.0.as_ptr()),
                );
            }
        }
    }
}

/// # Safety
/// As [`tile`]; `y` holds `T * P` entries.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn several<
    const T: usize,
    const P: usize,
    const BITS: u32,
    const UNIT: u32,
    const AFFINE: bool,
>(
    strip: [PanelView; P],
    segments: &[Segment],
    x: View,
    y: &mut [Outputs],
) {
    let y = y.as_mut_ptr().cast::<__m512>();
    for i in 0..T * P {
        // SAFETY: y has T * P entries. Volatile: see below.
        unsafe { y.add(i).write_volatile(_mm512_setzero_ps()) };
    }
    let table = table::<BITS, UNIT>(strip[0].units);
    let (mut corrections, mut token_scales, mut a) =
        (x.corrections.as_ptr(), x.scales.as_ptr(), x.quads.as_ptr().cast::<i32>());
    for s in segments {
        // SAFETY: every segment's corrections, scales, quads and lines are there, one after the
        // other, as are T * P entries of y, and an entry is a cache line.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); P]; T];
            for t in 0..T {
                for p in 0..P {
                    // Volatile: one load that broadcasts, instead of one load and shuffles, which
                    // the products' units have no time for.
                    sums[t][p] = _mm512_set1_epi32(corrections.add(t).read_volatile());
                }
            }
            if AFFINE {
                for p in 0..P {
                    let zero_points = zero_points(&strip[p], s.group);
                    for t in 0..T {
                        sums[t][p] = _mm512_mullo_epi32(zero_points, sums[t][p]);
                    }
                }
            }
            let mut w = [std::ptr::null::<__m512i>(); P];
            for p in 0..P {
                w[p] = strip[p]
                    .lines
                    .as_ptr()
                    .cast::<__m512i>()
                    .add(s.weight / quads(BITS) * lines(BITS));
            }
            for _ in 0..s.quads / quads(BITS) {
                each_quad!(BITS, q, {
                    let mut codes = [_mm512_setzero_si512(); P];
                    for p in 0..P {
                        codes[p] = unit::<BITS, UNIT>(quad::<BITS>(w[p], q), table);
                    }
                    add_products(&mut sums, codes, a);
                    a = a.add(T);
                });
                for p in 0..P {
                    w[p] = w[p].add(lines(BITS));
                }
            }
            for p in 0..P {
                let scales = load_scales(strip[p].scales, s.group);
                for t in 0..T {
                    let scaled = _mm512_mul_ps(
                        _mm512_cvtepi32_ps(sums[t][p]),
                        _mm512_mul_ps(scales, _mm512_set1_ps(*token_scales.add(t))),
                    );
                    // Volatile: the compiler would keep the outputs in registers, and then put sums
                    // on the stack.
                    let at = y.add(t * P + p);
                    at.write_volatile(_mm512_add_ps(at.read_volatile(), scaled));
                }
            }
            corrections = corrections.add(T);
            token_scales = token_scales.add(T);
        }
    }
}

/// # Safety
/// `a` must point to T quads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add_products<const T: usize, const P: usize>(
    sums: &mut [[__m512i; P]; T],
    codes: [__m512i; P],
    a: *const i32,
) {
    for t in 0..T {
        // SAFETY: the caller's promise.
        let a = _mm512_set1_epi32(unsafe { *a.add(t) });
        for p in 0..P {
            sums[t][p] = _mm512_dpbusd_epi32(sums[t][p], codes[p], a);
        }
    }
}

/// One token: bound by memory. Four sums in flight hide the latency of the product, and what comes
/// next is asked for in time.
///
/// # Safety
/// As [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn single<const BITS: u32, const UNIT: u32>(
    panel: &PanelView,
    segments: &[Segment],
    x: View,
    y: &mut Outputs,
) {
    let zero = _mm512_setzero_si512();
    let table = table::<BITS, UNIT>(panel.units);
    let mut out = _mm512_setzero_ps();
    for (j, s) in segments.iter().enumerate() {
        // SAFETY: segment j's correction, scale, quads and lines are there.
        unsafe {
            let mut sums = [
                start(panel, s.group, _mm512_set1_epi32(*x.corrections.get_unchecked(j))),
                zero,
                zero,
                zero,
            ];
            let mut a = x.quads.as_ptr().add(s.token).cast::<i32>();
            let cells = s.quads / quads(BITS);
            let mut w =
                panel.lines.as_ptr().cast::<__m512i>().add(s.weight / quads(BITS) * lines(BITS));
            // Constant indices: the sums stay in registers.
            for _ in 0..cells / 4 {
                for i in 0..4 {
                    cell::<BITS, UNIT>(&mut sums, i, w, a, table);
                    (w, a) = (w.add(lines(BITS)), a.add(quads(BITS)));
                }
            }
            for _ in 0..cells % 4 {
                cell::<BITS, UNIT>(&mut sums, 0, w, a, table);
                (w, a) = (w.add(lines(BITS)), a.add(quads(BITS)));
            }
            let sum = _mm512_add_epi32(
                _mm512_add_epi32(sums[0], sums[1]),
                _mm512_add_epi32(sums[2], sums[3]),
            );
            let scale = _mm512_mul_ps(
                load_scales(panel.scales, s.group),
                _mm512_set1_ps(*x.scales.get_unchecked(j)),
            );
            out = _mm512_add_ps(out, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
        }
    }
    // SAFETY: the output holds 16 floats on a cache line.
    unsafe { _mm512_store_ps(y.0.as_mut_ptr(), out) };
}

/// The products of cell `i` of four.
///
/// # Safety
/// `w` must point to a cell, `a` to its quads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn cell<const BITS: u32, const UNIT: u32>(
    sums: &mut [__m512i; 4],
    i: usize,
    w: *const __m512i,
    a: *const i32,
    table: __m512i,
) {
    // SAFETY: the caller's promise; a prefetch may ask for any address.
    unsafe {
        for line in 0..lines(BITS) {
            _mm_prefetch::<_MM_HINT_T1>(w.add(line).cast::<i8>().wrapping_add(AHEAD));
        }
        for j in 0..quads(BITS) {
            let sum = &mut sums[(i * quads(BITS) + j) % 4];
            let w = unit::<BITS, UNIT>(quad::<BITS>(w, j), table);
            *sum = _mm512_dpbusd_epi32(*sum, w, _mm512_set1_epi32(*a.add(j)));
        }
    }
}

/// A table as [`unit`] takes it; zeros where there is none.
#[inline]
#[target_feature(enable = "avx512f")]
fn table<const BITS: u32, const UNIT: u32>(units: &[u8; ENTRIES]) -> __m512i {
    if UNIT == BITS {
        return _mm512_setzero_si512();
    }
    // SAFETY: 16 bytes, no alignment asked.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(units.as_ptr().cast()) })
}

/// Units of codes: themselves, or the entries of a table.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn unit<const BITS: u32, const UNIT: u32>(codes: __m512i, table: __m512i) -> __m512i {
    if UNIT == BITS { codes } else { _mm512_shuffle_epi8(table, codes) }
}

/// Codes of quad `j` of a cell.
///
/// # Safety
/// `w` must point to a cell.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn quad<const BITS: u32>(w: *const __m512i, j: usize) -> __m512i {
    // SAFETY: the caller's promise: lines of the cell.
    unsafe {
        match place(BITS, j) {
            Some((line, shift)) => bits(w.add(line), shift, mask(BITS)),
            None => {
                _mm512_or_si512(bits(w.add(j - 6), 6, mask(2)), bits(w.add(2), j as u32 - 2, THIRD))
            }
        }
    }
}

/// `w >> shift & mask` in every word.
///
/// # Safety
/// `w` must point to a line.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn bits(w: *const __m512i, shift: u32, mask: u32) -> __m512i {
    // SAFETY: the caller's promise.
    let shifted =
        _mm512_srl_epi32(unsafe { _mm512_load_si512(w) }, _mm_cvtsi32_si128(shift as i32));
    _mm512_and_si512(shifted, _mm512_set1_epi32(mask as i32))
}

/// What the sums of a segment start at.
///
/// # Safety
/// The panel must have the group, if it has zero points at all.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn start(panel: &PanelView, group: usize, correction: __m512i) -> __m512i {
    if panel.zero_points.is_empty() {
        return correction;
    }
    // SAFETY: the caller's promise.
    let zero_points = unsafe { zero_points(panel, group) };
    _mm512_mullo_epi32(zero_points, correction)
}

/// # Safety
/// The panel must have the group, and zero points.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn zero_points(panel: &PanelView, group: usize) -> __m512i {
    // SAFETY: the caller's promise; 16 bytes.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(panel.zero_points.as_ptr().add(group).cast()) })
}

/// # Safety
/// The panel must have the group.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_scales(scales: ScalesView, group: usize) -> __m512 {
    // SAFETY: the caller's promise: 16 halves or floats.
    unsafe {
        match scales {
            ScalesView::F16(s) => _mm512_cvtph_ps(_mm256_loadu_si256(s.as_ptr().add(group).cast())),
            ScalesView::F32(s) => _mm512_loadu_ps(s.as_ptr().add(group).cast()),
        }
    }
}
