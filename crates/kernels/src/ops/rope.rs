//! Rotary position embedding (Su et al., 2021, arXiv 2104.09864): pair i of a head at position p
//! turns by the angle `p * theta^(-2i / D)`: `(a, b) -> (a cos - b sin, b cos + a sin)`.
//!
//! Angles, cos and sin are made in f64 and rounded once, so positions of any length keep their
//! precision.

use crate::math::{exp_f64, ln_f64, sin_cos_f64};
use crate::{Pool, Real, dispatch};
use std::f64::consts::PI;

/// Which two elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// (i, i + D/2): Hugging Face's Llama. What this library computes with.
    Half,
    /// (2i, 2i + 1): a Llama in GGUF.
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
    /// Long waves are slowed by `factor`, short ones kept, those between blended linearly in the
    /// number of turns over the original context.
    fn apply(self, frequency: f64) -> f64 {
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
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// D: elements of a head, an even number.
    pub head_dim: usize,
    /// Inverse frequency of each pair `[D/2]`.
    pub inverse_frequencies: Vec<f64>,
}

impl RopeTable {
    /// Frequencies `theta^(-2i / D)` of the pairs i of heads of `head_dim` elements, changed by
    /// `scaling` if there is one.
    pub fn new(head_dim: usize, theta: f64, scaling: Option<Llama3Scaling>) -> Self {
        let plain = unscaled(head_dim, theta);
        Self {
            head_dim,
            inverse_frequencies: plain.map(|f| scaling.map_or(f, |s| s.apply(f))).collect(),
        }
    }

    /// The factors ggml stores as `rope_freqs.weight` `[D/2]`: unscaled / scaled inverse frequency.
    pub fn factors(&self, theta: f64) -> Vec<f32> {
        unscaled(self.head_dim, theta)
            .zip(&self.inverse_frequencies)
            .map(|(plain, &scaled)| (plain / scaled) as f32)
            .collect()
    }
}

fn unscaled(head_dim: usize, theta: f64) -> impl Iterator<Item = f64> {
    (0..head_dim / 2).map(move |i| exp_f64(-2.0 * i as f64 / head_dim as f64 * ln_f64(theta)))
}

dispatch! {
    /// cos and sin of one position, `[D/2]` each; the sine negated to rotate back.
    fn angles[T: Real](
        frequencies: &[f64],
        position: f64,
        inverse: bool,
        cos: &mut [T],
        sin: &mut [T],
    ) {
        let n = frequencies.len();
        let (cos, sin) = (&mut cos[..n], &mut sin[..n]);
        for i in 0..n {
            let (sine, cosine) = sin_cos_f64(position * frequencies[i]);
            cos[i] = T::from_f64(cosine);
            sin[i] = T::from_f64(if inverse { -sine } else { sine });
        }
    }

    fn rotate_half[T: Real](cos: &[T], sin: &[T], x: &[T], y: &mut [T]) {
        let half = cos.len();
        let sin = &sin[..half];
        for head in 0..y.len() / (2 * half) {
            let (x, y) = (&x[head * 2 * half..][..2 * half], &mut y[head * 2 * half..][..2 * half]);
            let ((a, b), (ya, yb)) = (x.split_at(half), y.split_at_mut(half));
            for i in 0..half {
                ya[i] = a[i] * cos[i] - b[i] * sin[i];
                yb[i] = b[i] * cos[i] + a[i] * sin[i];
            }
        }
    }

    fn rotate_interleaved[T: Real](cos: &[T], sin: &[T], x: &[T], y: &mut [T]) {
        let half = cos.len();
        let sin = &sin[..half];
        for head in 0..y.len() / (2 * half) {
            let (x, y) = (&x[head * 2 * half..][..2 * half], &mut y[head * 2 * half..][..2 * half]);
            for i in 0..half {
                y[2 * i] = x[2 * i] * cos[i] - x[2 * i + 1] * sin[i];
                y[2 * i + 1] = x[2 * i + 1] * cos[i] + x[2 * i] * sin[i];
            }
        }
    }
}

/// cos and sin of some positions, `[M, 2, D/2]`, for [`turn`]: made once for all layers of a
/// forward.
pub fn turns(table: &RopeTable, positions: impl Iterator<Item = usize>) -> Vec<f32> {
    let half = table.head_dim / 2;
    let mut out = vec![];
    for position in positions {
        let at = out.len();
        out.resize(at + 2 * half, 0.0);
        let (cos, sin) = out[at..].split_at_mut(half);
        angles(&table.inverse_frequencies, position as f64, false, cos, sin);
    }
    out
}

/// Rows x `[M, H, D]`, pairs [`RopePairs::Half`], each rotated by its own of the `turns`: the
/// numbers of [`rope`].
pub fn turn(pool: &Pool, turns: &[f32], head_dim: usize, x: &[f32], heads: usize, y: &mut [f32]) {
    let (row, angles) = (heads * head_dim, head_dim / 2 * 2);
    assert_eq!((x.len(), turns.len() * row), (y.len(), x.len() * angles), "turn: shapes");
    const ROWS: usize = 32;
    pool.chunks_mut(y, ROWS * row, |block, y| {
        for (i, y) in y.chunks_exact_mut(row).enumerate() {
            let m = block * ROWS + i;
            let (cos, sin) = turns[m * angles..][..angles].split_at(angles / 2);
            rotate_half(cos, sin, &x[m * row..][..row], y);
        }
    });
}

/// Row m of x `[M, H, D]` is rotated by position `first + m % period`; y may not alias x.
/// `inverse` rotates back, which is also the gradient of the forward rotation.
#[allow(clippy::too_many_arguments)]
pub fn rope<T: Real>(
    pool: &Pool,
    table: &RopeTable,
    pairs: RopePairs,
    x: &[T],
    heads: usize,
    first: usize,
    period: usize,
    inverse: bool,
    y: &mut [T],
) {
    let (row, half) = (heads * table.head_dim, table.head_dim / 2);
    assert_eq!((x.len(), x.len() % row), (y.len(), 0), "rope: shapes");
    let positions = period.min(x.len() / row);
    let mut turns = vec![T::ZERO; positions * 2 * half];
    const ROWS: usize = 32;
    pool.chunks_mut(&mut turns, ROWS * 2 * half, |block, turns| {
        for (i, turn) in turns.chunks_exact_mut(2 * half).enumerate() {
            let (cos, sin) = turn.split_at_mut(half);
            angles(
                &table.inverse_frequencies,
                (first + block * ROWS + i) as f64,
                inverse,
                cos,
                sin,
            );
        }
    });
    pool.chunks_mut(y, ROWS * row, |block, y| {
        for (i, y) in y.chunks_exact_mut(row).enumerate() {
            let m = block * ROWS + i;
            let (cos, sin) = turns[m % period * 2 * half..][..2 * half].split_at(half);
            match pairs {
                RopePairs::Half => rotate_half(cos, sin, &x[m * row..][..row], y),
                RopePairs::Interleaved => rotate_interleaved(cos, sin, &x[m * row..][..row], y),
            }
        }
    });
}
