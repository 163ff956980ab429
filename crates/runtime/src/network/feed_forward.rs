//! The second half of a layer: one feed-forward for all tokens, or experts.

use super::experts::Experts;
use super::norm::NormLayer;
use crate::matrix::{Projection, apply_all};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::activation::{Activation, gated, plain};

pub(super) enum FeedForward {
    Dense(Dense),
    Experts(Experts),
}

/// `Down (act(Gate x) * Up x)`, or without a gate `Down act(Up x)`.
pub(super) struct Dense {
    pub gate: Option<Projection>,
    pub up: Projection,
    pub down: Projection,
    pub activation: Activation,
    pub intermediate_size: usize,
    /// Of what down reads.
    pub sub_norm: Option<NormLayer>,
}

/// `[M, F]` each.
#[derive(Default)]
pub(super) struct Inner {
    gate: Vec<f32>,
    up: Vec<f32>,
    activated: Vec<f32>,
}

impl FeedForward {
    /// Of rows x `[M, D]`, y as x.
    pub fn apply(&self, pool: &Pool, x: &[f32], rows: usize, inner: &mut Inner, y: &mut [f32]) {
        match self {
            FeedForward::Dense(dense) => dense.apply(pool, x, rows, inner, y),
            FeedForward::Experts(experts) => experts.apply(pool, x, rows, inner, y),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            FeedForward::Dense(dense) => dense.bytes(),
            FeedForward::Experts(experts) => experts.bytes(),
        }
    }
}

impl Dense {
    /// Of rows x `[M, D]`, y as x.
    pub fn apply(&self, pool: &Pool, x: &[f32], rows: usize, inner: &mut Inner, y: &mut [f32]) {
        let Inner { gate, up, activated } = inner;
        up.resize(rows * self.intermediate_size, 0.0);
        activated.resize(up.len(), 0.0);
        if let Some(projection) = &self.gate {
            gate.resize(up.len(), 0.0);
            apply_all(pool, x, rows, [(projection, &mut *gate), (&self.up, &mut *up)]);
            gated(pool, self.activation, gate, up, activated);
        } else {
            self.up.apply(pool, x, up, rows);
            plain(pool, self.activation, up, activated);
        }
        if let Some(norm) = &self.sub_norm {
            norm.apply_to(pool, activated, up);
        }
        self.down.apply(pool, activated, y, rows);
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        let linears = self.gate.iter().chain([&self.up, &self.down]);
        linears.map(Projection::bytes).sum::<usize>()
            + self.sub_norm.as_ref().map_or(0, NormLayer::bytes)
    }
}
