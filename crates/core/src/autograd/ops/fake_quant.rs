//! Activation and cache quantizers in the forward: the values the integer runtime would use.
//!
//! Dynamic scales follow the data and clip nothing, so their gradient is straight through. A static
//! site has one learned step, with LSQ's gradients (arXiv 1902.08153): dx = dy inside the grid, 0
//! outside; ds (into the sink) = g * sum dy (code - x/s inside, code outside), g = 1/sqrt(features
//! p).

use crate::Result;
use crate::autograd::ops::{Number, Op, Sink};
use crate::autograd::tensor::Tensor;
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::{ActivationSpec, Pool, QuantSpec, uninit_vec};

/// Straight-through fake quantization with scales from the data.
pub struct DynamicQuant {
    pub pool: Pool,
    pub spec: ActivationSpec,
    /// Width of a head, for keys and values; None for the input of a linear.
    pub head_dim: Option<usize>,
}

impl<T: Number> Op<T, 1> for DynamicQuant {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "dynamic_quant"
    }

    /// Not for the cache: its arguments would have to be kept instead.
    fn is_cheap(&self) -> bool {
        self.head_dim.is_none()
    }

    fn forward(&self, [x]: [&Tensor<T>; 1]) -> Result<Tensor<T>> {
        let mut y = uninit_vec(x.len());
        let width = self.head_dim.unwrap_or(x.cols());
        fake_quant(&self.pool, self.spec, x.values(), width, None, &mut y);
        Tensor::new(y, x.shape())
    }

    fn backward(
        &self,
        _: [&Tensor<T>; 1],
        _: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 1]> {
        Ok([Some(dy.clone())])
    }
}

/// One learned step for the whole site.
pub struct StaticQuant<T> {
    pub pool: Pool,
    pub spec: QuantSpec,
    pub step: T,
    pub edge: EdgeRule,
    pub sink: Option<Sink<T>>,
}

impl<T: Number> Op<T, 1> for StaticQuant<T> {
    fn name(&self) -> &'static str {
        "static_quant"
    }

    fn forward(&self, [x]: [&Tensor<T>; 1]) -> Result<Tensor<T>> {
        let mut y = uninit_vec(x.len());
        lsq_forward(
            &self.pool,
            x.values(),
            x.rows(),
            x.cols(),
            &[self.step],
            self.spec,
            &mut y,
            None,
        );
        Tensor::new(y, x.shape())
    }

    fn backward(
        &self,
        [x]: [&Tensor<T>; 1],
        _: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 1]> {
        let (mut dx, mut ds) = (uninit_vec(x.len()), [T::ZERO]);
        lsq_backward(
            &self.pool,
            x.values(),
            x.rows(),
            x.cols(),
            &[self.step],
            self.spec,
            self.edge,
            dy.values(),
            &mut dx,
            &mut ds,
        );
        if let Some(sink) = &self.sink {
            let g = 1.0 / (x.cols() as f64 * f64::from(self.spec.max_code())).sqrt();
            sink.add_slice(&[ds[0] * T::from_f64(g)]);
        }
        Ok([Some(Tensor::new(dx, x.shape())?)])
    }
}
