//! `y = x Wq^T`, and the same with a residual added: `y = r + x Wq^T`.
//!
//! dL/dx = dL/dy Wq, dL/dWq = dL/dy^T x (into the sink), dL/dr = dL/dy. x `[M, I]`, Wq `[O, I]`, y
//! and r `[M, O]`.

use crate::autograd::ops::weight::Weight;
use crate::autograd::ops::{Number, Sink, matrix, tensor, values, with_values};
use crate::autograd::tape::Reads;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use halfstep_kernels::ops::gemm::{self, Dense, Precision, Rows};
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels};
use halfstep_kernels::{ActivationQuantizer, Pool, room};
use std::sync::Arc;

/// A linear layer with its weight as the forward uses it. Its input is what the weight was
/// multiplied with: quantized and decoded.
#[derive(Clone)]
pub struct Linear<T> {
    pub pool: Pool,
    pub precision: Precision,
    pub weight: Weight<T>,
    pub sink: Option<Sink<T>>,
}

impl<T: Number> Linear<T> {
    fn forward(&self, x: &[T]) -> Vec<T> {
        let (o, i) = (self.weight.rows(), self.weight.cols());
        let mut y = room(x.len() / i * o);
        gemm::linear(&self.pool, self.precision, &Dense::new(x, i), &self.weight, &mut y);
        y
    }

    fn backward(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (o, i) = (self.weight.rows(), self.weight.cols());
        let m = dy.elem_count() / o;
        let mut dx = room(m * i);
        with_values(dy, |dy: &[T]| {
            gemm::linear_backward_input(
                &self.pool,
                self.precision,
                &Dense::new(dy, o),
                &self.weight,
                &mut dx,
                false,
            )
        })?;
        if let Some(sink) = &self.sink {
            with_values(x, |x: &[T]| {
                with_values(dy, |dy: &[T]| {
                    sink.add(|dw, accumulate| {
                        gemm::linear_backward_weight(
                            &self.pool,
                            self.precision,
                            &Dense::new(dy, o),
                            &Dense::new(x, i),
                            dw,
                            accumulate,
                        )
                    });
                })
            })??;
        }
        tensor(dx, &[m, i])
    }
}

impl<T> Reads for Linear<T> {}

impl<T: Number> CustomOp1 for Linear<T> {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(values(storage, layout)?);
        Ok((T::to_cpu_storage_owned(y), (matrix(layout).0, self.weight.rows()).into()))
    }
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.backward(x, dy).map(Some)
    }
}

/// `y = Qa(x) Wq^T` as the packed runtime computes it, x `[M, I]` as it is; one `[M, O]` per
/// weight.
pub fn integer_products<T: Number>(
    pool: &Pool,
    x: &[T],
    activation: ActivationQuantizer,
    step: Option<f32>,
    weights: &[&Arc<WeightPanels>],
) -> Vec<Vec<T>> {
    let m = x.len() / weights.first().map_or(1, |w| w.cols());
    let mut y: Vec<Vec<f32>> = weights.iter().map(|w| room(m * w.rows())).collect();
    let mut outputs: Vec<_> =
        weights.iter().zip(&mut y).map(|(w, y)| (&***w, &mut y[..])).collect();
    linear_panels(pool, &T::to_f32s(x), m, activation, step, &mut outputs);
    y.into_iter().map(T::from_f32s).collect()
}

/// `y += r`.
pub fn add<T: Number>(pool: &Pool, y: &mut [T], r: &[T]) {
    pool.chunks_mut(y, 1 << 16, |index, piece| {
        piece.iter_mut().zip(&r[index << 16..]).for_each(|(y, &r)| *y += r);
    });
}

/// `y = r + x Wq^T`.
pub struct ResidualLinear<T>(pub Linear<T>);

impl<T> Reads for ResidualLinear<T> {
    const ARGUMENTS: [bool; 3] = [true, false, false];
}

impl<T: Number> CustomOp2 for ResidualLinear<T> {
    fn name(&self) -> &'static str {
        "residual_linear"
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut y = self.0.forward(values(s1, l1)?);
        add(&self.0.pool, &mut y, values(s2, l2)?);
        Ok((T::to_cpu_storage_owned(y), (matrix(l1).0, self.0.weight.rows()).into()))
    }
    fn bwd(
        &self,
        x: &Tensor,
        _residual: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // dy itself serves as the residual's gradient: the tape has let go of it, so nothing else
        // sees a later sum in place.
        Ok((Some(self.0.backward(x, dy)?), Some(dy.clone())))
    }
}
