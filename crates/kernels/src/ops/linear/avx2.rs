//! AVX2, with and without AVX-VNNI: a line is two registers of 8 rows each.
//!
//! Without `vpdpbusd`, `vpmaddubsw` multiplies half bytes: 8 sums of two products of 15 and -128
//! fit in 16 bits, so units of 8 bits are taken as two halves too, the high one counted 16 times.
//! Those of a table are looked up as halves, in two tables.
#![allow(unsafe_code)]

use super::cells::{THIRD, lines, mask, place, quads};
use super::kernel::{Outputs, PanelView, ScalesView};
use super::panels::ROWS;
use super::segments::{MAX_SEGMENT, Segment};
use super::table::ENTRIES;
use super::tokens::View;
use std::arch::x86_64::*;

/// Rows of a register.
const HALF: usize = ROWS / 2;
/// Bytes ahead of the weights in use that one token asks for.
const AHEAD: usize = 2048;

/// The tile for one set of instructions. `$halves`: halves of a panel that 4 tokens take at once.
/// `$factors` makes of a quad's codes what is multiplied, with what `$tables` has made of a table's
/// units. The products are added to a part by `$add`, those of `$most` quads at most before
/// `$whole` makes sums of 32 bits of it.
macro_rules! tiles {
    (
        $(#[$doc:meta])* $name:ident, $features:literal, $halves:literal,
        $tables:ident, $factors:ident, $most:ident, $add:ident, $whole:ident
    ) => {
        $(#[$doc])*
        pub mod $name {
            use super::*;

            /// See [`Kernel::run`](super::super::kernel::Kernel::run): `y` `[tokens, panels]`, 4
            /// tokens or 1.
            ///
            /// # Safety
            /// The CPU must have the instructions; every panel must hold the lines and groups of
            /// the segments, `x` as many tokens as `y`.
            pub unsafe fn tile<const BITS: u32, const UNIT: u32>(
                strip: &[PanelView],
                segments: &[Segment],
                x: View,
                y: &mut [Outputs],
            ) {
                let panels = strip.len();
                for y in &mut *y {
                    y.0 = [0.0; ROWS];
                }
                for (p, panel) in strip.iter().enumerate() {
                    // SAFETY: the caller's promise.
                    unsafe {
                        match y.len() / panels {
                            4 => {
                                for first in (0..2).step_by($halves) {
                                    let y = &mut y[p..];
                                    tokens::<4, $halves, BITS, UNIT>(
                                        panel, first, segments, x, y, panels,
                                    );
                                }
                            }
                            1 => {
                                let y = &mut y[p..];
                                tokens::<1, 2, BITS, UNIT>(panel, 0, segments, x, y, panels)
                            }
                            tokens => unreachable!("no tile of {tokens} tokens"),
                        }
                    }
                }
            }

            /// `H` halves of a panel from `first` on: token t goes to `y[t * stride]`.
            ///
            /// # Safety
            /// As [`tile`].
            #[target_feature(enable = $features)]
            unsafe fn tokens<const T: usize, const H: usize, const BITS: u32, const UNIT: u32>(
                panel: &PanelView,
                first: usize,
                segments: &[Segment],
                x: View,
                y: &mut [Outputs],
                stride: usize,
            ) {
                let tables = $tables::<BITS, UNIT>(panel.units);
                for (j, s) in segments.iter().enumerate() {
                    // SAFETY: segment j's corrections, scales, quads and lines are there; a
                    // prefetch may ask for any address.
                    unsafe {
                        let mut sums = [[_mm256_setzero_si256(); H]; T];
                        for t in 0..T {
                            let correction = *x.corrections.get_unchecked(j * T + t);
                            let correction = _mm256_set1_epi32(correction);
                            for h in 0..H {
                                sums[t][h] = start(panel, first + h, s.group, correction);
                            }
                        }
                        let a = x.quads.as_ptr().add(s.token * T).cast::<i32>();
                        let (cells, most) = (s.quads / quads(BITS), $most(UNIT) / quads(BITS));
                        let line = s.weight / quads(BITS) * lines(BITS);
                        let w = panel.lines.as_ptr().add(line).cast::<__m256i>().add(first);
                        for from in (0..cells).step_by(most) {
                            let mut parts = [[[_mm256_setzero_si256(); 2]; H]; T];
                            for cell in from..cells.min(from + most) {
                                let w = w.add(2 * lines(BITS) * cell);
                                if T == 1 {
                                    for line in 0..lines(BITS) {
                                        let at = w.add(2 * line).cast::<i8>().wrapping_add(AHEAD);
                                        _mm_prefetch::<_MM_HINT_T0>(at);
                                    }
                                }
                                for q in 0..quads(BITS) {
                                    let mut factors = [[_mm256_setzero_si256(); 2]; H];
                                    for h in 0..H {
                                        let codes = quad::<BITS>(w.add(h), q);
                                        factors[h] = $factors::<BITS, UNIT>(codes, tables);
                                    }
                                    for t in 0..T {
                                        let at = (cell * quads(BITS) + q) * T + t;
                                        let a = _mm256_set1_epi32(*a.add(at));
                                        // One token alone has parts for even and odd quads: a
                                        // product need not wait for the one before.
                                        let part = if T == 1 { q % 2 } else { 0 };
                                        for h in 0..H {
                                            parts[t][h] =
                                                $add::<UNIT>(parts[t][h], part, factors[h], a);
                                        }
                                    }
                                }
                            }
                            for t in 0..T {
                                for h in 0..H {
                                    let whole = $whole::<BITS, UNIT>(parts[t][h]);
                                    sums[t][h] = _mm256_add_epi32(sums[t][h], whole);
                                }
                            }
                        }
                        for h in 0..H {
                            let scales = load_scales(panel.scales, first + h, s.group);
                            for t in 0..T {
                                let scale = _mm256_set1_ps(*x.scales.get_unchecked(j * T + t));
                                let scale = _mm256_mul_ps(scales, scale);
                                let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[t][h]), scale);
                                let outputs = y.as_mut_ptr().add(t * stride).cast::<f32>();
                                let at = outputs.add((first + h) * HALF);
                                let sum = _mm256_add_ps(_mm256_loadu_ps(at), product);
                                _mm256_storeu_ps(at, sum);
                            }
                        }
                    }
                }
            }
        }
    };
}

tiles!(
    /// AVX2 alone.
    plain,
    "avx2,f16c",
    1,
    tables_of_halves,
    halves,
    fit_in_halves,
    add_halves,
    whole_halves
);
tiles!(
    /// AVX-VNNI.
    vnni,
    "avx2,f16c,avxvnni",
    2,
    table,
    units,
    fit_in_dots,
    add_dots,
    whole_dots
);

/// Codes of quad `j` of half a cell.
///
/// # Safety
/// `w` must point to half of the first line of a cell.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn quad<const BITS: u32>(w: *const __m256i, j: usize) -> __m256i {
    // SAFETY: the caller's promise: halves of the cell's lines.
    unsafe {
        match place(BITS, j) {
            Some((line, shift)) => bits(w.add(2 * line), shift, mask(BITS)),
            None => _mm256_or_si256(
                bits(w.add(2 * (j - 6)), 6, mask(2)),
                bits(w.add(4), j as u32 - 2, THIRD),
            ),
        }
    }
}

/// `w >> shift & mask` in every word.
///
/// # Safety
/// `w` must point to half of a line.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn bits(w: *const __m256i, shift: u32, mask: u32) -> __m256i {
    // SAFETY: the caller's promise.
    let shifted =
        _mm256_srl_epi32(unsafe { _mm256_load_si256(w) }, _mm_cvtsi32_si128(shift as i32));
    _mm256_and_si256(shifted, _mm256_set1_epi32(mask as i32))
}

/// A table as [`units`] takes it, in the first register; zeros where there is none.
#[inline]
#[target_feature(enable = "avx2")]
fn table<const BITS: u32, const UNIT: u32>(units: &[u8; ENTRIES]) -> [__m256i; 2] {
    let zero = _mm256_setzero_si256();
    if UNIT == BITS {
        return [zero; 2];
    }
    // SAFETY: 16 bytes, no alignment asked.
    [_mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(units.as_ptr().cast()) }), zero]
}

/// Units of codes, in the first register: themselves, or the entries of a table.
#[inline]
#[target_feature(enable = "avx2")]
fn units<const BITS: u32, const UNIT: u32>(
    codes: __m256i,
    [table, zero]: [__m256i; 2],
) -> [__m256i; 2] {
    [if UNIT == BITS { codes } else { _mm256_shuffle_epi8(table, codes) }, zero]
}

/// A table as [`halves`] takes it: that of the units, or of 8-bit units the tables of their low and
/// of their high halves.
#[inline]
#[target_feature(enable = "avx2")]
fn tables_of_halves<const BITS: u32, const UNIT: u32>(units: &[u8; ENTRIES]) -> [__m256i; 2] {
    let table = table::<BITS, UNIT>(units);
    if UNIT < 8 { table } else { split(table[0]) }
}

/// The units of codes, or of 8-bit units the low and the high halves.
#[inline]
#[target_feature(enable = "avx2")]
fn halves<const BITS: u32, const UNIT: u32>(codes: __m256i, tables: [__m256i; 2]) -> [__m256i; 2] {
    if UNIT < 8 {
        units::<BITS, UNIT>(codes, tables)
    } else if UNIT == BITS {
        split(codes)
    } else {
        [_mm256_shuffle_epi8(tables[0], codes), _mm256_shuffle_epi8(tables[1], codes)]
    }
}

/// The low and the high halves of bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn split(bytes: __m256i) -> [__m256i; 2] {
    let low = _mm256_set1_epi8(15);
    [_mm256_and_si256(bytes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low)]
}

/// Quads whose sums of two products with -128 fit in 16 bits; units of 8 bits are halved.
#[inline(always)]
const fn fit_in_halves(unit: u32) -> usize {
    let half = if unit == 8 { 4 } else { unit };
    i16::MAX as usize / (2 * 128 * ((1 << half) - 1))
}

/// Two parts of 16-bit lanes: of 8-bit units, the sums of the low halves and of the high ones; else
/// all in the first.
#[inline]
#[target_feature(enable = "avx2")]
fn add_halves<const UNIT: u32>(
    part: [__m256i; 2],
    _: usize,
    [low, high]: [__m256i; 2],
    a: __m256i,
) -> [__m256i; 2] {
    let first = _mm256_add_epi16(part[0], _mm256_maddubs_epi16(low, a));
    if UNIT < 8 {
        return [first, part[1]];
    }
    [first, _mm256_add_epi16(part[1], _mm256_maddubs_epi16(high, a))]
}

#[inline]
#[target_feature(enable = "avx2")]
fn whole_halves<const BITS: u32, const UNIT: u32>(part: [__m256i; 2]) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let sum = _mm256_madd_epi16(part[0], ones);
    if UNIT < 8 {
        sum
    } else {
        _mm256_add_epi32(sum, _mm256_slli_epi32::<4>(_mm256_madd_epi16(part[1], ones)))
    }
}

/// Nothing overflows: those of a whole segment.
#[inline(always)]
const fn fit_in_dots(_: u32) -> usize {
    MAX_SEGMENT
}

/// Products added to one of two parts.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn add_dots<const UNIT: u32>(
    mut parts: [__m256i; 2],
    part: usize,
    [units, _]: [__m256i; 2],
    a: __m256i,
) -> [__m256i; 2] {
    parts[part] = _mm256_dpbusd_avx_epi32(parts[part], units, a);
    parts
}

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn whole_dots<const BITS: u32, const UNIT: u32>(part: [__m256i; 2]) -> __m256i {
    if BITS < 8 { _mm256_add_epi32(part[0], part[1]) } else { part[0] }
}

/// What the sums of a segment start at.
///
/// # Safety
/// The panel must have the group, if it has zero points at all.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn start(panel: &PanelView, half: usize, group: usize, correction: __m256i) -> __m256i {
    if panel.zero_points.is_empty() {
        return correction;
    }
    // SAFETY: the caller's promise; 8 of 16 bytes.
    let zero_points = unsafe {
        _mm_loadl_epi64(panel.zero_points.as_ptr().add(group).cast::<u8>().add(half * HALF).cast())
    };
    _mm256_mullo_epi32(_mm256_cvtepu8_epi32(zero_points), correction)
}

/// # Safety
/// The panel must have the group.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load_scales(scales: ScalesView, half: usize, group: usize) -> __m256 {
    // SAFETY: the caller's promise: 8 of 16 halves or floats.
    unsafe {
        match scales {
            ScalesView::F16(s) => _mm256_cvtph_ps(_mm_loadu_si128(
                s.as_ptr().add(group).cast::<u16>().add(half * HALF).cast(),
            )),
            ScalesView::F32(s) => {
                _mm256_loadu_ps(s.as_ptr().add(group).cast::<f32>().add(half * HALF))
            }
        }
    }
}
