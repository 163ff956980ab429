//! The float product in a fixed order: each output is [`lanes::dot`] of its row and its token, whatever is computed beside it.
use crate::dispatch;
use crate::ops::lanes::{LANES, fold};

/// Tokens and rows computed together: their running sums fill half the registers of AVX-512.
const TOKENS: usize = 2;
const ROWS: usize = 4;

dispatch! {
    /// Some columns of the output: `y[token][row]` for the rows `w` `[rows, K]` and all tokens `x` `[M, K]`.
    pub(super) fn columns(x: &[f32], w: &[f32], k: usize, y: &mut [&mut [f32]]) {
        // Few rows stay near while all tokens pass.
        for (r, w) in w.chunks(ROWS * k).enumerate() {
            let at = r * ROWS;
            if w.len() < ROWS * k {
                for (j, w) in w.chunks_exact(k).enumerate() {
                    x.chunks_exact(k).zip(y.iter_mut()).for_each(|(x, y)| y[at + j] = tile([x], [w])[0][0]);
                }
                continue;
            }
            let w: [&[f32]; ROWS] = std::array::from_fn(|j| &w[j * k..][..k]);
            let pairs = x.chunks_exact(TOKENS * k);
            let single = pairs.remainder();
            for (x, y) in pairs.zip(y.chunks_exact_mut(TOKENS)) {
                let values = tile([&x[..k], &x[k..]], w);
                for (y, values) in y.iter_mut().zip(values) {
                    y[at..at + ROWS].copy_from_slice(&values);
                }
            }
            if !single.is_empty() {
                let last = y.len() - 1;
                y[last][at..at + ROWS].copy_from_slice(&tile([single], w)[0]);
            }
        }
    }
}

/// `T` tokens times `R` rows.
#[inline(always)]
fn tile<const T: usize, const R: usize>(x: [&[f32]; T], w: [&[f32]; R]) -> [[f32; R]; T] {
    let (x, x_rest) = (x.map(|x| x.as_chunks::<LANES>().0), x.map(|x| x.as_chunks::<LANES>().1));
    let (w, w_rest) = (w.map(|w| w.as_chunks::<LANES>().0), w.map(|w| w.as_chunks::<LANES>().1));
    let chunks = x[0].len();
    let (x, w) = (x.map(|x| &x[..chunks]), w.map(|w| &w[..chunks]));
    let mut sums = [[[0.0f32; LANES]; R]; T];
    for c in 0..chunks {
        for t in 0..T {
            for r in 0..R {
                for l in 0..LANES {
                    sums[t][r][l] += x[t][c][l] * w[r][c][l];
                }
            }
        }
    }
    std::array::from_fn(|t| {
        std::array::from_fn(|r| {
            let mut lanes = sums[t][r];
            for ((lane, x), w) in lanes.iter_mut().zip(x_rest[t]).zip(w_rest[r]) {
                *lane += x * w;
            }
            fold(lanes)
        })
    })
}
