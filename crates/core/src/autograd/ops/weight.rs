//! A matrix as one forward multiplies with it.

use crate::autograd::ops::Number;
use halfstep_formats::{Tensor, TensorData};
use halfstep_kernels::ops::gemm::{Dense, Rows};
use halfstep_kernels::ops::linear::WeightPanels;
use halfstep_kernels::{Pool, uninit_vec};
use std::sync::Arc;

/// A weight `[O, I]`: values, the codes and scales of the packed runtime, or a tensor as its file
/// has it, decoded where it is read.
#[derive(Clone)]
pub enum Weight<T> {
    Values { values: Arc<Vec<T>>, cols: usize },
    Panels(Arc<WeightPanels>),
    Stored(Arc<Tensor>),
}

impl<T: Number> Weight<T> {
    pub fn values(values: Vec<T>, cols: usize) -> Self {
        Self::Values { values: Arc::new(values), cols }
    }

    /// A model's tensor in the smallest of the three forms, whose values are exactly its own.
    pub fn stored(tensor: &Tensor, pool: &Pool) -> Self {
        match &tensor.data {
            TensorData::Packed(packed) if packed.spec.row_table().is_none() => {
                Self::Panels(Arc::new(WeightPanels::new(pool, packed)))
            }
            TensorData::F32(values) => Self::values(T::from_f32s(values.clone()), tensor.cols()),
            _ => Self::Stored(Arc::new(tensor.clone())),
        }
    }

    /// One row as values.
    pub fn row(&self, row: usize) -> Vec<T> {
        let mut out = uninit_vec(self.cols());
        self.read(row, 0, &mut out);
        out
    }
}

impl<T: Number> Rows<T> for Weight<T> {
    fn rows(&self) -> usize {
        match self {
            Weight::Values { values, cols } => values.len() / cols,
            Weight::Panels(panels) => panels.rows(),
            Weight::Stored(tensor) => tensor.rows(),
        }
    }
    fn cols(&self) -> usize {
        match self {
            Weight::Values { cols, .. } => *cols,
            Weight::Panels(panels) => panels.cols(),
            Weight::Stored(tensor) => tensor.cols(),
        }
    }
    fn read(&self, row: usize, first: usize, out: &mut [T]) {
        match self {
            Weight::Values { values, cols } => Dense::new(values, *cols).read(row, first, out),
            Weight::Panels(panels) => panels.read(row, first, out),
            Weight::Stored(tensor) => T::with_f32s(out, |out| tensor.read(row, first, out)),
        }
    }
    fn dense(&self) -> Option<&[T]> {
        match self {
            Weight::Values { values, .. } => Some(values),
            Weight::Panels(_) | Weight::Stored(_) => None,
        }
    }
}
