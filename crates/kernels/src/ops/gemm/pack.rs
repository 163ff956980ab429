//! Parts of an operand into panels `[k][W]`: W rows (of a) or columns (of b) side by side, padded
//! with zeros. A tile reads its panels front to back.
#![allow(unsafe_code)]

mod halves;

use super::operand::Lie;
use super::panel_memory::{PanelMemory, Words};
use crate::dispatch::{Level, level};
use std::mem::MaybeUninit;

pub(super) use halves::halves;

/// Rows and steps transposed at a time.
const BLOCK: usize = 8;
const STEPS: usize = 64;
static ZEROS: [f32; STEPS] = [0.0; STEPS];

/// The values of a panel, or of a block of some, where they lie: element (row r of the outer
/// dimension, step s) is `data[r * stride + s]` along k, `data[s * stride + r]` across it.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub lie: Lie,
    /// Rows of the outer dimension; what panels have more of is zero.
    pub count: usize,
    /// Steps.
    pub k: usize,
}

impl<'a> Part<'a> {
    /// `count` rows (columns, where the lie is across) from `first` on.
    pub fn from(self, first: usize, count: usize) -> Self {
        let count = count.min(self.count.saturating_sub(first));
        let at = if count == 0 {
            self.data.len()
        } else {
            first * if self.lie == Lie::Along { self.stride } else { 1 }
        };
        Self { data: &self.data[at..], count, ..self }
    }

    /// The steps of a row that lies along k, from `from` on; zeros for one that is not there.
    pub fn row(&self, r: usize, from: usize, steps: usize) -> &'a [f32] {
        if r < self.count { &self.data[r * self.stride + from..][..steps] } else { &ZEROS[..steps] }
    }

    /// The values of a step that lie across k.
    pub fn step(&self, s: usize) -> &'a [f32] {
        if self.count == 0 { &[] } else { &self.data[s * self.stride..][..self.count] }
    }

    /// `pack` for each panel of `W` rows and `words` words.
    pub fn panels<const W: usize>(
        &self,
        words: usize,
        out: &mut Words,
        mut pack: impl FnMut(Part, &mut Words),
    ) {
        assert!(
            out.len().is_multiple_of(words) && self.count <= out.len() / words * W,
            "whole panels"
        );
        for (p, out) in out.chunks_exact_mut(words).enumerate() {
            pack(self.from(p * W, W), out);
        }
    }

    /// The panel `[k][W]`, made in `memory`.
    pub fn plain_in<'r, const W: usize>(&self, memory: &'r mut PanelMemory) -> &'r [f32] {
        let panel = memory.values(W * self.k);
        self.plain::<W>(panel);
        // SAFETY: every value was just written.
        unsafe { panel.assume_init_ref() }
    }

    /// Fills the panel `[k][W]`.
    pub fn plain<const W: usize>(&self, panel: &mut [MaybeUninit<f32>]) {
        assert!(panel.len() == W * self.k && self.count <= W, "a panel's shape");
        if self.lie == Lie::Along {
            for at in (0..W).step_by(BLOCK) {
                for (i, panel) in panel.chunks_mut(W * STEPS).enumerate() {
                    let steps = panel.len() / W;
                    transpose::<W>(
                        std::array::from_fn(|r| self.row(at + r, i * STEPS, steps)),
                        at,
                        panel,
                    );
                }
            }
            return;
        }
        for (s, out) in panel.as_chunks_mut::<W>().0.iter_mut().enumerate() {
            match self.step(s).first_chunk::<W>() {
                Some(values) => _ = out.write_copy_of_slice(values),
                None => {
                    let values = self.step(s);
                    out[..values.len()].write_copy_of_slice(values);
                    out[values.len()..].fill(MaybeUninit::new(0.0));
                }
            }
        }
    }
}

/// [`BLOCK`] rows become columns `at..at + BLOCK` of a panel, as many as `W` has left: 8 or 4.
fn transpose<const W: usize>(rows: [&[f32]; BLOCK], at: usize, panel: &mut [MaybeUninit<f32>]) {
    const { assert!(W.is_multiple_of(4)) };
    let k = rows[0].len();
    assert!(
        rows.iter().all(|row| row.len() == k)
            && panel.len() >= W * k
            && at.is_multiple_of(BLOCK)
            && at < W,
        "transpose: shapes"
    );
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
/// Every row must hold k values, `panel` has memory for `[k, W]`; at is a multiple of 8 below W,
/// and W a multiple of 4.
#[target_feature(enable = "avx2")]
unsafe fn transpose_avx2<const W: usize>(
    rows: [&[f32]; BLOCK],
    k: usize,
    at: usize,
    panel: *mut f32,
) -> usize {
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
            let columns = [
                _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]),
                _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]),
            ];
            for (half, column) in columns.into_iter().enumerate() {
                // SAFETY: 8 or 4 values of one step of the panel.
                unsafe {
                    let out = panel.add((step + i + 4 * half) * W + at);
                    if wide {
                        _mm256_storeu_ps(out, column)
                    } else {
                        _mm_storeu_ps(out, _mm256_castps256_ps128(column))
                    }
                }
            }
        }
    }
    k / 8 * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{available, force};

    #[test]
    fn both_lies_give_the_same_panels() {
        for (outer, k) in [(1, 1), (12, 8), (13, 17), (31, 33), (64, 129)] {
            let along: Vec<f32> = (0..outer * k).map(|i| i as f32 + 1.0).collect();
            let across: Vec<f32> =
                (0..outer * k).map(|i| along[i % outer * k + i / outer]).collect();
            for level in available() {
                force(level);
                check::<12>(&along, &across, outer, k);
                check::<32>(&along, &across, outer, k);
            }
        }
    }

    fn check<const W: usize>(along: &[f32], across: &[f32], outer: usize, k: usize) {
        let along = Part { data: along, stride: k, lie: Lie::Along, count: outer, k };
        let across = Part { data: across, stride: outer, lie: Lie::Across, count: outer, k };
        for first in (0..outer + W).step_by(W) {
            let panels = [along, across].map(|part| {
                let mut panel = vec![MaybeUninit::new(9.0); W * k];
                part.from(first, W).plain::<W>(&mut panel);
                // SAFETY: initialised from the start.
                panel.into_iter().map(|x| unsafe { x.assume_init() }).collect::<Vec<f32>>()
            });
            assert_eq!(panels[0], panels[1]);
            for (i, value) in panels[0].iter().enumerate() {
                let (row, step) = (first + i % W, i / W);
                assert_eq!(*value, if row < outer { (row * k + step) as f32 + 1.0 } else { 0.0 });
            }
        }
    }
}
