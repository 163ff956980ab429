//! Words of 16 rows side by side: a transposition of 4-byte words, which the compiler makes of
//! single loads and stores. Eight by eight in AVX2 registers it takes less than half the time.
#![allow(unsafe_code)]

use super::panels::{Line, ROWS};
#[cfg(target_arch = "x86_64")]
use crate::dispatch::{Level, level};

/// Line i becomes word i of every row. `words`: the rows one after the other, each as long as there
/// are lines.
pub(super) fn side_by_side(words: &[u32], lines: &mut [Line]) {
    let n = lines.len();
    assert_eq!(words.len(), ROWS * n, "as many words as lines");
    #[cfg(target_arch = "x86_64")]
    let done = if level() >= Level::Avx2 {
        // SAFETY: the level is one the CPU was found to have; there are ROWS rows of n words.
        unsafe { x86::blocks(words.as_ptr(), lines) }
    } else {
        0
    };
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    for (i, line) in lines.iter_mut().enumerate().skip(done) {
        for (r, word) in line.0.iter_mut().enumerate() {
            *word = words[r * n + i];
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    /// Whole blocks of 8 lines; returns how many lines are done.
    ///
    /// # Safety
    /// `words` must point to ROWS times as many words as there are lines.
    #[target_feature(enable = "avx2")]
    pub unsafe fn blocks(words: *const u32, lines: &mut [Line]) -> usize {
        let n = lines.len();
        let (blocks, _) = lines.as_chunks_mut::<8>();
        for (block, lines) in blocks.iter_mut().enumerate() {
            for half in [0, 8] {
                let mut x = [_mm256_setzero_si256(); 8];
                for r in 0..8 {
                    // SAFETY: words block * 8 .. block * 8 + 8 of row half + r.
                    x[r] =
                        unsafe { _mm256_loadu_si256(words.add((half + r) * n + block * 8).cast()) };
                }
                for (line, x) in lines.iter_mut().zip(transpose(x)) {
                    let part: &mut [u32] = &mut line.0[half..half + 8];
                    // SAFETY: the output has 8 words, and no alignment is required.
                    unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), x) };
                }
            }
        }
        blocks.len() * 8
    }

    /// 8 x 8 words.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose(x: [__m256i; 8]) -> [__m256i; 8] {
        let (mut pairs, mut fours) = (x, x);
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
        }
        for i in [0, 4] {
            fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
            fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
            fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
            fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
        }
        let mut out = x;
        for i in 0..4 {
            out[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[i + 4]);
            out[i + 4] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[i + 4]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_lands_in_its_place() {
        for n in [1, 7, 8, 29] {
            let words: Vec<u32> =
                (0..(ROWS * n) as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
            let mut lines = vec![Line([9; ROWS]); n];
            side_by_side(&words, &mut lines);
            for (i, line) in lines.iter().enumerate() {
                for r in 0..ROWS {
                    assert_eq!(line.0[r], words[r * n + i]);
                }
            }
        }
    }
}
