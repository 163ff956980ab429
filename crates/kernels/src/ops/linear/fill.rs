//! Packed rows into quads: 16 rows side by side is a transposition of 4-byte words, which the compiler makes of single loads and stores. Eight by
//! eight in AVX2 registers, the step that bounds decoding (one token) takes less than half the time.
#![allow(unsafe_code)]

use super::panel::ROWS;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::{Level, level};

/// Bits of a word of four 4-bit codes, one in the low half of each byte.
const LOW: u32 = 0x0f0f_0f0f;

/// Rows of 8-bit codes (a word is a quad), or of 4-bit codes (a word is two: the low halves of its bytes, then the high ones).
pub(super) fn fill<const NIBBLES: bool>(rows: [&[[u8; 4]]; ROWS], quads: &mut [[u32; ROWS]]) {
    let words = if NIBBLES { quads.len() / 2 } else { quads.len() };
    assert!(rows.iter().all(|row| row.len() >= words), "a row shorter than its panel");
    #[cfg(target_arch = "x86_64")]
    let done = if level() >= Level::Avx2 {
        // SAFETY: the level is one the CPU was found to have; every row holds `words` words.
        unsafe { x86::fill::<NIBBLES>(rows, quads, words) }
    } else {
        0
    };
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    for d in done..words {
        for r in 0..ROWS {
            put::<NIBBLES>(quads, d, r, u32::from_le_bytes(rows[r][d]));
        }
    }
}

#[inline(always)]
fn put<const NIBBLES: bool>(quads: &mut [[u32; ROWS]], d: usize, r: usize, word: u32) {
    if NIBBLES {
        (quads[2 * d][r], quads[2 * d + 1][r]) = (word & LOW, word >> 4 & LOW);
    } else {
        quads[d][r] = word;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    /// Whole blocks of 8 words; returns how many words are done.
    ///
    /// # Safety
    /// Every row must hold `words` words.
    #[target_feature(enable = "avx2")]
    pub unsafe fn fill<const NIBBLES: bool>(rows: [&[[u8; 4]]; ROWS], quads: &mut [[u32; ROWS]], words: usize) -> usize {
        let low = _mm256_set1_epi32(LOW as i32);
        let blocks = words / 8;
        for block in 0..blocks {
            for half in [0, 8] {
                let mut x = [_mm256_setzero_si256(); 8];
                for r in 0..8 {
                    // SAFETY: words block * 8 .. block * 8 + 8 of a row that holds them.
                    x[r] = unsafe { _mm256_loadu_si256(rows[half + r].as_ptr().add(block * 8).cast()) };
                }
                let x = transpose(x);
                for (j, x) in x.into_iter().enumerate() {
                    let d = block * 8 + j;
                    if NIBBLES {
                        store(&mut quads[2 * d], half, _mm256_and_si256(x, low));
                        store(&mut quads[2 * d + 1], half, _mm256_and_si256(_mm256_srli_epi32::<4>(x), low));
                    } else {
                        store(&mut quads[d], half, x);
                    }
                }
            }
        }
        blocks * 8
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(quad: &mut [u32; ROWS], at: usize, x: __m256i) {
        let part: &mut [u32] = &mut quad[at..at + 8];
        // SAFETY: 8 words of room, no alignment asked.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), x) };
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
        let bytes: Vec<[[u8; 4]; 29]> = (0..ROWS).map(|r| std::array::from_fn(|d| [r as u8, d as u8, (r * 7 + d * 3) as u8, 0xa5])).collect();
        let mut rows: [&[[u8; 4]]; ROWS] = [&[]; ROWS];
        rows.iter_mut().zip(&bytes).for_each(|(row, bytes)| *row = bytes);
        let (mut words, mut nibbles) = (vec![[9; ROWS]; 29], vec![[9; ROWS]; 58]);
        fill::<false>(rows, &mut words);
        fill::<true>(rows, &mut nibbles);
        for d in 0..29 {
            for r in 0..ROWS {
                let word = u32::from_le_bytes(rows[r][d]);
                assert_eq!((words[d][r], nibbles[2 * d][r], nibbles[2 * d + 1][r]), (word, word & LOW, word >> 4 & LOW));
            }
        }
    }
}
