//! The kernels' own interface, once: what the benches call.

use halfstep_kernels::ops::{gemm, linear, loss};
use halfstep_kernels::pack::PackedMatrix;
use halfstep_kernels::{ActivationQuantizer, Pool};

/// A quantized weight as the runtime keeps it.
#[derive(Clone)]
pub struct Weight(pub PackedMatrix);

impl Weight {
    /// Codes and scales, as the kernel reads them.
    pub fn bytes(&self) -> usize {
        self.0.codes.len() + self.0.scales.len() * size_of::<f32>()
    }

    /// y `[M, O]` = x `[M, I]` through the integer linear, activation quantization included.
    pub fn apply(&self, pool: &Pool, x: &[f32], activation: ActivationQuantizer, y: &mut [f32], m: usize) {
        linear::linear_packed(pool, x, &self.0, activation, None, y, m);
    }
}

/// The trainer's three products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// y `[M, O]` = x `[M, I]` w^T.
    Forward,
    /// dx `[M, I]` = dy `[M, O]` w.
    Input,
    /// dw `[O, I]` = dy^T x.
    Weight,
}

impl Product {
    pub const ALL: [Self; 3] = [Self::Forward, Self::Input, Self::Weight];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Input => "dX",
            Self::Weight => "dW",
        }
    }

    /// Overwrites `out` with the product of `a` and `b`, which stand in the order of the formula.
    #[allow(clippy::too_many_arguments)]
    pub fn run(self, pool: &Pool, a: &[f32], b: &[f32], out: &mut [f32], m: usize, o: usize, i: usize) {
        match self {
            Self::Forward => gemm::linear(pool, a, b, out, m, o, i),
            Self::Input => gemm::linear_backward_input(pool, a, b, out, m, o, i, false),
            Self::Weight => gemm::linear_backward_weight(pool, a, b, out, m, o, i, false),
        }
    }
}

/// What the head and its KL need.
pub struct KdLoss<'a> {
    /// Hidden states `[M, D]` of both models, and the shared head `[V, D]`.
    pub teacher: &'a [f32],
    pub student: &'a [f32],
    pub head: &'a [f32],
    pub width: usize,
    pub vocabulary: usize,
    /// Of logits, teacher's, student's and gradient's together.
    pub bytes: usize,
}

impl KdLoss<'_> {
    /// Mean KL over the rows; writes dL/dstudent `[M, D]` and dL/dhead `[V, D]`.
    pub fn run(&self, pool: &Pool, dstudent: &mut [f32], dhead: &mut [f32]) -> f64 {
        let (d, v) = (self.width, self.vocabulary);
        let m = self.student.len() / d;
        let rows = (self.bytes / (3 * v * size_of::<f32>())).clamp(1, m);
        let (mut p, mut q, mut dq) = (vec![0.0; rows * v], vec![0.0; rows * v], vec![0.0; rows * v]);
        let mut row_kl = vec![0.0; rows];
        let mut total = 0.0;
        for first in (0..m).step_by(rows) {
            let n = rows.min(m - first);
            let part = first * d..(first + n) * d;
            let (p, q, dq) = (&mut p[..n * v], &mut q[..n * v], &mut dq[..n * v]);
            gemm::linear(pool, &self.teacher[part.clone()], self.head, p, n, v, d);
            gemm::linear(pool, &self.student[part.clone()], self.head, q, n, v, d);
            total += loss::kl_divergence(pool, p, q, v, 1.0, None, m as f64, &mut row_kl[..n], Some(dq));
            gemm::linear_backward_input(pool, dq, self.head, &mut dstudent[part.clone()], n, v, d, false);
            gemm::linear_backward_weight(pool, dq, &self.student[part], dhead, n, v, d, first > 0);
        }
        total
    }
}
