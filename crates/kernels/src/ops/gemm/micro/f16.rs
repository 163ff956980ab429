//! f16 operands and short f16 sums: `vfmadd231ph` does twice the work of f32. Where the range of f16 ends is dealt with in the panels: each row of
//! a and column of b is scaled by a power of two, exactly, until its largest value lies in [8, 16), so that [`RUN`] products can never overflow;
//! then a run's sums are widened and added in f32. Rounding: 2^-12 of a partial sum per step, where bf16 operands alone cost 2^-9 of each product.

use super::f32::prefetch;
use super::{MR, Tile};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

const NR: usize = 64;
/// Steps summed in f16: 64 products below 2^8 stay below 2^14.
const RUN: usize = 64;
/// Words of a step of b: two columns each.
const B: usize = NR / 2;

/// Panel of a: `[k][MR]` words that hold a value twice, then the rows' scales; of b: `[k][NR]` values, then the columns' scales.
pub struct F16;

impl Tile for F16 {
    const NR: usize = NR;

    fn words(k: usize) -> [usize; 2] {
        // Whole lines, so that every step of b is one pair of aligned loads.
        [(k * MR + MR).next_multiple_of(16), k * B + NR]
    }

    fn convert_a(values: &[f32], out: &mut [MaybeUninit<u32>]) {
        let (lanes, rest) = out.split_at_mut(values.len());
        // SAFETY: this kernel is chosen only where the CPU has AVX-512; a word for every value.
        let scales = unsafe { scaled::<MR, { 4 * MR }, true>(values, lanes) };
        rest.fill(MaybeUninit::new(0));
        rest[..MR].write_copy_of_slice(&scales.map(f32::to_bits));
    }

    fn convert_b(values: &[f32], out: &mut [MaybeUninit<u32>]) {
        let (lanes, rest) = out.split_at_mut(values.len() / 2);
        // SAFETY: as above; a word for two values.
        let scales = unsafe { scaled::<NR, NR, false>(values, lanes) };
        rest.write_copy_of_slice(&scales.map(f32::to_bits));
    }

    #[target_feature(enable = "avx512f,avx512fp16")]
    unsafe fn run(k: usize, a: *const u32, b: *const u32, c: *mut f32, stride: usize, accumulate: bool) {
        prefetch::<NR>(c, stride);
        // Both are written before they are read.
        let (mut sums, mut wide) = ([[MaybeUninit::<u16>::uninit(); NR]; MR], [[MaybeUninit::<f32>::uninit(); NR]; MR]);
        let last = (k - 1) / RUN * RUN;
        for from in (0..last).step_by(RUN) {
            // SAFETY: steps that both panels hold.
            unsafe { short(RUN, a.add(from * MR), b.add(from * B), &mut sums) };
            for r in 0..MR {
                for at in (0..NR).step_by(16) {
                    // SAFETY: 16 values each, of which the first run writes all.
                    unsafe {
                        let (sum, lanes) = (widened(&sums[r], at), wide[r].as_mut_ptr().add(at).cast());
                        _mm512_storeu_ps(lanes, if from == 0 { sum } else { _mm512_add_ps(_mm512_loadu_ps(lanes), sum) });
                    }
                }
            }
        }
        // SAFETY: as above; the scales behind the steps of both panels.
        let (a_scales, b_scales) = unsafe {
            short(k - last, a.add(last * MR), b.add(last * B), &mut sums);
            (a.add(k * MR).cast::<f32>(), b.add(k * B).cast::<f32>())
        };
        for r in 0..MR {
            for at in (0..NR).step_by(16) {
                // SAFETY: the caller's tile, and the scales of its rows and columns.
                unsafe {
                    let mut sum = widened(&sums[r], at);
                    if last > 0 {
                        sum = _mm512_add_ps(_mm512_loadu_ps(wide[r].as_ptr().add(at).cast()), sum);
                    }
                    let scale = _mm512_mul_ps(_mm512_set1_ps(*a_scales.add(r)), _mm512_loadu_ps(b_scales.add(at)));
                    let c = c.add(r * stride + at);
                    let old = if accumulate { _mm512_loadu_ps(c) } else { _mm512_setzero_ps() };
                    _mm512_storeu_ps(c, _mm512_fmadd_ps(sum, scale, old));
                }
            }
        }
    }
}

/// 16 of a row's f16 sums from `at` on.
///
/// # Safety
/// They must have been written.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn widened(sums: &[MaybeUninit<u16>; NR], at: usize) -> __m512 {
    // SAFETY: 16 of the row's values.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(sums[at..at + 16].as_ptr().cast()) })
}

/// The f16 sums of at most [`RUN`] steps. Apart from the rest, whose registers would push out sums.
///
/// # Safety
/// As [`Tile::run`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512fp16")]
unsafe fn short(k: usize, a: *const u32, b: *const u32, out: &mut [[MaybeUninit<u16>; NR]; MR]) {
    let mut sums = [[_mm512_setzero_ph(); 2]; MR];
    for step in 0..k {
        // SAFETY: step < k, which both panels hold.
        let (a, b) = unsafe { (a.add(step * MR), b.add(step * B)) };
        // SAFETY: as above; no alignment asked.
        let b = unsafe { [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(16).cast())] };
        let b = [_mm512_castsi512_ph(b[0]), _mm512_castsi512_ph(b[1])];
        for r in 0..MR {
            // SAFETY: as above.
            let a = _mm512_castsi512_ph(_mm512_set1_epi32(unsafe { *a.add(r) } as i32));
            for j in 0..2 {
                sums[r][j] = _mm512_fmadd_ph(a, b[j], sums[r][j]);
            }
        }
    }
    for r in 0..MR {
        for j in 0..2 {
            // SAFETY: 32 of a row's values.
            unsafe { _mm512_storeu_si512(out[r].as_mut_ptr().add(j * 32).cast(), _mm512_castph_si512(sums[r][j])) };
        }
    }
}

/// Scales each of `W` columns of `[k][W]` values by the power of two that puts its largest magnitude in [8, 16) and rounds to f16, each value
/// written once or `TWICE`. Returns what undoes the scaling. `L`: a multiple of W and of 16. A column with an entry that is not finite keeps one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn scaled<const W: usize, const L: usize, const TWICE: bool>(values: &[f32], out: &mut [MaybeUninit<u32>]) -> [f32; W] {
    assert!(out.len() * if TWICE { 1 } else { 2 } == values.len() && values.len().is_multiple_of(W), "f16 panel: shapes");
    // Indices, not iterators: those are not inlined into a function with features of its own.
    let (whole, rest) = values.as_chunks::<L>();
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    let mut largest = [_mm512_setzero_si512(); 4];
    for run in whole {
        for j in 0..L / 16 {
            largest[j] = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(load(&run[j * 16..j * 16 + 16])), magnitude), largest[j]);
        }
    }
    for j in 0..rest.len().div_ceil(16) {
        let x = load(&rest[j * 16..rest.len().min(j * 16 + 16)]);
        largest[j] = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x), magnitude), largest[j]);
    }
    // SAFETY: 64 words, either way.
    let largest: [u32; 64] = unsafe { std::mem::transmute(largest) };
    let mut columns = [0u32; W];
    largest[..L].iter().enumerate().for_each(|(i, &x)| columns[i % W] = columns[i % W].max(x));
    // Exponents kept where both factors are normal numbers; what lies beyond is far from anything a gradient can use.
    let exponents = columns.map(|bits| (130 - (bits >> 23) as i32).clamp(-124, 124));
    let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    let mut factors = [[0.0; 16]; 4];
    factors.as_flattened_mut().iter_mut().enumerate().for_each(|(i, f)| *f = power(exponents[i % W]));
    for at in (0..values.len()).step_by(16) {
        let x = load(&values[at..values.len().min(at + 16)]);
        let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_mul_ps(x, load(&factors[at % L / 16])));
        if TWICE {
            let words = _mm512_cvtepu16_epi32(halves);
            store(_mm512_or_si512(words, _mm512_slli_epi32::<16>(words)), &mut out[at..values.len().min(at + 16)]);
        } else {
            store(_mm512_castsi256_si512(halves), &mut out[at / 2..values.len().min(at + 16) / 2]);
        }
    }
    exponents.map(|e| power(-e))
}

/// Up to 16 values, zeros behind.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32]) -> __m512 {
    // SAFETY: the mask covers the values there are.
    unsafe { _mm512_maskz_loadu_ps(u16::MAX >> (16 - x.len().min(16)), x.as_ptr()) }
}

/// The first words, as many as `out` has room for, up to 16.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: __m512i, out: &mut [MaybeUninit<u32>]) {
    // SAFETY: the mask covers the words there is room for.
    unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), u16::MAX >> (16 - out.len().min(16)), words) }
}
