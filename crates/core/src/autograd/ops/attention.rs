//! Causal grouped-query attention of q `[M, H * D]` over k, v `[M, K * D]`, M = batch x tokens.
//! Keeps its row statistics for the backward. The gradient of sinks goes into the sink.

use crate::autograd::ops::{Op, Sink};
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use crate::{Error, Result};
use halfstep_kernels::ops::attention::AttentionShape;
use std::sync::{Arc, OnceLock};

pub(crate) struct Attention<D: Device> {
    shape: AttentionShape,
    /// One score for each head, and where its gradient goes.
    sinks: Option<(Arc<D::Buffer>, Option<Sink<D>>)>,
    log_sum_exp: OnceLock<D::Buffer>,
}

impl<D: Device> Attention<D> {
    pub(crate) fn new(
        shape: AttentionShape,
        sinks: Option<(Arc<D::Buffer>, Option<Sink<D>>)>,
    ) -> Self {
        Self { shape, sinks, log_sum_exp: OnceLock::new() }
    }

    fn sinks(&self) -> Option<&D::Buffer> {
        self.sinks.as_ref().map(|(values, _)| &**values)
    }
}

impl<D: Device> Op<D, 3> for Attention<D> {
    const READS_RESULT: bool = true;

    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, device: &D, [q, k, v]: [&Tensor<D>; 3]) -> Result<Tensor<D>> {
        let (q_values, k, v) = (q.buffer()?, k.buffer()?, v.buffer()?);
        let [y, log_sum_exp] = device.attention(self.shape, q_values, k, v, self.sinks())?;
        let _ = self.log_sum_exp.set(log_sum_exp);
        Tensor::new(y, q.shape())
    }

    fn backward(
        &self,
        device: &D,
        [q, k, v]: [&Tensor<D>; 3],
        y: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 3]> {
        let log_sum_exp = self.log_sum_exp.get().ok_or_else(|| Error::Internal {
            reason: "attention: backward before forward".into(),
        })?;
        let ([dq, dk, dv], dsinks) = device.attention_backward(
            self.shape,
            q.buffer()?,
            k.buffer()?,
            v.buffer()?,
            self.sinks(),
            y.buffer()?,
            log_sum_exp,
            dy.buffer()?,
        )?;
        if let (Some((_, Some(sink))), Some(dsinks)) = (&self.sinks, dsinks) {
            sink.add_buffer(device, dsinks)?;
        }
        let gradient = |values, of: &Tensor<D>| Tensor::new(values, of.shape()).map(Some);
        Ok([gradient(dq, q)?, gradient(dk, k)?, gradient(dv, v)?])
    }
}
