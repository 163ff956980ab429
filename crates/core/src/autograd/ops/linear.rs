//! `y = x Wq^T`, and the same with a residual added: `y = r + x Wq^T`.
//!
//! dL/dx = dL/dy Wq, dL/dWq = dL/dy^T x (into the sink), dL/dr = dL/dy. x `[M, I]`, Wq `[O, I]`, y
//! and r `[M, O]`.

use crate::Result;
use crate::autograd::ops::weight::Weight;
use crate::autograd::ops::{Number, Op, Sink};
use crate::autograd::tensor::Tensor;
use halfstep_kernels::ops::gemm::{self, Dense, Precision, Rows};
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels};
use halfstep_kernels::{ActivationSpec, Pool, uninit_vec};
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
    fn product(&self, x: &Tensor<T>) -> Vec<T> {
        let (o, i) = (self.weight.rows(), self.weight.cols());
        let mut y = uninit_vec(x.len() / i * o);
        gemm::linear(&self.pool, self.precision, &Dense::new(x.values(), i), &self.weight, &mut y);
        y
    }

    /// The gradient of x; that of the weight goes into the sink.
    fn gradient(&self, x: &Tensor<T>, dy: &Tensor<T>) -> Result<Option<Tensor<T>>> {
        let (o, i) = (self.weight.rows(), self.weight.cols());
        let (pool, precision, dy) = (&self.pool, self.precision, Dense::new(dy.values(), o));
        let mut dx = uninit_vec(x.len());
        gemm::linear_backward_input(pool, precision, &dy, &self.weight, &mut dx, false);
        if let Some(sink) = &self.sink {
            let x = Dense::new(x.values(), i);
            sink.add(|dw, accumulate| {
                gemm::linear_backward_weight(pool, precision, &dy, &x, dw, accumulate)
            });
        }
        Tensor::new(dx, x.shape()).map(Some)
    }
}

impl<T: Number> Op<T, 1> for Linear<T> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, [x]: [&Tensor<T>; 1]) -> Result<Tensor<T>> {
        Tensor::new(self.product(x), &[x.rows(), self.weight.rows()])
    }

    fn backward(
        &self,
        [x]: [&Tensor<T>; 1],
        _: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 1]> {
        Ok([self.gradient(x, dy)?])
    }
}

/// `y = Qa(x) Wq^T` as the packed runtime computes it, x `[M, I]` as it is; one `[M, O]` per
/// weight.
pub fn integer_products<T: Number>(
    pool: &Pool,
    x: &[T],
    activation: ActivationSpec,
    step: Option<f32>,
    weights: &[&Arc<WeightPanels>],
) -> Vec<Vec<T>> {
    let m = x.len() / weights.first().map_or(1, |w| w.cols());
    let mut y: Vec<Vec<f32>> = weights.iter().map(|w| uninit_vec(m * w.rows())).collect();
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

impl<T: Number> Op<T, 2> for ResidualLinear<T> {
    const READS_ARGUMENTS: [bool; 2] = [true, false];

    fn name(&self) -> &'static str {
        "residual_linear"
    }

    fn forward(&self, [x, residual]: [&Tensor<T>; 2]) -> Result<Tensor<T>> {
        let mut y = self.0.product(x);
        add(&self.0.pool, &mut y, residual.values());
        Tensor::new(y, &[x.rows(), self.0.weight.rows()])
    }

    fn backward(
        &self,
        [x, _]: [&Tensor<T>; 2],
        _: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 2]> {
        Ok([self.0.gradient(x, dy)?, Some(dy.clone())])
    }
}
