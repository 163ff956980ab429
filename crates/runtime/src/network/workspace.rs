//! Rows on their way through the layers.

use super::convolution::Convolved;
use super::delta_rule::DeltaRows;
use super::feed_forward::Inner;
use super::norm::NormLayer;
use super::{PIECE, multiply};
use crate::Cache;
use crate::cache::Decoded;
use halfstep_formats::architecture::Attention;
use halfstep_kernels::Pool;
use std::ops::Range;

/// A sequence whose last `rows` rows pass through the layers; `cache` will hold all of them.
pub(super) struct Run<'a> {
    pub cache: &'a mut Cache,
    pub rows: usize,
}

/// Rows on their way through a layer: D model; of the attention that was computed last, Q = H *
/// head width, C = K * head width.
#[derive(Default)]
pub(super) struct Workspace {
    pub rows: usize,
    pub normed: Vec<f32>,     // [M, D]
    pub branch: Vec<f32>,     // [M, D]
    pub spare: Vec<f32>,      // [M, D]
    pub q_and_gate: Vec<f32>, // [M, H, 2, head width]
    pub gate: Vec<f32>,       // [M, Q]
    pub q: Vec<f32>,          // [M, Q]
    pub q_turned: Vec<f32>,   // [M, Q]
    pub attended: Vec<f32>,   // [M, Q]
    pub k: Vec<f32>,          // [M, C]
    pub k_turned: Vec<f32>,   // [M, C]
    pub v: Vec<f32>,          // [M, C]
    pub delta: DeltaRows,
    pub convolved: Convolved,
    pub inner: Inner,
    /// `[M, 2, turned / 2]` of each of the network's ropes.
    pub turns: Vec<Vec<f32>>,
    /// `[layers, M, width]` of the second embedding, if there is one.
    pub beside: Vec<f32>,
    /// Of each run.
    pub decoded: Vec<Decoded>,
}

impl Run<'_> {
    /// Positions of the rows.
    pub fn positions(&self) -> Range<usize> {
        self.cache.len()..self.cache.len() + self.rows
    }
}

impl Workspace {
    /// Gives the buffers of attention the widths of this one; nothing moves where layers are alike.
    pub fn fit_attention(&mut self, a: &Attention) {
        let (q, c) = (a.query_width(), a.key_width());
        let gate = if a.gate { q } else { 0 };
        for (buffer, width) in [
            (&mut self.q_and_gate, 2 * gate),
            (&mut self.gate, gate),
            (&mut self.q, q),
            (&mut self.q_turned, q),
            (&mut self.attended, q),
            (&mut self.k, c),
            (&mut self.k_turned, c),
            (&mut self.v, c),
        ] {
            buffer.resize(self.rows * width, 0.0);
        }
    }

    /// Makes of what a half of a layer gives what is added.
    pub fn finish(&mut self, pool: &Pool, norm: &Option<NormLayer>, scale: f64) {
        if let Some(norm) = norm {
            norm.apply_to(pool, &mut self.branch, &mut self.spare);
        }
        if scale != 1.0 {
            pool.chunks_mut(&mut self.branch, PIECE, |_, x| multiply(x, scale as f32));
        }
    }
}
