//! Causal grouped-query attention of q `[M, H * D]` over k, v `[M, K * D]`, M = batch x tokens.
//! Keeps its row statistics for the backward.

use crate::autograd::ops::{Number, Op};
use crate::autograd::tensor::Tensor;
use crate::{Error, Result};
use halfstep_kernels::ops::attention::{AttentionShape, attention, attention_backward};
use halfstep_kernels::{Pool, uninit_vec};
use std::sync::OnceLock;

pub struct Attention<T> {
    pub pool: Pool,
    pub shape: AttentionShape,
    log_sum_exp: OnceLock<Vec<T>>,
}

impl<T: Number> Attention<T> {
    pub fn new(pool: Pool, shape: AttentionShape) -> Self {
        Self { pool, shape, log_sum_exp: OnceLock::new() }
    }
}

impl<T: Number> Op<T, 3> for Attention<T> {
    const READS_RESULT: bool = true;

    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, [q, k, v]: [&Tensor<T>; 3]) -> Result<Tensor<T>> {
        let rows = self.shape.batch * self.shape.queries * self.shape.heads;
        let (mut y, mut log_sum_exp) = (uninit_vec(q.len()), uninit_vec(rows));
        attention(
            &self.pool,
            self.shape,
            q.values(),
            k.values(),
            v.values(),
            &mut y,
            &mut log_sum_exp,
        );
        let _ = self.log_sum_exp.set(log_sum_exp);
        Tensor::new(y, q.shape())
    }

    fn backward(
        &self,
        [q, k, v]: [&Tensor<T>; 3],
        y: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 3]> {
        let log_sum_exp = self.log_sum_exp.get().ok_or_else(|| Error::Internal {
            reason: "attention: backward before forward".into(),
        })?;
        let (mut dq, mut dk, mut dv) =
            (uninit_vec(q.len()), uninit_vec(k.len()), uninit_vec(v.len()));
        attention_backward(
            &self.pool,
            self.shape,
            q.values(),
            k.values(),
            v.values(),
            y.values(),
            log_sum_exp,
            dy.values(),
            &mut dq,
            &mut dk,
            &mut dv,
        );
        let gradient = |values, of: &Tensor<T>| Tensor::new(values, of.shape()).map(Some);
        Ok([gradient(dq, q)?, gradient(dk, k)?, gradient(dv, v)?])
    }
}
