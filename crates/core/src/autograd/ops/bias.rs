//! `y = x + b`, b `[D]` added to every row of x `[M, D]`. dL/dx = dL/dy; dL/db, the sum of dL/dy
//! over the rows, goes into the sink.

use crate::autograd::ops::{Number, Sink, matrix, values, with_values};
use crate::autograd::tape::Reads;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use halfstep_kernels::{Pool, Real};
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
    fn forward(&self, x: &[T]) -> Vec<T> {
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
        let mut sums = vec![<T as Real>::ZERO; width];
        self.pool.chunks_mut(&mut sums, COLUMNS, |task, sums| {
            for row in dy.chunks_exact(width) {
                sums.iter_mut().zip(&row[task * COLUMNS..]).for_each(|(sum, &dy)| *sum += dy);
            }
        });
        sums
    }
}

impl<T> Reads for AddBias<T> {
    const ARGUMENTS: [bool; 3] = [false; 3];
}

impl<T: Number> CustomOp1 for AddBias<T> {
    fn name(&self) -> &'static str {
        "add_bias"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        debug_assert_eq!(matrix(layout).1, self.bias.len());
        let y = self.forward(values(storage, layout)?);
        Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
    }
    fn bwd(&self, _x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if let Some(sink) = &self.sink {
            sink.add_slice(&with_values(dy, |dy: &[T]| self.column_sums(dy))?);
        }
        Ok(Some(dy.clone()))
    }
}
