//! bf16 operands, f32 sums: `vdpbf16ps` adds two products to a lane. A word is a pair of
//! neighbouring steps of k.

use super::f32::{Avx512, prefetch, store};
use super::{MR, PanelMemory, Tile, Words};
use crate::ops::gemm::pack::Part;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::Instant;

const NR: usize = 32;

pub struct Bf16;

impl Tile for Bf16 {
    const NR: usize = NR;

    fn words(k: usize) -> [usize; 2] {
        [k.div_ceil(2) * MR, k.div_ceil(2) * NR]
    }

    fn pack_a(block: &Part, memory: &mut PanelMemory, out: &mut Words) {
        block.panels::<MR>(Self::words(block.k)[0], out, |part, out| {
            // SAFETY: this kernel is chosen only where the CPU has AVX-512.
            unsafe { pairs::<MR>(part.plain_in::<MR>(memory), out) }
        });
    }
    fn pack_b(block: &Part, memory: &mut PanelMemory, out: &mut Words) {
        block.panels::<NR>(Self::words(block.k)[1], out, |part, out| {
            // SAFETY: as above.
            unsafe { pairs::<NR>(part.plain_in::<NR>(memory), out) }
        });
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn run(
        k: usize,
        a: *const u32,
        b: *const u32,
        c: *mut f32,
        stride: usize,
        accumulate: bool,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        prefetch::<NR>(c, stride);
        for pair in 0..k.div_ceil(2) {
            // SAFETY: pairs that both panels hold.
            let (a, b) = unsafe { (a.add(pair * MR), b.add(pair * NR)) };
            // SAFETY: as above; no alignment is required.
            let b = unsafe { [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(16).cast())] };
            for r in 0..MR {
                // SAFETY: as above.
                let a = words(_mm512_set1_epi32(unsafe { *a.add(r) } as i32));
                for j in 0..2 {
                    sums[r][j] = _mm512_dpbf16_ps(sums[r][j], a, words(b[j]));
                }
            }
        }
        // SAFETY: the caller's tile.
        unsafe { store(&sums, c, stride, accumulate) }
    }
}

/// How much faster than f32 a tile has to be. `vdpbf16ps` does twice or half the work of
/// `vfmadd231ps`, by CPU: nothing lies between.
const MARGIN: f64 = 1.2;

/// Whether this CPU's bf16 tile beats its f32 tile. Measured, on one thread in its innermost cache,
/// by the shortest of many times of some microseconds: no load turns the answer, and a run's bytes
/// may depend on it.
pub fn beats_f32() -> bool {
    const STEPS: usize = 128;
    let [a, b] = Avx512::words(STEPS).map(|words| vec![0u32; words]);
    let mut c = [0.0; MR * NR];
    let mut least = |run: unsafe fn(usize, *const u32, *const u32, *mut f32, usize, bool)| {
        let once = |_| {
            let start = Instant::now();
            for _ in 0..8 {
                // SAFETY: panels of at least the words that either kernel reads, a whole tile, and
                // bf16's features, which are tested first.
                unsafe { run(STEPS, black_box(a.as_ptr()), b.as_ptr(), c.as_mut_ptr(), NR, false) };
            }
            start.elapsed().as_secs_f64()
        };
        (0..300).map(once).fold(f64::INFINITY, f64::min)
    };
    is_x86_feature_detected!("avx512bf16") && least(Bf16::run) * MARGIN < least(Avx512::run)
}

#[inline(always)]
fn words(x: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without invalid values.
    unsafe { std::mem::transmute(x) }
}

/// `[k][W]` values to `[k / 2][W]` pairs, the first step in the low half; an odd last step is
/// paired with zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn pairs<const W: usize>(values: &[f32], out: &mut [MaybeUninit<u32>]) {
    assert_eq!(out.len(), (values.len() / W).div_ceil(2) * W, "bf16 panel: shapes");
    for (out, values) in out.as_chunks_mut::<W>().0.iter_mut().zip(values.chunks(2 * W)) {
        for l in 0..W {
            let high = values.get(W + l).copied().unwrap_or(0.0);
            out[l].write(rounded(values[l]) >> 16 | rounded(high) & 0xffff_0000);
        }
    }
}

/// Rounds to the nearest bf16, ties to even, in the upper half. NaN stays NaN.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() { bits | 0x40_0000 } else { bits + (0x7fff + (bits >> 16 & 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The same command gives the same bytes, whatever else the machine does.
    #[test]
    fn load_does_not_turn_the_answer() {
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while busy.load(Ordering::Relaxed) {
                        black_box(0);
                    }
                });
            }
            let answers: Vec<bool> = (0..20).map(|_| beats_f32()).collect();
            busy.store(false, Ordering::Relaxed);
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        });
    }
}
