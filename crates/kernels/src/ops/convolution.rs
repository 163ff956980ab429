//! Causal depthwise convolution: `y[t, c] = sum_k kernel[c, k] x[t - K + 1 + k, c]`, each channel
//! by itself, over rows that follow K - 1 earlier ones.
//!
//! Backward within a sequence: `dx[t, c] = sum_k kernel[c, k] dy[t + K - 1 - k, c]` and `dkernel[c,
//! k] = sum_t dy[t, c] x[t - K + 1 + k, c]`, rows that are not there being 0.
//!
//! A sum runs over k upwards whatever rows it is computed with, so a sequence that is cut into
//! pieces gives the bytes of the whole.

use crate::{Pool, Real, dispatch};

/// Elements of a task, about.
const PIECE: usize = 1 << 13;
/// Rows of one task of the kernel's gradient. It is summed within these blocks and then over them,
/// so this number decides its float order.
const ROWS: usize = 64;

dispatch! {
    /// `y += taps x`, elementwise.
    fn add_product[T: Real](taps: &[T], x: &[T], y: &mut [T]) {
        let n = y.len();
        let (taps, x) = (&taps[..n], &x[..n]);
        for i in 0..n {
            y[i] += taps[i] * x[i];
        }
    }
}

/// A kernel `[C, K]` as `[K, C]`: what the functions here read, row by row.
pub fn taps<T: Real>(kernel: &[T], channels: usize) -> Vec<T> {
    transposed(kernel, kernel.len() / channels)
}

/// `[R, width]` as `[width, R]`.
fn transposed<T: Real>(x: &[T], width: usize) -> Vec<T> {
    let rows = x.len() / width;
    (0..x.len()).map(|i| x[i % rows * width + i / rows]).collect()
}

/// The convolution of sequences of `tokens` rows: x, y `[B, T, C]`, taps `[K, C]` of [`taps`];
/// `tails` `[B, K - 1, C]` are the rows before, None where a sequence begins.
pub fn convolution<T: Real>(
    pool: &Pool,
    tokens: usize,
    x: &[T],
    tails: Option<&[T]>,
    taps: &[T],
    channels: usize,
    y: &mut [T],
) {
    let (c, kernel) = (channels, taps.len() / channels);
    let sequences = x.len() / (tokens * c);
    assert_eq!(
        [x.len(), taps.len(), tails.map_or(0, <[T]>::len)],
        [y.len(), kernel * c, tails.map_or(0, |_| sequences * (kernel - 1) * c)],
        "convolution: shapes"
    );
    let rows = PIECE.div_ceil(c);
    pool.chunks_mut(y, rows * c, |block, y| {
        for (i, y) in y.chunks_exact_mut(c).enumerate() {
            let row = block * rows + i;
            let (sequence, t) = (row / tokens, row % tokens);
            y.fill(T::ZERO);
            for (k, taps) in taps.chunks_exact(c).enumerate() {
                // The row that is read stands `back` rows before this one.
                let back = kernel - 1 - k;
                let read = match (tails, back <= t) {
                    (_, true) => &x[(row - back) * c..][..c],
                    (Some(tails), _) => &tails[(sequence * (kernel - 1) + t + k) * c..][..c],
                    (None, _) => continue,
                };
                add_product(taps, read, y);
            }
        }
    });
}

/// What a tail `[K - 1, C]` becomes when a sequence goes on by rows x `[T, C]`: the last K - 1 rows
/// of both.
pub fn move_tail<T: Real>(tail: &mut [T], x: &[T]) {
    let kept = tail.len().saturating_sub(x.len());
    tail.copy_within(tail.len() - kept.., 0);
    let new = tail.len() - kept;
    tail[kept..].copy_from_slice(&x[x.len() - new..]);
}

/// Gradients of [`convolution`] without tails by x and by the kernel `[C, K]`, which are
/// overwritten.
#[allow(clippy::too_many_arguments)]
pub fn convolution_backward<T: Real>(
    pool: &Pool,
    tokens: usize,
    x: &[T],
    taps: &[T],
    channels: usize,
    dy: &[T],
    dx: &mut [T],
    dkernel: &mut [T],
) {
    let (c, kernel) = (channels, taps.len() / channels);
    assert_eq!(
        [x.len(), dy.len(), x.len() % (tokens * c), dkernel.len()],
        [dx.len(), dx.len(), 0, taps.len()],
        "convolution_backward: shapes"
    );
    let rows = PIECE.div_ceil(c);
    pool.chunks_mut(dx, rows * c, |block, dx| {
        for (i, dx) in dx.chunks_exact_mut(c).enumerate() {
            let row = block * rows + i;
            dx.fill(T::ZERO);
            for (k, taps) in taps.chunks_exact(c).enumerate() {
                let ahead = kernel - 1 - k;
                if row % tokens + ahead < tokens {
                    add_product(taps, &dy[(row + ahead) * c..][..c], dx);
                }
            }
        }
    });
    let all = x.len() / c;
    let mut partial = vec![T::ZERO; all.div_ceil(ROWS) * taps.len()];
    pool.chunks_mut(&mut partial, taps.len(), |block, dtaps| {
        for row in block * ROWS..((block + 1) * ROWS).min(all) {
            for (k, dtaps) in dtaps.chunks_exact_mut(c).enumerate() {
                let back = kernel - 1 - k;
                if back <= row % tokens {
                    add_product(&dy[row * c..][..c], &x[(row - back) * c..][..c], dtaps);
                }
            }
        }
    });
    let mut dtaps = vec![T::ZERO; taps.len()];
    for part in partial.chunks_exact(taps.len()) {
        dtaps.iter_mut().zip(part).for_each(|(sum, part)| *sum += *part);
    }
    dkernel.copy_from_slice(&transposed(&dtaps, c));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn numbers(stream: u64, n: usize) -> Vec<f32> {
        let mut rng = Rng::new(5, stream);
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    #[test]
    fn every_row_is_the_sum_of_its_definition() {
        let (sequences, tokens, c, kernel) = (2, 6, 5, 4);
        let (x, w) = (numbers(1, sequences * tokens * c), numbers(2, c * kernel));
        let mut y = vec![f32::NAN; x.len()];
        convolution(&Pool::new(2), tokens, &x, None, &taps(&w, c), c, &mut y);
        for (row, y) in y.chunks(c).enumerate() {
            for (channel, &y) in y.iter().enumerate() {
                let mut want = 0.0;
                for k in (0..kernel).filter(|k| row % tokens + k >= kernel - 1) {
                    want += w[channel * kernel + k] * x[(row + k + 1 - kernel) * c + channel];
                }
                assert_eq!(y.to_bits(), want.to_bits(), "{row} {channel}");
            }
        }
    }

    #[test]
    fn pieces_of_a_sequence_give_the_bytes_of_the_whole() {
        let (tokens, c) = (23, 700);
        for kernel in [1, 2, 4] {
            let (x, w) = (numbers(1, tokens * c), taps(&numbers(2, c * kernel), c));
            let mut whole = vec![0.0; x.len()];
            convolution(&Pool::new(2), tokens, &x, None, &w, c, &mut whole);
            for piece in [1, 2, 3, 5, 22] {
                let (mut tail, mut y) = (vec![0.0; (kernel - 1) * c], vec![0.0; x.len()]);
                for (x, y) in x.chunks(piece * c).zip(y.chunks_mut(piece * c)) {
                    convolution(&Pool::serial(), x.len() / c, x, Some(&tail), &w, c, y);
                    move_tail(&mut tail, x);
                }
                assert!(y == whole, "{kernel} {piece}");
            }
        }
    }
}
