//! A convolution over the last few positions, gated before and after (LFM2).

use super::{PIECE, Run, Workspace};
use crate::cache::State;
use crate::matrix::Projection;
use halfstep_kernels::Pool;
use halfstep_kernels::ops::convolution::{convolution, move_tail};

/// `Out (c * conv(b * z))` with `[b, c, z] = In x`.
pub(super) struct Convolution {
    pub input: Projection,
    /// `[kernel, D]`.
    pub taps: Vec<f32>,
    pub output: Projection,
    /// D.
    pub channels: usize,
}

/// Rows inside it.
#[derive(Default)]
pub(super) struct Convolved {
    read: Vec<f32>,    // [M, 3, D]
    product: Vec<f32>, // [M, D]
    given: Vec<f32>,   // [M, D]
}

impl Convolution {
    pub fn empty_state(&self) -> State {
        State::new(self.taps.len() - self.channels, 0)
    }

    /// Of the normalised rows, each sequence going on from its state in this layer.
    pub fn apply(&self, pool: &Pool, layer: usize, runs: &mut [Run], w: &mut Workspace) {
        let d = self.channels;
        let Convolved { read, product, given } = &mut w.convolved;
        read.resize(3 * w.rows * d, 0.0);
        product.resize(w.rows * d, 0.0);
        given.resize(w.rows * d, 0.0);
        self.input.apply(pool, &w.normed, read, w.rows);
        let rows = PIECE.div_ceil(d);
        pool.chunks_mut(product, rows * d, |i, product| {
            let read = read[3 * i * rows * d..].chunks_exact(3 * d);
            for (product, read) in product.chunks_exact_mut(d).zip(read) {
                let (b, z) = (&read[..d], &read[2 * d..]);
                product.iter_mut().zip(b.iter().zip(z)).for_each(|(p, (b, z))| *p = b * z);
            }
        });
        convolve(pool, layer, runs, [product, &self.taps], d, given);
        pool.chunks_mut(given, rows * d, |i, given| {
            let read = read[3 * i * rows * d..].chunks_exact(3 * d);
            for (given, read) in given.chunks_exact_mut(d).zip(read) {
                given.iter_mut().zip(&read[d..2 * d]).for_each(|(y, c)| *y *= c);
            }
        });
        self.output.apply(pool, given, &mut w.branch, w.rows);
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.input.bytes() + self.output.bytes() + size_of_val(self.taps.as_slice())
    }
}

/// Rows x `[M, C]` of all sequences convolved, y as x: each after the tail that its state in this
/// layer holds, which goes on.
pub(super) fn convolve(
    pool: &Pool,
    layer: usize,
    runs: &mut [Run],
    [x, taps]: [&[f32]; 2],
    channels: usize,
    y: &mut [f32],
) {
    let mut parts = Vec::with_capacity(runs.len());
    let (mut x, mut y) = (x, y);
    for run in runs {
        let tail = &mut run.cache.layers[layer].state_mut().tail;
        let (new, later) = x.split_at(run.rows * channels);
        let (given, rest) = y.split_at_mut(new.len());
        parts.push((run.rows, tail, new, given));
        (x, y) = (later, rest);
    }
    // The rows of a sequence alone are divided among the threads, else the sequences are.
    pool.parts(parts, |_, (rows, tail, x, y)| {
        convolution(pool, rows, x, Some(tail), taps, channels, y);
        move_tail(tail, x);
    });
}
