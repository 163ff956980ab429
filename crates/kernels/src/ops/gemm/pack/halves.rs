//! Panels of f16. Where the range of f16 ends is dealt with here: each row of the outer dimension is scaled by a power of two, exactly, until its
//! largest value lies in [8, 16).

use super::super::operand::Lie;
use super::Part;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Widest panel.
const MOST: usize = 64;
/// Rows transposed at a time.
const ROWS: usize = 8;

/// Fills the panel `[k][W]`, each value written once or `TWICE` (a word each), and returns what undoes the scaling. A row with an entry that is
/// not finite keeps one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub fn halves<const W: usize, const TWICE: bool>(part: &Part, out: &mut [MaybeUninit<u32>]) -> [f32; W] {
    const { assert!(W <= MOST && (TWICE || W.is_multiple_of(16)) && W.is_multiple_of(4)) };
    assert!(out.len() * if TWICE { 1 } else { 2 } == part.k * W && part.count <= W, "a panel's shape");
    // Exponents kept where both factors are normal numbers; what lies beyond is far from anything a gradient can use.
    let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    let (largest, mut factors, mut undo) = (largest(part), [[0.0; 16]; MOST / 16], [0.0; W]);
    for r in 0..W {
        let e = (130 - (largest[r] >> 23) as i32).clamp(-124, 124);
        (factors[r / 16][r % 16], undo[r]) = (power(e), power(-e));
    }
    match part.lie {
        Lie::Along => along::<W, TWICE>(part, &factors, out),
        Lie::Across => across::<W, TWICE>(part, &factors, out),
    }
    undo
}

/// Bits of the largest magnitude of each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn largest(part: &Part) -> [u32; MOST] {
    let mut largest = [0; MOST];
    if part.lie == Lie::Along {
        for r in 0..part.count {
            let (row, mut of) = (&part.data[r * part.stride..][..part.k], [_mm512_setzero_si512(); 4]);
            for at in (0..part.k).step_by(64) {
                for j in 0..4 {
                    of[j] = _mm512_max_epu32(magnitudes(load(row, at + j * 16)), of[j]);
                }
            }
            largest[r] = _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_max_epu32(of[0], of[1]), _mm512_max_epu32(of[2], of[3])));
        }
        return largest;
    }
    let mut of = [_mm512_setzero_si512(); MOST / 16];
    for s in 0..part.k {
        let row = part.step(s);
        for j in 0..row.len().div_ceil(16) {
            of[j] = _mm512_max_epu32(magnitudes(load(row, j * 16)), of[j]);
        }
    }
    for (j, of) in of.iter().enumerate() {
        // SAFETY: 16 words from j * 16 on.
        unsafe { _mm512_storeu_si512(largest.as_mut_ptr().add(j * 16).cast(), *of) };
    }
    largest
}

/// Blocks of [`ROWS`] rows by 16 steps, transposed as halves.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn along<const W: usize, const TWICE: bool>(part: &Part, factors: &[[f32; 16]; MOST / 16], out: &mut [MaybeUninit<u32>]) {
    for at in (0..W).step_by(ROWS) {
        for from in (0..part.k).step_by(16) {
            let mut x = [_mm256_setzero_si256(); ROWS];
            for r in at..part.count.min(at + ROWS) {
                let values = load(&part.data[r * part.stride..][..part.k], from);
                x[r - at] = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_mul_ps(values, _mm512_set1_ps(factors[r / 16][r % 16])));
            }
            let steps = transposed(x);
            for s in 0..16.min(part.k - from) {
                let x = steps[s % 8];
                let x = if s < 8 { _mm256_castsi256_si128(x) } else { _mm256_extracti128_si256::<1>(x) };
                if TWICE {
                    let out = &mut out[(from + s) * W + at..];
                    store4(_mm_unpacklo_epi16(x, x), out);
                    if at + 4 < W {
                        store4(_mm_unpackhi_epi16(x, x), &mut out[4..]);
                    }
                } else {
                    store4(x, &mut out[((from + s) * W + at) / 2..]);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn across<const W: usize, const TWICE: bool>(part: &Part, factors: &[[f32; 16]; MOST / 16], out: &mut [MaybeUninit<u32>]) {
    for s in 0..part.k {
        let row = part.step(s);
        for j in 0..W.div_ceil(16) {
            let factors = load(&factors[j], 0);
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_mul_ps(load(row, j * 16), factors));
            if TWICE {
                let words = _mm512_cvtepu16_epi32(halves);
                store(_mm512_or_si512(words, _mm512_slli_epi32::<16>(words)), &mut out[s * W + j * 16..][..(W - j * 16).min(16)]);
            } else {
                store(_mm512_castsi256_si512(halves), &mut out[(s * W + j * 16) / 2..][..8]);
            }
        }
    }
}

/// Halves of 8 rows by 16 steps to 8 halves of each step: steps 0 to 7 in the low lanes, 8 to 15 in the high ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transposed(x: [__m256i; ROWS]) -> [__m256i; 8] {
    let (mut pairs, mut fours, mut eights) = (x, x, x);
    for i in 0..4 {
        pairs[i] = _mm256_unpacklo_epi16(x[2 * i], x[2 * i + 1]); // steps 0 to 3
        pairs[i + 4] = _mm256_unpackhi_epi16(x[2 * i], x[2 * i + 1]); // steps 4 to 7
    }
    for i in [0, 4] {
        for rows in 0..2 {
            fours[i + rows] = _mm256_unpacklo_epi32(pairs[i + 2 * rows], pairs[i + 2 * rows + 1]);
            fours[i + rows + 2] = _mm256_unpackhi_epi32(pairs[i + 2 * rows], pairs[i + 2 * rows + 1]);
        }
        for steps in [0, 2] {
            eights[i + steps] = _mm256_unpacklo_epi64(fours[i + steps], fours[i + steps + 1]);
            eights[i + steps + 1] = _mm256_unpackhi_epi64(fours[i + steps], fours[i + steps + 1]);
        }
    }
    eights
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn magnitudes(x: __m512) -> __m512i {
    _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff))
}

/// Up to 16 values from `at` on, zeros behind.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32], at: usize) -> __m512 {
    let mask = (1u32 << x.len().saturating_sub(at).min(16)) - 1;
    // SAFETY: the mask covers the values there are.
    unsafe { _mm512_maskz_loadu_ps(mask as u16, x.as_ptr().wrapping_add(at)) }
}

/// The first words, as many as `out` has room for, up to 16.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: __m512i, out: &mut [MaybeUninit<u32>]) {
    // SAFETY: the mask covers the words there is room for.
    unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), u16::MAX >> (16 - out.len().min(16)), words) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store4(words: __m128i, out: &mut [MaybeUninit<u32>]) {
    // SAFETY: room for four words.
    unsafe { _mm_storeu_si128(out[..4].as_mut_ptr().cast(), words) }
}
