//! f32: each sum one chain of fused multiply-adds along k, the same bytes on both levels.

use super::{MR, PanelMemory, Tile, Words, plain};
use crate::ops::gemm::pack::Part;
use std::arch::x86_64::*;

const NR: usize = 32;

/// 12 x 2 registers of 16 lanes.
pub struct Avx512;
/// Four parts of 6 x 2 registers of 8 lanes.
pub struct Avx2;

impl Tile for Avx512 {
    const NR: usize = NR;

    fn words(k: usize) -> [usize; 2] {
        [k * MR, k * NR]
    }
    fn pack_a(block: &Part, _: &mut PanelMemory, out: &mut Words) {
        plain::<MR>(block, out);
    }
    fn pack_b(block: &Part, _: &mut PanelMemory, out: &mut Words) {
        plain::<NR>(block, out);
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn run(
        k: usize,
        a: *const u32,
        b: *const u32,
        c: *mut f32,
        stride: usize,
        accumulate: bool,
    ) {
        let (a, b) = (a.cast::<f32>(), b.cast::<f32>());
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        prefetch::<NR>(c, stride);
        for step in 0..k {
            // The next panel of b, into the second-level cache.
            let next = b.wrapping_add((k + step) * NR);
            _mm_prefetch::<_MM_HINT_T1>(next.cast());
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(16).cast());
            // SAFETY: step < k, which both panels hold.
            let (a, b) = unsafe { (a.add(step * MR), b.add(step * NR)) };
            // SAFETY: as above; no alignment is required.
            let b = unsafe { [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))] };
            for r in 0..MR {
                // SAFETY: as above.
                let a = _mm512_set1_ps(unsafe { *a.add(r) });
                for j in 0..2 {
                    sums[r][j] = _mm512_fmadd_ps(a, b[j], sums[r][j]);
                }
            }
        }
        // SAFETY: the caller's tile.
        unsafe { store(&sums, c, stride, accumulate) }
    }
}

/// The lines of a tile's output arrive while the sums are made. An address alone is safe, whatever
/// lies there.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn prefetch<const NR: usize>(c: *mut f32, stride: usize) {
    for r in 0..MR {
        for at in (0..NR).step_by(16) {
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(r * stride + at).cast());
        }
    }
}

/// A tile's sums into its output.
///
/// # Safety
/// As [`Tile::run`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store(sums: &[[__m512; 2]; MR], c: *mut f32, stride: usize, accumulate: bool) {
    for r in 0..MR {
        for j in 0..2 {
            // SAFETY: the caller's tile.
            unsafe {
                let c = c.add(r * stride + j * 16);
                let sum = if accumulate {
                    _mm512_add_ps(_mm512_loadu_ps(c), sums[r][j])
                } else {
                    sums[r][j]
                };
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}

/// Rows and columns of what 16 registers of 8 lanes hold at once.
const ROWS: usize = 6;
const COLS: usize = 16;

impl Tile for Avx2 {
    const NR: usize = NR;

    fn words(k: usize) -> [usize; 2] {
        [k * MR, k * NR]
    }
    fn pack_a(block: &Part, _: &mut PanelMemory, out: &mut Words) {
        plain::<MR>(block, out);
    }
    fn pack_b(block: &Part, _: &mut PanelMemory, out: &mut Words) {
        plain::<NR>(block, out);
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn run(
        k: usize,
        a: *const u32,
        b: *const u32,
        c: *mut f32,
        stride: usize,
        accumulate: bool,
    ) {
        for col in (0..NR).step_by(COLS) {
            for row in (0..MR).step_by(ROWS) {
                // SAFETY: a part of the caller's tile, and the same k steps.
                unsafe {
                    part(
                        k,
                        a.add(row).cast(),
                        b.add(col).cast(),
                        c.add(row * stride + col),
                        stride,
                        accumulate,
                    )
                };
            }
        }
    }
}

/// # Safety
/// As [`Tile::run`], for [`ROWS`] x [`COLS`] of the tile.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn part(
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    for step in 0..k {
        // SAFETY: step < k, which both panels hold.
        let (a, b) = unsafe { (a.add(step * MR), b.add(step * NR)) };
        // SAFETY: as above; no alignment is required.
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
                let sum = if accumulate {
                    _mm256_add_ps(_mm256_loadu_ps(c), sums[r][j])
                } else {
                    sums[r][j]
                };
                _mm256_storeu_ps(c, sum);
            }
        }
    }
}
