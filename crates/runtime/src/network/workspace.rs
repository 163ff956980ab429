//! Rows on their way through the layers.

use super::feed_forward::Inner;
use super::norm::NormLayer;
use super::{PIECE, multiply};
use crate::Cache;
use crate::cache::Decoded;
use halfstep_formats::architecture::Layer;
use halfstep_kernels::Pool;
use std::ops::Range;

/// A sequence whose last `rows` rows pass through the layers; `cache` will hold all of them.
pub(super) struct Run<'a> {
    pub cache: &'a mut Cache,
    pub rows: usize,
}

/// Rows on their way through a layer. Widths of the layer it was fitted to last: D model, Q = H *
/// head width, C = K * head width.
#[derive(Default)]
pub(super) struct Workspace {
    pub rows: usize,
    pub normed: Vec<f32>,   // [M, D]
    pub branch: Vec<f32>,   // [M, D]
    pub spare: Vec<f32>,    // [M, D]
    pub q: Vec<f32>,        // [M, Q]
    pub q_turned: Vec<f32>, // [M, Q]
    pub attended: Vec<f32>, // [M, Q]
    pub k: Vec<f32>,        // [M, C]
    pub k_turned: Vec<f32>, // [M, C]
    pub v: Vec<f32>,        // [M, C]
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
    /// Gives every buffer the width that this layer needs; nothing moves where layers are alike.
    pub fn fit(&mut self, d: usize, layer: &Layer) {
        let (q, c) = layer.attention().map_or((0, 0), |a| (a.query_width(), a.key_width()));
        for (buffer, width) in [
            (&mut self.normed, d),
            (&mut self.branch, d),
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
