//! The innermost loop: a tile of sums over packed panels, in three precisions. Written in
//! intrinsics because the compiler keeps no tile of sums in registers by itself.
#![allow(unsafe_code)]

mod bf16;
mod f16;
mod f32;

use super::Precision;
use super::pack::Part;
use super::panel_memory::{PanelMemory, Words, as_values};
use crate::dispatch::{Level, level};

pub(super) use bf16::{Bf16, beats_f32 as bf16_beats_f32};
pub(super) use f16::F16;
pub(super) use f32::{Avx2, Avx512};

/// Rows of a tile: 12 x 2 sums of a register each leave AVX-512 registers for two loads and a
/// broadcast.
pub(super) const MR: usize = 12;

/// A tile's kernel and the panels it reads.
pub(super) trait Tile: Sync {
    /// Columns of a tile.
    const NR: usize;
    /// 32-bit words of a panel of a, and of b, over `k` steps.
    fn words(k: usize) -> [usize; 2];

    /// A block of a into the panels that `out` has memory for; writes every word. `memory` is
    /// memory to work in.
    fn pack_a(block: &Part, memory: &mut PanelMemory, out: &mut Words);
    /// The same of b.
    fn pack_b(block: &Part, memory: &mut PanelMemory, out: &mut Words);

    /// The sums of a tile over `k` steps, c row-major with rows `stride` apart, overwritten or
    /// added to.
    ///
    /// # Safety
    /// a and b must be whole panels, c valid for `MR` rows of `NR` values `stride` apart, and the
    /// CPU must have the kernel's features.
    unsafe fn run(
        k: usize,
        a: *const u32,
        b: *const u32,
        c: *mut f32,
        stride: usize,
        accumulate: bool,
    );
}

/// Panels `[k][W]` of f32.
fn plain<const W: usize>(block: &Part, out: &mut Words) {
    block.panels::<W>(block.k * W, out, |part, out| part.plain::<W>(as_values(out)));
}

/// The kernels, by what they compute and on which CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// f32, or what has no faster kernel here.
    Avx2,
    Avx512,
    Bf16,
    F16,
}

impl Kernel {
    /// The kernel of the level in use; none where there is only the baseline. A precision that this
    /// CPU has no instruction for is computed in f32.
    pub fn choose(precision: Precision) -> Option<Self> {
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match (level(), precision) {
            (Level::Avx512, Precision::Bf16) if is_x86_feature_detected!("avx512bf16") => {
                Some(Self::Bf16)
            }
            (Level::Avx512, Precision::F16) if is_x86_feature_detected!("avx512fp16") => {
                Some(Self::F16)
            }
            (Level::Avx512, _) => Some(Self::Avx512),
            (Level::Avx2, _) if fma => Some(Self::Avx2),
            _ => None,
        }
    }
}
