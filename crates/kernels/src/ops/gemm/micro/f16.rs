//! f16 operands and short f16 sums: `vfmadd231ph` does twice the work of f32. The panels are scaled
//! so that [`RUN`] products can never overflow; a run's sums are widened and added in f32.
//! Rounding: 2^-12 of a partial sum per step, where bf16 operands alone cost 2^-9 of each product.

use super::f32::prefetch;
use super::{MR, PanelMemory, Tile, Words};
use crate::ops::gemm::pack::{Part, halves};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

const NR: usize = 64;
/// Steps summed in f16: 128 products of at most 2^8 come to 2^15 at most.
const RUN: usize = 128;
/// Number of steps that b is prefetched ahead, from the second-level cache.
const AHEAD: usize = 16;
/// Words of a step of b: two columns each.
const B: usize = NR / 2;

/// Panel of a: `[k][MR]` words that hold a value twice, then the rows' scales; of b: `[k][NR]`
/// values, then the columns' scales.
pub struct F16;

impl Tile for F16 {
    const NR: usize = NR;

    fn words(k: usize) -> [usize; 2] {
        // Whole lines, so that every step of b is one pair of aligned loads.
        [(k * MR + MR).next_multiple_of(16), k * B + NR]
    }

    fn pack_a(block: &Part, _: &mut PanelMemory, out: &mut Words) {
        // SAFETY: this kernel is chosen only where the CPU has AVX-512.
        unsafe { halves::<MR, true>(block, Self::words(block.k)[0], out) }
    }
    fn pack_b(block: &Part, _: &mut PanelMemory, out: &mut Words) {
        // SAFETY: as above.
        unsafe { halves::<NR, false>(block, Self::words(block.k)[1], out) }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512fp16")]
    unsafe fn run(
        k: usize,
        a: *const u32,
        b: *const u32,
        c: *mut f32,
        stride: usize,
        accumulate: bool,
    ) {
        prefetch::<NR>(c, stride);
        // Written by the first run, before anything reads it.
        let mut wide = [[MaybeUninit::<f32>::uninit(); NR]; MR];
        let run = k.div_ceil(k.div_ceil(RUN));
        for from in (0..k).step_by(run) {
            // SAFETY: steps that both panels hold.
            unsafe {
                short(run.min(k - from), a.add(from * MR), b.add(from * B), &mut wide, from > 0)
            };
        }
        // SAFETY: the scales behind the steps of both panels.
        let (a_scales, b_scales) =
            unsafe { (a.add(k * MR).cast::<f32>(), b.add(k * B).cast::<f32>()) };
        for r in 0..MR {
            for at in (0..NR).step_by(16) {
                // SAFETY: the caller's tile, and the scales of its rows and columns.
                unsafe {
                    let scale = _mm512_mul_ps(
                        _mm512_set1_ps(*a_scales.add(r)),
                        _mm512_loadu_ps(b_scales.add(at)),
                    );
                    let sum = _mm512_loadu_ps(wide[r].as_ptr().add(at).cast());
                    let c = c.add(r * stride + at);
                    let old = if accumulate { _mm512_loadu_ps(c) } else { _mm512_setzero_ps() };
                    _mm512_storeu_ps(c, _mm512_fmadd_ps(sum, scale, old));
                }
            }
        }
    }
}

/// At most [`RUN`] steps summed in f16; the sums, widened, become `wide` or are added to it. Apart
/// from the rest, whose registers would push out sums.
///
/// # Safety
/// As [`Tile::run`]; `wide` must have been written if it is added to.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512fp16")]
unsafe fn short(
    k: usize,
    a: *const u32,
    b: *const u32,
    wide: &mut [[MaybeUninit<f32>; NR]; MR],
    accumulate: bool,
) {
    let mut sums = [[_mm512_setzero_ph(); 2]; MR];
    for step in 0..k {
        // SAFETY: step < k, which both panels hold.
        let (a, b) = unsafe { (a.add(step * MR), b.add(step * B)) };
        for line in 0..2 {
            // An address alone is safe, whatever lies there.
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * B + line * 16).cast());
        }
        // SAFETY: as above; no alignment is required.
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
            let sums = _mm512_castph_si512(sums[r][j]);
            let halves = [_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums)];
            for h in 0..2 {
                let sum = _mm512_cvtph_ps(halves[h]);
                // SAFETY: 16 of a row's values.
                unsafe {
                    let wide = wide[r].as_mut_ptr().add(j * 32 + h * 16).cast();
                    _mm512_storeu_ps(
                        wide,
                        if accumulate { _mm512_add_ps(_mm512_loadu_ps(wide), sum) } else { sum },
                    );
                }
            }
        }
    }
}
