//! Rotary position embedding (Su et al., 2021, arXiv 2104.09864): pair i of a head at position p
//! turns by the angle `p * theta^(-2i / D)`: `(a, b) -> (a cos - b sin, b cos + a sin)`. Where only
//! the first elements of a head turn, the others pass unchanged; some scalings multiply cos and sin
//! by a factor.
//!
//! Angles, cos and sin are made in f64 and rounded once, so positions of any length keep their
//! precision.

use crate::math::{exp_f64, ln_f64, sin_cos_f64};
use crate::{Pool, Real, dispatch};
use std::f64::consts::PI;

/// Which two of the turned elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// (i, i + D/2): Hugging Face's Llama, and most others.
    Half,
    /// (2i, 2i + 1): Cohere and GLM-4, and a Llama in GGUF.
    Interleaved,
}

/// llama3 frequency scaling (config.json `rope_scaling`, type `llama3`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Number by which frequencies of long waves are divided, at least 1.
    pub factor: f64,
    /// Turns over the original context at and below which a wave is slowed by the whole `factor`.
    pub low_freq_factor: f64,
    /// Turns over the original context at and above which a wave keeps its frequency; more than
    /// `low_freq_factor`.
    pub high_freq_factor: f64,
    /// Context length in tokens that the model was trained with before it was extended.
    pub original_max_position: usize,
}

impl Llama3Scaling {
    /// A frequency after the scaling: long waves are slowed by `factor`, short ones kept, those
    /// between blended linearly in the number of turns over the original context.
    pub fn apply(self, frequency: f64) -> f64 {
        let turns = self.original_max_position as f64 * frequency / (2.0 * PI);
        let keep = ((turns - self.low_freq_factor)
            / (self.high_freq_factor - self.low_freq_factor))
            .clamp(0.0, 1.0);
        // Exact at both ends, as the original's three cases are.
        if keep == 1.0 {
            frequency
        } else {
            (1.0 - keep) * frequency / self.factor + keep * frequency
        }
    }
}

/// Angles per position and pair; cos and sin computed in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// D: elements of a head.
    pub head_dim: usize,
    /// Which of the turned elements are pairs.
    pub pairs: RopePairs,
    /// What cos and sin are multiplied by.
    pub factor: f64,
    /// Inverse frequency of each pair: half as many as elements that turn, which are the first ones
    /// of a head.
    pub inverse_frequencies: Vec<f64>,
}

impl RopeTable {
    /// Frequencies `theta^(-2i / D)` of the pairs i of heads of `head_dim` elements, all of which
    /// turn, changed by `scaling` if there is one.
    pub fn new(head_dim: usize, theta: f64, scaling: Option<Llama3Scaling>) -> Self {
        let plain = frequencies(head_dim, theta);
        Self {
            head_dim,
            pairs: RopePairs::Half,
            factor: 1.0,
            inverse_frequencies: plain.map(|f| scaling.map_or(f, |s| s.apply(f))).collect(),
        }
    }

    /// The same frequencies for other pairs.
    pub fn with_pairs(self, pairs: RopePairs) -> Self {
        Self { pairs, ..self }
    }

    /// Elements of a head that turn.
    pub fn turned(&self) -> usize {
        2 * self.inverse_frequencies.len()
    }

    /// The factors ggml stores as `rope_freqs.weight`, one for each pair: unscaled / scaled inverse
    /// frequency.
    pub fn factors(&self, theta: f64) -> Vec<f32> {
        frequencies(self.turned(), theta)
            .zip(&self.inverse_frequencies)
            .map(|(plain, &scaled)| (plain / scaled) as f32)
            .collect()
    }
}

/// `theta^(-2i / turned)` of the pairs i of so many elements, unscaled.
pub fn frequencies(turned: usize, theta: f64) -> impl Iterator<Item = f64> {
    (0..turned / 2).map(move |i| exp_f64(-2.0 * i as f64 / turned as f64 * ln_f64(theta)))
}

dispatch! {
    /// cos and sin of one position, one for each pair, times `factor`; the sine negated to rotate
    /// back.
    fn angles[T: Real](
        frequencies: &[f64],
        position: f64,
        factor: f64,
        inverse: bool,
        cos: &mut [T],
        sin: &mut [T],
    ) {
        let n = frequencies.len();
        let (cos, sin) = (&mut cos[..n], &mut sin[..n]);
        for i in 0..n {
            let (sine, cosine) = sin_cos_f64(position * frequencies[i]);
            cos[i] = T::from_f64(cosine * factor);
            sin[i] = T::from_f64(if inverse { -sine } else { sine } * factor);
        }
    }

    /// Rotates the pairs of every head of `width` elements; what is beyond them is copied.
    fn rotate_half[T: Real](cos: &[T], sin: &[T], width: usize, x: &[T], y: &mut [T]) {
        let half = cos.len();
        let sin = &sin[..half];
        for head in 0..y.len() / width {
            let (x, y) = (&x[head * width..][..width], &mut y[head * width..][..width]);
            let ((x, rest), (y, same)) = (x.split_at(2 * half), y.split_at_mut(2 * half));
            let ((a, b), (ya, yb)) = (x.split_at(half), y.split_at_mut(half));
            for i in 0..half {
                ya[i] = a[i] * cos[i] - b[i] * sin[i];
                yb[i] = b[i] * cos[i] + a[i] * sin[i];
            }
            same.copy_from_slice(rest);
        }
    }

    fn rotate_interleaved[T: Real](cos: &[T], sin: &[T], width: usize, x: &[T], y: &mut [T]) {
        let half = cos.len();
        let sin = &sin[..half];
        for head in 0..y.len() / width {
            let (x, y) = (&x[head * width..][..width], &mut y[head * width..][..width]);
            for i in 0..half {
                y[2 * i] = x[2 * i] * cos[i] - x[2 * i + 1] * sin[i];
                y[2 * i + 1] = x[2 * i + 1] * cos[i] + x[2 * i] * sin[i];
            }
            y[2 * half..].copy_from_slice(&x[2 * half..]);
        }
    }
}

fn rotate<T: Real>(pairs: RopePairs, angles: [&[T]; 2], width: usize, x: &[T], y: &mut [T]) {
    let [cos, sin] = angles;
    match pairs {
        RopePairs::Half => rotate_half(cos, sin, width, x, y),
        RopePairs::Interleaved => rotate_interleaved(cos, sin, width, x, y),
    }
}

/// cos and sin of some positions, `[M, 2, pairs]`, for [`turn`]: made once for all layers of a
/// forward.
pub fn turns(table: &RopeTable, positions: impl Iterator<Item = usize>) -> Vec<f32> {
    let half = table.inverse_frequencies.len();
    let mut out = vec![];
    for position in positions {
        let at = out.len();
        out.resize(at + 2 * half, 0.0);
        let (cos, sin) = out[at..].split_at_mut(half);
        angles(&table.inverse_frequencies, position as f64, table.factor, false, cos, sin);
    }
    out
}

/// Rows x `[M, H, D]`, each rotated by its own of the `turns` of the table: the numbers of
/// [`rope`].
pub fn turn(pool: &Pool, table: &RopeTable, turns: &[f32], x: &[f32], heads: usize, y: &mut [f32]) {
    let (row, angles) = (heads * table.head_dim, table.turned());
    assert_eq!((x.len(), turns.len() * row), (y.len(), x.len() * angles), "turn: shapes");
    const ROWS: usize = 32;
    pool.chunks_mut(y, ROWS * row, |block, y| {
        for (i, y) in y.chunks_exact_mut(row).enumerate() {
            let m = block * ROWS + i;
            let (cos, sin) = turns[m * angles..][..angles].split_at(angles / 2);
            rotate(table.pairs, [cos, sin], table.head_dim, &x[m * row..][..row], y);
        }
    });
}

/// Row m of x `[M, H, D]` is rotated by position `first + m % period`; y may not alias x.
/// `inverse` is the gradient of the forward rotation, and rotates back where the table's factor is
/// 1.
#[allow(clippy::too_many_arguments)]
pub fn rope<T: Real>(
    pool: &Pool,
    table: &RopeTable,
    x: &[T],
    heads: usize,
    first: usize,
    period: usize,
    inverse: bool,
    y: &mut [T],
) {
    let (row, half) = (heads * table.head_dim, table.inverse_frequencies.len());
    assert_eq!((x.len(), x.len() % row), (y.len(), 0), "rope: shapes");
    let positions = period.min(x.len() / row);
    let mut turns = vec![T::ZERO; positions * 2 * half];
    const ROWS: usize = 32;
    pool.chunks_mut(&mut turns, ROWS * 2 * half, |block, turns| {
        for (i, turn) in turns.chunks_exact_mut(2 * half).enumerate() {
            let position = (first + block * ROWS + i) as f64;
            let (cos, sin) = turn.split_at_mut(half);
            angles(&table.inverse_frequencies, position, table.factor, inverse, cos, sin);
        }
    });
    pool.chunks_mut(y, ROWS * row, |block, y| {
        for (i, y) in y.chunks_exact_mut(row).enumerate() {
            let m = block * ROWS + i;
            let (cos, sin) = turns[m % period * 2 * half..][..2 * half].split_at(half);
            rotate(table.pairs, [cos, sin], table.head_dim, &x[m * row..][..row], y);
        }
    });
}
