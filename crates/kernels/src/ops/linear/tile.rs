//! The integer products of a panel and a few tokens, and their float combination:
//!
//!     sum = sum over the segment of u a + (min - z) * sum of a           u = code - min, a = activation code
//!     y += f32(sum) * (weight scale * activation scale)                  segment by segment, in order
//!
//! Integer sums are exact and wrap at most on the way, so every kernel gives the same bytes. Written three times because the two instructions
//! that matter are out of the compiler's reach: `vpdpbusd` of AVX-512 VNNI (four u8 x i8 products into an i32 lane) and `vpmaddwd` of AVX2 (two
//! i16 products).
#![allow(unsafe_code)]

use super::panel::{Layout, Panel, ROWS, Token, Tokens};
use crate::dispatch;

/// The kernels, chosen once per call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kernel {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
    pub fn choose() -> Self {
        #[cfg(target_arch = "x86_64")]
        match dispatch::level() {
            dispatch::Level::Avx512 if is_x86_feature_detected!("avx512vnni") => return Self::Vnni,
            dispatch::Level::Avx512 | dispatch::Level::Avx2 => return Self::Avx2,
            dispatch::Level::Scalar => {}
        }
        Self::Plain
    }

    /// Outputs of the panel's rows for the tokens from `first` on.
    pub fn run(self, panel: &Panel, layout: &Layout, tokens: &Tokens, first: usize, out: &mut [[f32; ROWS]]) {
        match self {
            Self::Plain => each_token(tokens, first, out, |token, out| *out = plain(panel, layout, token)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                let (pairs, single) = out.as_chunks_mut::<2>();
                for (i, out) in pairs.iter_mut().enumerate() {
                    let at = first + 2 * i;
                    // SAFETY: `choose` gives this kernel only where AVX2 was detected.
                    unsafe { x86::avx2(panel, layout, [tokens.token(at), tokens.token(at + 1)], out) };
                }
                each_token(tokens, first + 2 * pairs.len(), single, |token, out| {
                    // SAFETY: as above.
                    unsafe { x86::avx2(panel, layout, [token], std::array::from_mut(out)) }
                });
            }
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => {
                let (fours, single) = out.as_chunks_mut::<4>();
                for (i, out) in fours.iter_mut().enumerate() {
                    let at = first + 4 * i;
                    let four = [tokens.token(at), tokens.token(at + 1), tokens.token(at + 2), tokens.token(at + 3)];
                    // SAFETY: `choose` gives this kernel only where AVX-512 with VNNI was detected.
                    unsafe { x86::vnni::<4, 1>(panel, layout, four, out) };
                }
                each_token(tokens, first + 4 * fours.len(), single, |token, out| {
                    // SAFETY: as above. One token alone has four sums in flight: the instruction takes five cycles.
                    unsafe { x86::vnni::<1, 4>(panel, layout, [token], std::array::from_mut(out)) }
                });
            }
        }
    }
}

fn each_token(tokens: &Tokens, first: usize, out: &mut [[f32; ROWS]], run: impl Fn(Token, &mut [f32; ROWS])) {
    for (i, out) in out.iter_mut().enumerate() {
        run(tokens.token(first + i), out);
    }
}

/// What the codes' offset adds to the sums of a segment.
#[inline(always)]
fn offset(panel: &Panel, layout: &Layout, segment: usize) -> [i32; ROWS] {
    if layout.affine { panel.offsets[segment] } else { [layout.min; ROWS] }
}

fn plain(panel: &Panel, layout: &Layout, token: Token) -> [f32; ROWS] {
    let mut y = [0.0; ROWS];
    for (s, range) in layout.starts.windows(2).enumerate() {
        let mut sums = offset(panel, layout, s).map(|offset| offset.wrapping_mul(token.sums[s]));
        for (w, &a) in panel.quads[range[0]..range[1]].iter().zip(&token.quads[range[0]..range[1]]) {
            let a = a.to_le_bytes().map(|a| a as i8 as i32);
            for (sum, &w) in sums.iter_mut().zip(w) {
                for (j, a) in a.iter().enumerate() {
                    *sum = sum.wrapping_add((w >> (8 * j) & 255) as i32 * a);
                }
            }
        }
        for ((y, &sum), scale) in y.iter_mut().zip(&sums).zip(&panel.scales[s]) {
            *y += sum as f32 * (scale * token.scales[s]);
        }
    }
    y
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    // Loops, not closures: a closure does not inherit the features, and would be compiled for the baseline.

    /// `T` tokens, `A` running sums each.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub fn vnni<const T: usize, const A: usize>(panel: &Panel, layout: &Layout, tokens: [Token; T], out: &mut [[f32; ROWS]; T]) {
        let mut y = [_mm512_setzero_ps(); T];
        for s in 0..layout.segments.len() {
            let (from, to) = (layout.starts[s], layout.starts[s + 1]);
            let w = &panel.quads[from..to];
            let mut a: [&[u32]; T] = [&[]; T];
            for t in 0..T {
                a[t] = &tokens[t].quads[from..to];
            }
            let mut sums = [[_mm512_setzero_si512(); A]; T];
            let (whole, rest) = w.as_chunks::<A>();
            for (i, w) in whole.iter().enumerate() {
                for j in 0..A {
                    let w = load512(&w[j]);
                    for t in 0..T {
                        sums[t][j] = _mm512_dpbusd_epi32(sums[t][j], w, _mm512_set1_epi32(a[t][i * A + j] as i32));
                    }
                }
            }
            for (w, i) in rest.iter().zip(whole.len() * A..) {
                for t in 0..T {
                    sums[t][0] = _mm512_dpbusd_epi32(sums[t][0], load512(w), _mm512_set1_epi32(a[t][i] as i32));
                }
            }
            let scales = load_ps512(&panel.scales[s]);
            let offsets = if layout.affine { load_si512(&panel.offsets[s]) } else { _mm512_set1_epi32(layout.min) };
            for t in 0..T {
                let mut sum = _mm512_mullo_epi32(offsets, _mm512_set1_epi32(tokens[t].sums[s]));
                for part in sums[t] {
                    sum = _mm512_add_epi32(sum, part);
                }
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(tokens[t].scales[s]));
                y[t] = _mm512_add_ps(y[t], _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
            }
        }
        for t in 0..T {
            // SAFETY: 16 floats of room.
            unsafe { _mm512_storeu_ps(out[t].as_mut_ptr(), y[t]) };
        }
    }

    /// `T` tokens; 16 rows are two registers. A quad's bytes 0 and 2, then 1 and 3, become the i16 pairs of one multiply-add.
    #[target_feature(enable = "avx2")]
    pub fn avx2<const T: usize>(panel: &Panel, layout: &Layout, tokens: [Token; T], out: &mut [[f32; ROWS]; T]) {
        let low = _mm256_set1_epi16(255);
        let mut y = [[_mm256_setzero_ps(); 2]; T];
        for s in 0..layout.segments.len() {
            let (from, to) = (layout.starts[s], layout.starts[s + 1]);
            let w = &panel.quads[from..to];
            let mut a: [&[u32]; T] = [&[]; T];
            for t in 0..T {
                a[t] = &tokens[t].quads[from..to];
            }
            let mut sums = [[_mm256_setzero_si256(); 2]; T];
            for (i, w) in w.iter().enumerate() {
                let w = load256(w);
                for t in 0..T {
                    let a = _mm256_set1_epi32(a[t][i] as i32);
                    let (a02, a13) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(a)), _mm256_srai_epi16::<8>(a));
                    for h in 0..2 {
                        let w02 = _mm256_madd_epi16(_mm256_and_si256(w[h], low), a02);
                        let w13 = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w[h]), a13);
                        sums[t][h] = _mm256_add_epi32(sums[t][h], _mm256_add_epi32(w02, w13));
                    }
                }
            }
            let scales = load_ps256(&panel.scales[s]);
            let offsets = if layout.affine { load_si256(&panel.offsets[s]) } else { [_mm256_set1_epi32(layout.min); 2] };
            for t in 0..T {
                let (a_sum, a_scale) = (_mm256_set1_epi32(tokens[t].sums[s]), _mm256_set1_ps(tokens[t].scales[s]));
                for h in 0..2 {
                    let sum = _mm256_add_epi32(sums[t][h], _mm256_mullo_epi32(offsets[h], a_sum));
                    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scales[h], a_scale));
                    y[t][h] = _mm256_add_ps(y[t][h], scaled);
                }
            }
        }
        for t in 0..T {
            // SAFETY: twice 8 floats, 16 of room.
            unsafe {
                _mm256_storeu_ps(out[t].as_mut_ptr(), y[t][0]);
                _mm256_storeu_ps(out[t].as_mut_ptr().add(8), y[t][1]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load512(x: &[u32; ROWS]) -> __m512i {
        // SAFETY: 64 bytes, no alignment asked.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_si512(x: &[i32; ROWS]) -> __m512i {
        // SAFETY: 64 bytes, no alignment asked.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_ps512(x: &[f32; ROWS]) -> __m512 {
        // SAFETY: 64 bytes, no alignment asked.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load256(x: &[u32; ROWS]) -> [__m256i; 2] {
        // SAFETY: twice 32 bytes, no alignment asked.
        unsafe { [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().add(8).cast())] }
    }
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_si256(x: &[i32; ROWS]) -> [__m256i; 2] {
        // SAFETY: twice 32 bytes, no alignment asked.
        unsafe { [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().add(8).cast())] }
    }
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_ps256(x: &[f32; ROWS]) -> [__m256; 2] {
        // SAFETY: twice 32 bytes, no alignment asked.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }
}
