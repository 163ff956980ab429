//! Operands into panels: `[panel][k][W]`, W rows (of a) or columns (of b) side by side, short panels padded with zeros. A tile reads its panels
//! front to back.
#![allow(unsafe_code)]

use super::operand::{Lie, Operand};
use crate::dispatch::{Level, level};
use std::mem::MaybeUninit;

/// Rows and steps transposed at a time.
const BLOCK: usize = 8;
const STEPS: usize = 64;

impl Operand<'_, f32> {
    /// Fills whole panels of width `W` with `first..` of the outer dimension and steps `from..from + k`; writes every value.
    pub fn pack<const W: usize>(&self, first: usize, from: usize, k: usize, panels: &mut [MaybeUninit<f32>]) {
        let count = self.outer().saturating_sub(first).min(panels.len() / k);
        if !count.is_multiple_of(W) {
            panels[count / W * W * k..].fill(MaybeUninit::new(0.0));
        }
        match self.lie {
            Lie::Along => self.pack_along::<W>(first, count, from, k, panels),
            Lie::Across => self.pack_across::<W>(first, count, from, k, panels),
        }
    }

    fn pack_along<const W: usize>(&self, first: usize, count: usize, from: usize, k: usize, panels: &mut [MaybeUninit<f32>]) {
        let (dense, cols) = (self.source.dense(), self.source.cols());
        let (mut held, zeros) = (vec![0.0; if dense.is_none() { BLOCK * k } else { 0 }], [0.0; STEPS]);
        for (p, panel) in panels.chunks_exact_mut(W * k).enumerate() {
            for at in (0..W.min(count - p * W)).step_by(BLOCK) {
                let (row, have) = (first + p * W + at, BLOCK.min(W - at).min(count - p * W - at));
                held.chunks_exact_mut(k).take(have).enumerate().for_each(|(r, held)| self.source.read(row + r, from, held));
                for (i, panel) in panel.chunks_mut(W * STEPS).enumerate() {
                    let steps = panel.len() / W;
                    let mut rows = [&zeros[..steps]; BLOCK];
                    for (r, values) in rows[..have].iter_mut().enumerate() {
                        *values = match dense {
                            Some(data) => &data[(row + r) * cols + from + i * STEPS..][..steps],
                            None => &held[r * k + i * STEPS..][..steps],
                        };
                    }
                    transpose::<W>(rows, at, panel);
                }
            }
        }
    }

    fn pack_across<const W: usize>(&self, first: usize, count: usize, from: usize, k: usize, panels: &mut [MaybeUninit<f32>]) {
        let mut row = vec![0.0; panels.len() / k];
        for step in 0..k {
            self.source.read(from + step, first, &mut row[..count]);
            for (part, panel) in row.as_chunks::<W>().0.iter().zip(panels.chunks_exact_mut(W * k)) {
                panel[step * W..][..W].write_copy_of_slice(part);
            }
        }
    }
}

/// [`BLOCK`] rows become columns `at..at + BLOCK` of a panel, as many as `W` has left: 8 or 4.
fn transpose<const W: usize>(rows: [&[f32]; BLOCK], at: usize, panel: &mut [MaybeUninit<f32>]) {
    const { assert!(W.is_multiple_of(4)) };
    let k = rows[0].len();
    assert!(rows.iter().all(|row| row.len() == k) && panel.len() >= W * k && at.is_multiple_of(BLOCK) && at < W, "transpose: shapes");
    let done = if level() >= Level::Avx2 {
        // SAFETY: the level is one the CPU was found to have; the shapes were just checked.
        unsafe { transpose_avx2::<W>(rows, k, at, panel.as_mut_ptr().cast()) }
    } else {
        0
    };
    for step in done..k {
        for r in 0..BLOCK.min(W - at) {
            panel[step * W + at + r].write(rows[r][step]);
        }
    }
}

/// Whole blocks of 8 steps; returns how many steps are done.
///
/// # Safety
/// Every row must hold k values, `panel` has room for `[k, W]`; at is a multiple of 8 below W, and W a multiple of 4.
#[target_feature(enable = "avx2")]
unsafe fn transpose_avx2<const W: usize>(rows: [&[f32]; BLOCK], k: usize, at: usize, panel: *mut f32) -> usize {
    use std::arch::x86_64::*;
    let wide = W - at >= BLOCK;
    for step in (0..k / 8 * 8).step_by(8) {
        let mut x = [_mm256_setzero_ps(); 8];
        for r in 0..8 {
            // SAFETY: 8 values of row r from step on.
            x[r] = unsafe { _mm256_loadu_ps(rows[r].as_ptr().add(step)) };
        }
        let (mut pairs, mut fours) = (x, x);
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
        }
        for i in [0, 4] {
            fours[i] = _mm256_shuffle_ps::<0x44>(pairs[i], pairs[i + 2]);
            fours[i + 1] = _mm256_shuffle_ps::<0xee>(pairs[i], pairs[i + 2]);
            fours[i + 2] = _mm256_shuffle_ps::<0x44>(pairs[i + 1], pairs[i + 3]);
            fours[i + 3] = _mm256_shuffle_ps::<0xee>(pairs[i + 1], pairs[i + 3]);
        }
        for i in 0..4 {
            let columns = [_mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]), _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4])];
            for (half, column) in columns.into_iter().enumerate() {
                // SAFETY: 8 or 4 values of one step of the panel.
                unsafe {
                    let out = panel.add((step + i + 4 * half) * W + at);
                    if wide { _mm256_storeu_ps(out, column) } else { _mm_storeu_ps(out, _mm256_castps256_ps128(column)) }
                }
            }
        }
    }
    k / 8 * 8
}

#[cfg(test)]
mod tests {
    use super::super::Dense;
    use super::*;
    use crate::dispatch::{available, force};

    #[test]
    fn both_lies_give_the_same_panels() {
        for (outer, k) in [(1, 1), (12, 8), (13, 17), (31, 33), (64, 129)] {
            let along: Vec<f32> = (0..outer * k).map(|i| i as f32 + 1.0).collect();
            let across: Vec<f32> = (0..outer * k).map(|i| along[i % outer * k + i / outer]).collect();
            for level in available() {
                force(level);
                check::<12>(&along, &across, outer, k);
                check::<32>(&along, &across, outer, k);
            }
        }
    }

    fn check<const W: usize>(along: &[f32], across: &[f32], outer: usize, k: usize) {
        let (along, across) = (Dense::new(along, k), Dense::new(across, outer));
        let (along, across) = (Operand { source: &along, lie: Lie::Along }, Operand { source: &across, lie: Lie::Across });
        let (first, from) = (outer / 3, k / 3);
        let k = k - from;
        let mut panels = [(); 2].map(|_| vec![MaybeUninit::new(9.0); (outer - first).div_ceil(W) * W * k]);
        along.pack::<W>(first, from, k, &mut panels[0]);
        across.pack::<W>(first, from, k, &mut panels[1]);
        // SAFETY: initialised from the start.
        let panels = panels.map(|panels| panels.into_iter().map(|x| unsafe { x.assume_init() }).collect::<Vec<f32>>());
        assert_eq!(panels[0], panels[1]);
        for (i, value) in panels[0].iter().enumerate() {
            let (row, step) = (first + i / (W * k) * W + i % W, from + i / W % k);
            let expected = if row < outer { (row * along.k() + step) as f32 + 1.0 } else { 0.0 };
            assert_eq!(*value, expected);
        }
    }
}
