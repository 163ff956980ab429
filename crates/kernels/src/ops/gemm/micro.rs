//! The innermost loop: a tile of [`MR`] x [`NR`] sums over packed panels, each sum one chain of fused multiply-adds along k. Written in
//! intrinsics because the compiler keeps no tile of sums in registers by itself; both levels give the same bytes.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use crate::dispatch::{Level, level};

/// Rows of a tile: 12 x 2 sums of 16 lanes leave AVX-512 registers for two loads and a broadcast.
pub(super) const MR: usize = 12;
/// Columns of a tile.
pub(super) const NR: usize = 32;

/// A tile's sums over `k`: a `[k][MR]`, b `[k][NR]`, c row-major with rows `stride` apart, overwritten or added to.
///
/// # Safety
/// a and b must hold `k` steps, c must be valid for `MR` rows of `NR` values `stride` apart, and the CPU must have the kernel's features.
pub(super) type Kernel = unsafe fn(k: usize, a: *const f32, b: *const f32, c: *mut f32, stride: usize, accumulate: bool);

/// The kernel of the level in use; none where there is only the baseline.
pub(super) fn choose() -> Option<Kernel> {
    #[cfg(target_arch = "x86_64")]
    {
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match level() {
            Level::Avx512 => return Some(x86::avx512),
            Level::Avx2 if fma => return Some(x86::avx2),
            _ => {}
        }
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{MR, NR};
    use std::arch::x86_64::*;

    /// # Safety
    /// As [`super::Kernel`].
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512(k: usize, a: *const f32, b: *const f32, c: *mut f32, stride: usize, accumulate: bool) {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        for r in 0..MR {
            // The output's lines arrive while the sums are made. An address alone is safe, whatever lies there.
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * stride).cast());
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * stride + 16).cast());
        }
        for step in 0..k {
            // The next panel of b, into the second-level cache.
            let next = b.wrapping_add((k + step) * NR);
            _mm_prefetch::<_MM_HINT_T1>(next.cast());
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(16).cast());
            // SAFETY: step < k, which both panels hold.
            let (a, b) = unsafe { (a.add(step * MR), b.add(step * NR)) };
            // SAFETY: as above; no alignment asked.
            let b = unsafe { [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))] };
            for r in 0..MR {
                // SAFETY: as above.
                let a = _mm512_set1_ps(unsafe { *a.add(r) });
                for j in 0..2 {
                    sums[r][j] = _mm512_fmadd_ps(a, b[j], sums[r][j]);
                }
            }
        }
        for r in 0..MR {
            for j in 0..2 {
                // SAFETY: the caller's tile.
                unsafe {
                    let c = c.add(r * stride + j * 16);
                    let sum = if accumulate { _mm512_add_ps(_mm512_loadu_ps(c), sums[r][j]) } else { sums[r][j] };
                    _mm512_storeu_ps(c, sum);
                }
            }
        }
    }

    /// Rows and columns of what 16 registers of 8 lanes hold at once.
    const ROWS: usize = 6;
    const COLS: usize = 16;

    /// # Safety
    /// As [`super::Kernel`].
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2(k: usize, a: *const f32, b: *const f32, c: *mut f32, stride: usize, accumulate: bool) {
        for col in (0..NR).step_by(COLS) {
            for row in (0..MR).step_by(ROWS) {
                // SAFETY: a part of the caller's tile, and the same k steps.
                unsafe { part_avx2(k, a.add(row), b.add(col), c.add(row * stride + col), stride, accumulate) };
            }
        }
    }

    /// # Safety
    /// As [`super::Kernel`], for [`ROWS`] x [`COLS`] of the tile.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn part_avx2(k: usize, a: *const f32, b: *const f32, c: *mut f32, stride: usize, accumulate: bool) {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for step in 0..k {
            // SAFETY: step < k, which both panels hold.
            let (a, b) = unsafe { (a.add(step * MR), b.add(step * NR)) };
            // SAFETY: as above; no alignment asked.
            let b = unsafe { [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))] };
            for r in 0..ROWS {
                // SAFETY: as above.
                let a = _mm256_set1_ps(unsafe { *a.add(r) });
                for j in 0..2 {
                    sums[r][j] = _mm256_fmadd_ps(a, b[j], sums[r][j]);
                }
            }
        }
        for r in 0..ROWS {
            for j in 0..2 {
                // SAFETY: the caller's tile.
                unsafe {
                    let c = c.add(r * stride + j * 8);
                    let sum = if accumulate { _mm256_add_ps(_mm256_loadu_ps(c), sums[r][j]) } else { sums[r][j] };
                    _mm256_storeu_ps(c, sum);
                }
            }
        }
    }
}
