//! The float product in a fixed order: each output is [`lanes::dot`](crate::ops::lanes::dot) of its row and its token, whatever is computed beside it.
use crate::dispatch;
use crate::ops::lanes::{LANES, fold};

/// Rows computed together: enough independent sums to hide the latency of an addition, few enough to stay near while all tokens pass.
const ROWS: usize = 4;

dispatch! {
    /// Some columns of the output: `y[token][row]` for the rows `w` `[rows, K]` and all tokens `x` `[M, K]`.
    pub(super) fn columns(x: &[f32], w: &[f32], k: usize, y: &mut [&mut [f32]]) {
        // Plain loops: a closure around a product would be compiled for the baseline.
        for (r, w) in w.chunks(ROWS * k).enumerate() {
            let at = r * ROWS;
            for (x, y) in x.chunks_exact(k).zip(y.iter_mut()) {
                if w.len() == ROWS * k {
                    let values = products(x, [&w[..k], &w[k..2 * k], &w[2 * k..3 * k], &w[3 * k..]]);
                    y[at..at + ROWS].copy_from_slice(&values);
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
