//! `y = x / sqrt(mean(x^2) + eps) * weight` over pieces of the last dimension as wide as the
//! weight: the whole of it, or every head by itself. The weight's gradient goes into the sink.

use crate::Result;
use crate::autograd::ops::{Number, Op, Sink};
use crate::autograd::tensor::Tensor;
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::{Pool, uninit_vec};
use std::sync::Arc;

#[derive(Clone)]
pub struct RmsNorm<T> {
    pub pool: Pool,
    pub weight: Arc<Vec<T>>,
    pub eps: f64,
    pub sink: Option<Sink<T>>,
}

impl<T: Number> Op<T, 1> for RmsNorm<T> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn is_cheap(&self) -> bool {
        true
    }
    fn forward(&self, [x]: [&Tensor<T>; 1]) -> Result<Tensor<T>> {
        let mut y = uninit_vec(x.len());
        rms_norm(&self.pool, x.values(), &self.weight, self.eps, &mut y);
        Tensor::new(y, x.shape())
    }

    fn backward(
        &self,
        [x]: [&Tensor<T>; 1],
        _: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 1]> {
        let (mut dx, mut dweight) = (uninit_vec(x.len()), vec![T::ZERO; self.weight.len()]);
        rms_norm_backward(
            &self.pool,
            x.values(),
            &self.weight,
            self.eps,
            dy.values(),
            &mut dx,
            &mut dweight,
        );
        if let Some(sink) = &self.sink {
            sink.add_slice(&dweight);
        }
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}
