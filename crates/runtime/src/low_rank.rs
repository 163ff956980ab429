//! Low-rank factors of a weight, ready to be multiplied.

use crate::network::add;
use halfstep_formats::LowRank;
use halfstep_kernels::Pool;
use halfstep_kernels::ops::linear::linear_ordered;

/// A `[r, I]` and B `[O, r]`, widened once.
pub struct Factors {
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Factors {
    /// Takes factors that [`LowRank::check`] accepts.
    pub fn new(factors: &LowRank) -> Self {
        let widen = |factor: &[half::f16]| factor.iter().map(|v| v.to_f32()).collect();
        Self { rank: factors.rank, a: widen(&factors.a), b: widen(&factors.b) }
    }

    /// `y += (x A^T) B^T`: x `[M, I]` as it is before any quantizer, y `[M, O]`. Both products in
    /// an order that does not depend on M.
    pub fn add(&self, pool: &Pool, x: &[f32], y: &mut [f32], m: usize) {
        let (i, o) = (self.a.len() / self.rank, self.b.len() / self.rank);
        let (mut inner, mut product) = (vec![0.0; m * self.rank], vec![0.0; m * o]);
        linear_ordered(pool, x, &self.a, &mut inner, m, self.rank, i);
        linear_ordered(pool, &inner, &self.b, &mut product, m, o, self.rank);
        add(pool, y, &product);
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(self.a.as_slice()) + size_of_val(self.b.as_slice())
    }
}
