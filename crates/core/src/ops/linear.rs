//! `y = x Wq^T`, and the same with a residual added: `y = r + x Wq^T`.
//!
//! dL/dx = dL/dy Wq, dL/dWq = dL/dy^T x (into the sink), dL/dr = dL/dy. x `[M, I]`, Wq `[O, I]`, y and r `[M, O]`.

use super::{Number, Sink, matrix, tensor, values, with_values, zeros};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::gemm;
use std::sync::Arc;

/// A linear layer with its weight as the forward uses it (quantized and decoded, `[O, I]`).
#[derive(Clone)]
pub struct Linear<T> {
    pub pool: Pool,
    pub weight: Arc<Vec<T>>,
    pub out: usize,
    pub sink: Option<Sink<T>>,
}

impl<T: Number> Linear<T> {
    fn forward(&self, x: &[T], m: usize, i: usize) -> Vec<T> {
        let mut y = zeros(m * self.out);
        gemm::linear(&self.pool, &gemm::Dense::new(x, i), &gemm::Dense::new(&self.weight, i), &mut y);
        y
    }

    fn backward(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (m, i) = matrix(x.layout());
        let mut dx = zeros(m * i);
        with_values(dy, |dy: &[T]| {
            gemm::linear_backward_input(&self.pool, &gemm::Dense::new(dy, self.out), &gemm::Dense::new(&self.weight, i), &mut dx, false)
        })?;
        if let Some(sink) = &self.sink {
            with_values(x, |x: &[T]| {
                with_values(dy, |dy: &[T]| {
                    sink.add(|dw, accumulate| {
                        gemm::linear_backward_weight(&self.pool, &gemm::Dense::new(dy, self.out), &gemm::Dense::new(x, i), dw, accumulate)
                    });
                })
            })??;
        }
        tensor(dx, &[m, i])
    }
}

impl<T: Number> CustomOp1 for Linear<T> {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (m, i) = matrix(layout);
        let y = self.forward(values(storage, layout)?, m, i);
        Ok((T::to_cpu_storage_owned(y), (m, self.out).into()))
    }
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.backward(x, dy).map(Some)
    }
}

/// `y = r + x Wq^T`.
pub struct ResidualLinear<T>(pub Linear<T>);

impl<T: Number> CustomOp2 for ResidualLinear<T> {
    fn name(&self) -> &'static str {
        "residual_linear"
    }
    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (m, i) = matrix(l1);
        let mut y = self.0.forward(values(s1, l1)?, m, i);
        let residual: &[T] = values(s2, l2)?;
        self.0.pool.chunks_mut(&mut y, 1 << 16, |index, piece| {
            let residual = &residual[index << 16..];
            piece.iter_mut().zip(residual).for_each(|(y, &r)| *y += r);
        });
        Ok((T::to_cpu_storage_owned(y), (m, self.0.out).into()))
    }
    fn bwd(&self, x: &Tensor, _residual: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // dy itself serves as the residual's gradient: the tape has let go of it, so nothing else sees a later sum in place.
        Ok((Some(self.0.backward(x, dy)?), Some(dy.clone())))
    }
}
