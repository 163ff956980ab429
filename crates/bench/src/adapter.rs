//! The kernels' own interface, once: what the benches call.

use halfstep_kernels::ops::gemm::{self, Dense, Precision};
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels};
use halfstep_kernels::ops::loss;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, Pool};

/// A quantized weight as the runtime keeps it.
#[derive(Clone)]
pub(crate) struct Weight(WeightPanels);

impl Weight {
    /// `levels`: what the codes index, if they are not integers.
    pub(crate) fn new(pool: &Pool, packed: &QuantTensor, levels: Option<&[i8; 16]>) -> Self {
        Self(match levels {
            Some(levels) => WeightPanels::with_table(pool, packed, levels),
            None => WeightPanels::new(pool, packed),
        })
    }

    /// Codes and scales, as the kernel reads them.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// y `[M, O]` = x `[M, I]` through the integer linear, activation quantization included.
    pub(crate) fn apply(
        &self,
        pool: &Pool,
        x: &[f32],
        activation: ActivationSpec,
        y: &mut [f32],
        m: usize,
    ) {
        linear_panels(pool, x, m, activation, None, &mut [(&self.0, y)]);
    }

    /// Quantizes other weights of the same shape into this one's memory, with one scale per group
    /// as given.
    pub(crate) fn requantize(&mut self, pool: &Pool, w: &[f32], scales: &[f32]) {
        self.0.requantize(pool, w, scales, &[]);
    }

    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        self.0.decode_row(row, out);
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
    /// Every product, in the order of a training step.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Input, Self::Weight];

    /// Name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Input => "dX",
            Self::Weight => "dW",
        }
    }

    /// Overwrites `out` with the product of `a` and `b`, in the order of the formula.
    pub fn run(
        self,
        pool: &Pool,
        precision: Precision,
        a: &[f32],
        b: &[f32],
        out: &mut [f32],
        [o, i]: [usize; 2],
    ) {
        match self {
            Self::Forward => {
                gemm::linear(pool, precision, &Dense::new(a, i), &Dense::new(b, i), out)
            }
            Self::Input => gemm::linear_backward_input(
                pool,
                precision,
                &Dense::new(a, o),
                &Dense::new(b, i),
                out,
                false,
            ),
            Self::Weight => gemm::linear_backward_weight(
                pool,
                precision,
                &Dense::new(a, o),
                &Dense::new(b, i),
                out,
                false,
            ),
        }
    }
}

/// What the head and its KL need.
pub(crate) struct KdLoss<'a> {
    /// Hidden states `[M, D]` of both models, and the shared head `[V, D]`.
    pub teacher: &'a [f32],
    pub student: &'a [f32],
    pub head: &'a [f32],
    pub width: usize,
    pub vocabulary: usize,
    /// Of logits: the teacher's, and the student's, which become their gradient.
    pub bytes: usize,
}

impl KdLoss<'_> {
    /// Mean KL over the rows; writes dL/dstudent `[M, D]` and dL/dhead `[V, D]`.
    pub(crate) fn run(&self, pool: &Pool, dstudent: &mut [f32], dhead: &mut [f32]) -> f64 {
        let (d, v) = (self.width, self.vocabulary);
        let m = self.student.len() / d;
        let rows = (self.bytes / (2 * v * size_of::<f32>())).clamp(1, m);
        let (mut p, mut q) = (vec![0.0; rows * v], vec![0.0; rows * v]);
        let mut row_kl = vec![0.0; rows];
        let mut total = 0.0;
        for first in (0..m).step_by(rows) {
            let n = rows.min(m - first);
            let part = first * d..(first + n) * d;
            let (p, q) = (&mut p[..n * v], &mut q[..n * v]);
            let (teacher, student, head) = (
                Dense::new(&self.teacher[part.clone()], d),
                Dense::new(&self.student[part.clone()], d),
                Dense::new(self.head, d),
            );
            gemm::linear(pool, Precision::F32, &teacher, &head, p);
            gemm::linear(pool, Precision::F32, &student, &head, q);
            total += loss::kl_divergence_in_place(pool, p, q, v, 1.0, m as f64, &mut row_kl[..n]);
            let dq = Dense::new(q, v);
            gemm::linear_backward_input(
                pool,
                Precision::F32,
                &dq,
                &head,
                &mut dstudent[part],
                false,
            );
            gemm::linear_backward_weight(pool, Precision::F32, &dq, &student, dhead, first > 0);
        }
        total
    }
}
