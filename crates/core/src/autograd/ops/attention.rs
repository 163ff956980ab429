//! Causal grouped-query attention of q `[M, H * D]` over k, v `[M, K * D]`, M = batch x tokens.
//! Keeps its row statistics for the backward.

use crate::autograd::ops::{Number, tensor, values, with_values};
use crate::autograd::tape::Reads;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use halfstep_kernels::ops::attention::{AttentionShape, attention, attention_backward};
use halfstep_kernels::{Pool, room};
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

impl<T> Reads for Attention<T> {
    const RESULT: bool = true;
}

impl<T: Number> CustomOp3 for Attention<T> {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v): (&[T], &[T], &[T]) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let (mut y, mut log_sum_exp) =
            (room(q.len()), room(self.shape.batch * self.shape.queries * self.shape.heads));
        attention(&self.pool, self.shape, q, k, v, &mut y, &mut log_sum_exp);
        let _ = self.log_sum_exp.set(log_sum_exp);
        Ok((T::to_cpu_storage_owned(y), l1.shape().clone()))
    }
    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let log_sum_exp = self
            .log_sum_exp
            .get()
            .ok_or_else(|| candle_core::Error::Msg("attention: backward before forward".into()))?;
        let (mut dq, mut dk, mut dv) =
            (room(q.elem_count()), room(k.elem_count()), room(v.elem_count()));
        with_values(q, |q: &[T]| {
            with_values(k, |k: &[T]| {
                with_values(v, |v: &[T]| {
                    with_values(y, |y: &[T]| {
                        with_values(dy, |dy: &[T]| {
                            attention_backward(
                                &self.pool,
                                self.shape,
                                q,
                                k,
                                v,
                                y,
                                log_sum_exp,
                                dy,
                                &mut dq,
                                &mut dk,
                                &mut dv,
                            )
                        })
                    })
                })
            })
        })?????;
        Ok((Some(tensor(dq, q.dims())?), Some(tensor(dk, k.dims())?), Some(tensor(dv, v.dims())?)))
    }
}
