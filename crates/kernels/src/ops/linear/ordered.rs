//! The float product in a fixed order: each output is [`lanes::dot`](crate::ops::lanes::dot) of its
//! row and its token, whatever is computed with it.
#![allow(unsafe_code)]

use crate::Pool;
use crate::dispatch;
use crate::dispatch::{Level, level};
use crate::ops::lanes::{LANES, fold};

/// Rows computed together: enough independent sums to hide the latency of an addition.
const ROWS: usize = 4;
/// Tokens computed together with them where the registers hold all sums (AVX-512 has 32 of 16
/// lanes): every load then serves 4 products.
const TOKENS: usize = 4;

/// [`LANES`] neighbouring columns of several tokens or rows: what a tile reads next lies next.
type Block<const N: usize> = [[f32; LANES]; N];

/// The tokens of a product, the groups of [`TOKENS`] interleaved where that is faster than one by
/// one.
pub(super) struct Tokens<'a> {
    x: &'a [f32],
    k: usize,
    interleaved: Vec<Block<TOKENS>>,
}

impl<'a> Tokens<'a> {
    /// x `[M, K]`.
    pub fn new(pool: &Pool, x: &'a [f32], k: usize) -> Self {
        let groups = if level() == Level::Avx512 { x.len() / (TOKENS * k) } else { 0 };
        let blocks = k.div_ceil(LANES);
        let mut interleaved = vec![[[0.0; LANES]; TOKENS]; groups * blocks];
        pool.chunks_mut(&mut interleaved, blocks, |i, out| {
            interleave(&x[i * TOKENS * k..], k, out)
        });
        Self { x, k, interleaved }
    }
}

/// `N` rows of `k` columns, block by block; a short last block is padded with zeros.
#[inline(always)]
fn interleave<const N: usize>(rows: &[f32], k: usize, out: &mut [Block<N>]) {
    for n in 0..N {
        for (columns, block) in rows[n * k..(n + 1) * k].chunks(LANES).zip(out.iter_mut()) {
            block[n] = [0.0; LANES];
            block[n][..columns.len()].copy_from_slice(columns);
        }
    }
}

dispatch! {
    /// Some columns of the output: `y[token][row]` for the rows `w` `[rows, K]` and all tokens.
    pub(super) fn columns(tokens: &Tokens, w: &[f32], y: &mut [&mut [f32]]) {
        let (k, blocks) = (tokens.k, tokens.k.div_ceil(LANES));
        let grouped = tokens.interleaved.len() / blocks * TOKENS;
        let mut panel = vec![[[0.0; LANES]; ROWS]; blocks];
        // Plain loops: a closure around a product would be compiled for the baseline.
        for (r, w) in w.chunks(ROWS * k).enumerate() {
            let at = r * ROWS;
            let whole = w.len() == ROWS * k;
            if whole && grouped > 0 {
                interleave(w, k, &mut panel);
                for (x, y) in
                    tokens.interleaved.chunks_exact(blocks).zip(y.chunks_exact_mut(TOKENS))
                {
                    let sums = tile(x, &panel);
                    for t in 0..TOKENS {
                        for r in 0..ROWS {
                            y[t][at + r] = fold(sums[t][r]);
                        }
                    }
                }
            }
            let first = if whole { grouped } else { 0 };
            for (x, y) in tokens.x[first * k..].chunks_exact(k).zip(&mut y[first..]) {
                if whole {
                    y[at..at + ROWS].copy_from_slice(&products(
                        x,
                        [&w[..k], &w[k..2 * k], &w[2 * k..3 * k], &w[3 * k..]],
                    ));
                } else {
                    for (j, w) in w.chunks_exact(k).enumerate() {
                        y[at + j] = products(x, [w])[0];
                    }
                }
            }
        }
    }
}

/// One token times `R` rows.
#[inline(always)]
fn products<const R: usize>(x: &[f32], w: [&[f32]; R]) -> [f32; R] {
    let whole = x.len() / LANES * LANES;
    let mut sums = [[0.0f32; LANES]; R];
    for at in (0..whole).step_by(LANES) {
        let x = &x[at..at + LANES];
        for r in 0..R {
            let w = &w[r][at..at + LANES];
            for l in 0..LANES {
                sums[r][l] += x[l] * w[l];
            }
        }
    }
    let mut out = [0.0; R];
    for r in 0..R {
        let mut lanes = sums[r];
        for ((lane, x), w) in lanes.iter_mut().zip(&x[whole..]).zip(&w[r][whole..]) {
            *lane += x * w;
        }
        out[r] = fold(lanes);
    }
    out
}

/// The lanes of [`TOKENS`] tokens times [`ROWS`] rows. In intrinsics, since the compiler does not
/// keep 16 sums in registers by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn tile_avx512(x: &[Block<TOKENS>], w: &[Block<ROWS>]) -> [Block<ROWS>; TOKENS] {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    // SAFETY: a block of LANES values is one register, no alignment asked.
    let load = |lanes: &[f32; LANES]| unsafe { _mm512_loadu_ps(lanes.as_ptr()) };
    let mut sums = [[_mm512_setzero_ps(); ROWS]; TOKENS];
    for (x, w) in x.iter().zip(w) {
        for t in 0..TOKENS {
            for r in 0..ROWS {
                sums[t][r] = _mm512_add_ps(sums[t][r], _mm512_mul_ps(load(&x[t]), load(&w[r])));
            }
        }
    }
    let mut out = [[[0.0; LANES]; ROWS]; TOKENS];
    for t in 0..TOKENS {
        for r in 0..ROWS {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(out[t][r].as_mut_ptr(), sums[t][r]) };
        }
    }
    out
}

/// Only ever called where [`Tokens`] found AVX-512.
#[inline(always)]
fn tile(x: &[Block<TOKENS>], w: &[Block<ROWS>]) -> [Block<ROWS>; TOKENS] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: tokens are interleaved only at that level, which is one the CPU was found to have.
    return unsafe { tile_avx512(x, w) };
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("nothing interleaves {} and {} blocks here", x.len(), w.len())
}
