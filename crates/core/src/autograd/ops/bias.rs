//! `y = x + b`, b `[D]` added to every row of x `[M, D]`. dL/dx = dL/dy; dL/db, the sum of dL/dy
//! over the rows, goes into the sink.

use crate::Result;
use crate::autograd::ops::{Number, Op, Sink};
use crate::autograd::tensor::Tensor;
use halfstep_kernels::Pool;
use std::sync::Arc;

pub struct AddBias<T> {
    pub pool: Pool,
    pub bias: Arc<Vec<T>>,
    pub sink: Option<Sink<T>>,
}

/// Columns of one task of the backward; each column is summed from the first row on.
const COLUMNS: usize = 64;
/// Rows of one task of the forward.
const ROWS: usize = 32;

impl<T: Number> AddBias<T> {
    fn sum(&self, x: &[T]) -> Vec<T> {
        let mut y = x.to_vec();
        self.pool.chunks_mut(&mut y, ROWS * self.bias.len(), |_, y| {
            for y in y.chunks_exact_mut(self.bias.len()) {
                y.iter_mut().zip(self.bias.iter()).for_each(|(y, &b)| *y += b);
            }
        });
        y
    }

    fn column_sums(&self, dy: &[T]) -> Vec<T> {
        let width = self.bias.len();
        let mut sums = vec![T::ZERO; width];
        self.pool.chunks_mut(&mut sums, COLUMNS, |task, sums| {
            for row in dy.chunks_exact(width) {
                sums.iter_mut().zip(&row[task * COLUMNS..]).for_each(|(sum, &dy)| *sum += dy);
            }
        });
        sums
    }
}

impl<T: Number> Op<T, 1> for AddBias<T> {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn forward(&self, [x]: [&Tensor<T>; 1]) -> Result<Tensor<T>> {
        Tensor::new(self.sum(x.values()), x.shape())
    }

    fn backward(
        &self,
        _: [&Tensor<T>; 1],
        _: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; 1]> {
        if let Some(sink) = &self.sink {
            sink.add_slice(&self.column_sums(dy.values()));
        }
        Ok([Some(dy.clone())])
    }
}
