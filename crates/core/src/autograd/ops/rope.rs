//! Rotary position embedding of `[M, H * D]`, row m at position m % period. The gradient is the
//! rotation back.

use crate::Result;
use crate::autograd::ops::{Number, Op};
use crate::autograd::tensor::Tensor;
use halfstep_kernels::ops::rope::{RopePairs, RopeTable, rope};
use halfstep_kernels::{Pool, uninit_vec};
use std::sync::Arc;

pub struct Rope {
    pub pool: Pool,
    pub table: Arc<RopeTable>,
    pub heads: usize,
    /// Tokens of a sequence.
    pub period: usize,
}

impl Rope {
    fn rotate<T: Number>(&self, x: &Tensor<T>, inverse: bool) -> Result<Tensor<T>> {
        let mut y = uninit_vec(x.len());
        rope(
            &self.pool,
            &self.table,
            RopePairs::Half,
            x.values(),
            self.heads,
            0,
            self.period,
            inverse,
            &mut y,
        );
        Tensor::new(y, x.shape())
    }
}

impl<T: Number> Op<T, 1> for Rope {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "rope"
    }

    fn forward(&self, [x]: [&Tensor<T>; 1]) -> Result<Tensor<T>> {
        self.rotate(x, false)
    }

    fn backward(
        &self,
        _: [&Tensor<T>; 1],
        _: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 1]> {
        Ok([Some(self.rotate(dy, true)?)])
    }
}
