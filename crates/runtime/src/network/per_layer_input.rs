//! The second embedding, whose rows join the output of every layer (Gemma 4).

use super::multiply;
use super::norm::NormLayer;
use crate::matrix::{Matrix, Projection};

use halfstep_kernels::ops::activation::{Activation, gated};
use halfstep_kernels::{ActivationSpec, Pool};
use std::f64::consts::FRAC_1_SQRT_2;

/// What all layers share.
pub(super) struct PerLayerInput {
    /// `[V, layers * width]`.
    pub embedding: Matrix,
    /// `[layers * width, D]`.
    pub projection: Matrix,
    pub norm: NormLayer,
    pub width: usize,
    pub layers: usize,
}

/// What a layer has of its own.
pub(super) struct PerLayerGate {
    pub gate: Projection,
    pub projection: Projection,
    pub norm: NormLayer,
    pub activation: Activation,
}

impl PerLayerInput {
    /// `[layers, M, width]`: `(norm(P x / sqrt(D)) + sqrt(width) e) / sqrt(2)`, x being the scaled
    /// rows of the first embedding.
    pub fn rows(&self, pool: &Pool, tokens: &[u32], x: &[f32]) -> Vec<f32> {
        let (p, all, m) = (self.width, self.layers * self.width, tokens.len());
        let mut context = vec![0.0; m * all];
        self.projection.product(pool, (ActivationSpec::F32, None), x, &mut context, m);
        multiply(&mut context, 1.0 / (x.len() as f32 / m as f32).sqrt());
        let mut normed = vec![0.0; context.len()];
        self.norm.apply(pool, &context, &mut normed);
        let (mut out, mut row) = (context, vec![0.0; all]);
        let (scale, half) = ((p as f32).sqrt(), FRAC_1_SQRT_2 as f32);
        for (i, (&id, normed)) in tokens.iter().zip(normed.chunks_exact(all)).enumerate() {
            self.embedding.row(id as usize, &mut row);
            for (layer, (row, normed)) in row.chunks(p).zip(normed.chunks(p)).enumerate() {
                let out = &mut out[(layer * m + i) * p..][..p];
                for (out, (e, n)) in out.iter_mut().zip(row.iter().zip(normed)) {
                    *out = (n + e * scale) * half;
                }
            }
        }
        out
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.embedding.bytes() + self.projection.bytes() + self.norm.bytes()
    }
}

impl PerLayerGate {
    /// `x += norm(Projection (act(Gate x) * beside))`: x `[M, D]`, beside `[M, width]`.
    pub fn add(&self, pool: &Pool, x: &mut [f32], beside: &[f32], rows: usize) {
        let (mut gate, mut mixed) = (vec![0.0; beside.len()], vec![0.0; beside.len()]);
        self.gate.apply(pool, x, &mut gate, rows);
        gated(pool, self.activation, &gate, beside, &mut mixed);
        let (mut branch, mut normed) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        self.projection.apply(pool, &mixed, &mut branch, rows);
        self.norm.apply(pool, &branch, &mut normed);
        super::add(pool, x, &normed);
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.gate.bytes() + self.projection.bytes() + self.norm.bytes()
    }
}
