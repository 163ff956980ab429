//! `y = x / sqrt(mean(x^2) + eps) * weight` over pieces of the last dimension as wide as the
//! weight: the whole of it, or every head by itself. The weight's gradient goes into the sink.

use crate::autograd::ops::{Number, Sink, tensor, values, with_values};
use crate::autograd::tape::Reads;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::{Pool, Real, room};
use std::sync::Arc;

#[derive(Clone)]
pub struct RmsNorm<T> {
    pub pool: Pool,
    pub weight: Arc<Vec<T>>,
    pub eps: f64,
    pub sink: Option<Sink<T>>,
}

impl<T> Reads for RmsNorm<T> {
    fn is_cheap(&self) -> bool {
        true
    }
}

impl<T: Number> CustomOp1 for RmsNorm<T> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x: &[T] = values(storage, layout)?;
        let mut y = room(x.len());
        rms_norm(&self.pool, x, &self.weight, self.eps, &mut y);
        Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
    }
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = room(x.elem_count());
        let mut dweight = vec![<T as Real>::ZERO; self.weight.len()];
        with_values(x, |x: &[T]| {
            with_values(dy, |dy: &[T]| {
                rms_norm_backward(&self.pool, x, &self.weight, self.eps, dy, &mut dx, &mut dweight)
            })
        })??;
        if let Some(sink) = &self.sink {
            sink.add_slice(&dweight);
        }
        tensor(dx, x.dims()).map(Some)
    }
}
