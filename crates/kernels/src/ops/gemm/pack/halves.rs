//! Panels of f16. Where the range of f16 ends is dealt with here: each row of the outer dimension
//! is scaled by a power of two, exactly, until its largest value lies in [8, 16); rounded, it is 16
//! at most.

use super::super::blocked::MAX_BLOCK;
use super::super::operand::Lie;
use super::Part;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Rows transposed at a time.
const ROWS: usize = 8;
/// Lanes of a register.
const LANES: usize = 16;

/// Packs a block into panels of `panel` words each: `[k][W]` halves, each written once or `TWICE`
/// (a word each), then, `W` words, what undoes the scaling of each row, then zeros. A row with an
/// entry that is not finite keeps one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub fn halves<const W: usize, const TWICE: bool>(
    block: &Part,
    panel: usize,
    out: &mut [MaybeUninit<u32>],
) {
    const { assert!((TWICE || W.is_multiple_of(LANES)) && W.is_multiple_of(4)) };
    let (panels, lanes) = (out.len() / panel, if TWICE { block.k * W } else { block.k * W / 2 });
    assert!(
        lanes + W <= panel
            && out.len() == panels * panel
            && block.count <= panels * W
            && panels * W <= MAX_BLOCK,
        "a block's shape"
    );
    // Exponents kept where both factors are normal numbers; what lies beyond is far from anything a
    // gradient can use.
    let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    let (largest, mut factors) = (largest(block), [0.0; MAX_BLOCK + LANES]);
    for (p, out) in out.chunks_exact_mut(panel).enumerate() {
        out[lanes..].fill(MaybeUninit::new(0));
        for r in 0..W {
            let e = (130 - (largest[p * W + r] >> 23) as i32).clamp(-124, 124);
            factors[p * W + r] = power(e);
            out[lanes + r].write(power(-e).to_bits());
        }
    }
    match block.lie {
        Lie::Along => {
            for (p, out) in out.chunks_exact_mut(panel).enumerate() {
                along::<W, TWICE>(&block.from(p * W, W), &factors[p * W..], out);
            }
        }
        // SAFETY: every panel has memory for its lanes, as was checked.
        Lie::Across => unsafe {
            across::<W, TWICE>(block, &factors, panel, panels, out.as_mut_ptr().cast())
        },
    }
}

/// Bits of the largest magnitude of each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn largest(block: &Part) -> [u32; MAX_BLOCK] {
    let mut largest = [0; MAX_BLOCK];
    if block.lie == Lie::Along {
        for r in 0..block.count {
            let (row, mut of) =
                (&block.data[r * block.stride..][..block.k], [_mm512_setzero_si512(); 4]);
            for at in (0..block.k).step_by(4 * LANES) {
                for j in 0..4 {
                    of[j] = _mm512_max_epu32(magnitudes(load(row, at + j * LANES)), of[j]);
                }
            }
            largest[r] = _mm512_reduce_max_epu32(_mm512_max_epu32(
                _mm512_max_epu32(of[0], of[1]),
                _mm512_max_epu32(of[2], of[3]),
            ));
        }
        return largest;
    }
    for (i, largest) in largest.chunks_exact_mut(4 * LANES).enumerate() {
        let mut of = [_mm512_setzero_si512(); 4];
        for s in 0..if i * 4 * LANES < block.count { block.k } else { 0 } {
            for j in 0..4 {
                of[j] =
                    _mm512_max_epu32(magnitudes(load(block.step(s), (i * 4 + j) * LANES)), of[j]);
            }
        }
        for j in 0..4 {
            // SAFETY: 16 of 64 words.
            unsafe { _mm512_storeu_si512(largest.as_mut_ptr().add(j * LANES).cast(), of[j]) };
        }
    }
    largest
}

/// A panel of rows along k, in blocks of [`ROWS`] rows by 16 steps, transposed as halves.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn along<const W: usize, const TWICE: bool>(
    part: &Part,
    factors: &[f32],
    out: &mut [MaybeUninit<u32>],
) {
    for at in (0..W).step_by(ROWS) {
        for from in (0..part.k).step_by(LANES) {
            let mut x = [_mm256_setzero_si256(); ROWS];
            for r in at..part.count.min(at + ROWS) {
                let values = load(&part.data[r * part.stride..][..part.k], from);
                x[r - at] = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_mul_ps(
                    values,
                    _mm512_set1_ps(factors[r]),
                ));
            }
            let steps = transposed(x);
            for s in 0..LANES.min(part.k - from) {
                let x = steps[s % 8];
                let x = if s < 8 {
                    _mm256_castsi256_si128(x)
                } else {
                    _mm256_extracti128_si256::<1>(x)
                };
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

/// All panels of rows across k, step by step: each line of the source is read once.
///
/// # Safety
/// `out` must have memory for `panels` panels of `panel` words, and those for `[k][W]` halves;
/// `factors` for [`LANES`] more than all rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn across<const W: usize, const TWICE: bool>(
    block: &Part,
    factors: &[f32],
    panel: usize,
    panels: usize,
    out: *mut u32,
) {
    let kept = if W < LANES { u16::MAX >> (LANES - W) } else { u16::MAX };
    for s in 0..block.k {
        let row = block.step(s);
        for at in (0..panels * W).step_by(W.min(LANES)) {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_mul_ps(
                load(row, at),
                load(factors, at),
            ));
            // SAFETY: the caller's promise; the mask leaves the words of the panel.
            unsafe {
                let out = out.add(at / W * panel);
                if TWICE {
                    let words = _mm512_cvtepu16_epi32(halves);
                    _mm512_mask_storeu_epi32(
                        out.add(s * W + at % W).cast(),
                        kept,
                        _mm512_or_si512(words, _mm512_slli_epi32::<16>(words)),
                    );
                } else {
                    _mm256_storeu_si256(out.add((s * W + at % W) / 2).cast(), halves);
                }
            }
        }
    }
}

/// Halves of 8 rows by 16 steps to 8 halves of each step: steps 0 to 7 in the low lanes, 8 to 15 in
/// the high ones.
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
            fours[i + rows + 2] =
                _mm256_unpackhi_epi32(pairs[i + 2 * rows], pairs[i + 2 * rows + 1]);
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

#[inline]
#[target_feature(enable = "avx512f")]
fn store4(words: __m128i, out: &mut [MaybeUninit<u32>]) {
    // SAFETY: memory for four words.
    unsafe { _mm_storeu_si128(out[..4].as_mut_ptr().cast(), words) }
}
