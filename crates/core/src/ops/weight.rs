//! A matrix as one forward multiplies with it.

use super::Number;
use halfstep_kernels::ops::gemm::{Dense, Rows};
use halfstep_kernels::ops::linear::WeightPanels;
use halfstep_kernels::room;
use std::sync::Arc;

/// A weight `[O, I]`: values, or the codes and scales of the packed runtime.
#[derive(Clone)]
pub enum Weight<T> {
    Values { values: Arc<Vec<T>>, cols: usize },
    Panels(Arc<WeightPanels>),
}

impl<T: Number> Weight<T> {
    pub fn values(values: Vec<T>, cols: usize) -> Self {
        Self::Values { values: Arc::new(values), cols }
    }

    /// One row as values.
    pub fn row(&self, row: usize) -> Vec<T> {
        let mut out = room(self.cols());
        self.read(row, 0, &mut out);
        out
    }
}

impl<T: Number> Rows<T> for Weight<T> {
    fn rows(&self) -> usize {
        match self {
            Weight::Values { values, cols } => values.len() / cols,
            Weight::Panels(panels) => panels.rows(),
        }
    }
    fn cols(&self) -> usize {
        match self {
            Weight::Values { cols, .. } => *cols,
            Weight::Panels(panels) => panels.cols(),
        }
    }
    fn read(&self, row: usize, first: usize, out: &mut [T]) {
        match self {
            Weight::Values { values, cols } => Dense::new(values, *cols).read(row, first, out),
            Weight::Panels(panels) => panels.read(row, first, out),
        }
    }
    fn dense(&self) -> Option<&[T]> {
        match self {
            Weight::Values { values, .. } => Some(values),
            Weight::Panels(_) => None,
        }
    }
}
