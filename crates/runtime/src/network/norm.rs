//! Norms with their weights, alone and together with the sum before them.

use super::{PIECE, add, add_rows};
use halfstep_formats::architecture::NormKind;
use halfstep_kernels::Pool;
use halfstep_kernels::ops::layer_norm::affine_layer_norm;
use halfstep_kernels::ops::rms_norm::rms_norm;

/// A norm of pieces of `width` elements.
pub(super) struct NormLayer {
    pub kind: NormKind,
    pub eps: f64,
    pub width: usize,
    /// As it is multiplied, an offset added: `[width]`, or `[heads, width]`.
    pub weight: Vec<f32>,
    /// Of norms of whole rows, `[width]`.
    pub bias: Option<Vec<f32>>,
}

impl NormLayer {
    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(self.weight.as_slice()) + self.bias.as_deref().map_or(0, size_of_val)
    }

    /// y is the norm of x.
    pub fn apply(&self, pool: &Pool, x: &[f32], y: &mut [f32]) {
        let run = self.run();
        let serial = Pool::serial();
        pool.parts(x.chunks(run).zip(y.chunks_mut(run)).collect(), |_, (x, y)| {
            self.compute(&serial, x, y)
        });
    }

    /// x is normalised; `other` is as long as x and overwritten.
    pub fn apply_to(&self, pool: &Pool, x: &mut Vec<f32>, other: &mut Vec<f32>) {
        other.resize(x.len(), 0.0);
        self.apply(pool, x, other);
        std::mem::swap(x, other);
    }

    /// `x += branch`; then y is the norm of x.
    fn add_and_apply(&self, pool: &Pool, x: &mut [f32], branch: &[f32], y: &mut [f32]) {
        let run = self.run();
        let serial = Pool::serial();
        pool.parts(x.chunks_mut(run).zip(y.chunks_mut(run)).collect(), |i, (x, y)| {
            x.iter_mut().zip(&branch[i * run..]).for_each(|(x, b)| *x += b);
            self.compute(&serial, x, y);
        });
    }

    /// Elements of a task: whole weights.
    fn run(&self) -> usize {
        PIECE.div_ceil(self.weight.len()) * self.weight.len()
    }

    fn compute(&self, pool: &Pool, x: &[f32], y: &mut [f32]) {
        match self.kind {
            NormKind::Rms => {
                rms_norm(pool, x, &self.weight, self.eps, y);
                if let Some(bias) = &self.bias {
                    add_rows(pool, y, bias);
                }
            }
            NormKind::Layer => {
                let bias = self.bias.as_deref();
                affine_layer_norm(pool, x, self.width, &self.weight, bias, self.eps, y)
            }
        }
    }
}

/// `x += branch`, if there is one; then y is the norm of x, or x itself without a norm.
pub(super) fn add_and_norm(
    pool: &Pool,
    norm: &Option<NormLayer>,
    x: &mut [f32],
    branch: Option<&[f32]>,
    y: &mut [f32],
) {
    match (norm, branch) {
        (Some(norm), Some(branch)) => norm.add_and_apply(pool, x, branch, y),
        (Some(norm), None) => norm.apply(pool, x, y),
        (None, branch) => {
            if let Some(branch) = branch {
                add(pool, x, branch);
            }
            y.copy_from_slice(x);
        }
    }
}
