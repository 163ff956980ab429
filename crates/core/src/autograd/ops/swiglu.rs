//! `y = silu(gate) * up`, elementwise.

use crate::Result;
use crate::autograd::ops::{Number, Op};
use crate::autograd::tensor::Tensor;
use halfstep_kernels::ops::swiglu::{swiglu, swiglu_backward};
use halfstep_kernels::{Pool, uninit_vec};

pub struct SwiGlu {
    pub pool: Pool,
}

impl<T: Number> Op<T, 2> for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn forward(&self, [gate, up]: [&Tensor<T>; 2]) -> Result<Tensor<T>> {
        let mut y = uninit_vec(gate.len());
        swiglu(&self.pool, gate.values(), up.values(), &mut y);
        Tensor::new(y, gate.shape())
    }

    fn backward(
        &self,
        [gate, up]: [&Tensor<T>; 2],
        _: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 2]> {
        let (mut dgate, mut dup) = (uninit_vec(gate.len()), uninit_vec(up.len()));
        let dy = dy.values();
        swiglu_backward(&self.pool, gate.values(), up.values(), dy, &mut dgate, &mut dup);
        Ok([Some(Tensor::new(dgate, gate.shape())?), Some(Tensor::new(dup, up.shape())?)])
    }
}
