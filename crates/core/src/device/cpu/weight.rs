//! A weight as the products of the CPU read it.

use crate::device::{DeviceWeight, Number};
use halfstep_formats::Tensor;
use halfstep_kernels::ops::gemm::{Dense, Rows};
use halfstep_kernels::ops::linear::WeightPanels;
use std::any::Any;
use std::sync::Arc;

/// A weight `[O, I]`: values, the codes and scales of the packed runtime, or a tensor as its file
/// has it, decoded where it is read.
#[derive(Clone)]
pub enum Weight<T> {
    /// Values `[O, I]`.
    Values {
        /// Row after row.
        values: Arc<Vec<T>>,
        /// I.
        cols: usize,
    },
    /// Codes and scales in the layout of the integer products.
    Packed(Arc<WeightPanels>),
    /// As a file has it.
    Stored(Arc<Tensor>),
    /// With the panels of one kind of product, made once.
    Prepared {
        /// Itself, for products of another kind.
        weight: Arc<Weight<T>>,
        /// What products of this kind read.
        panels: Arc<dyn Any + Send + Sync>,
    },
}

impl<T> Weight<T> {
    /// A weight of values `[O, I]`, I being `cols`.
    pub(crate) fn values(values: Vec<T>, cols: usize) -> Self {
        Self::Values { values: Arc::new(values), cols }
    }

    /// The codes, if it is some.
    pub(super) fn codes(&self) -> Option<&WeightPanels> {
        match self {
            Weight::Packed(panels) => Some(panels),
            Weight::Prepared { weight, .. } => weight.codes(),
            Weight::Values { .. } | Weight::Stored(_) => None,
        }
    }
}

impl<T: Number> Rows<T> for Weight<T> {
    fn rows(&self) -> usize {
        match self {
            Weight::Values { values, cols } => values.len() / cols,
            Weight::Packed(panels) => panels.rows(),
            Weight::Stored(tensor) => tensor.rows(),
            Weight::Prepared { weight, .. } => Rows::rows(&**weight),
        }
    }
    fn cols(&self) -> usize {
        match self {
            Weight::Values { cols, .. } => *cols,
            Weight::Packed(panels) => panels.cols(),
            Weight::Stored(tensor) => tensor.cols(),
            Weight::Prepared { weight, .. } => Rows::cols(&**weight),
        }
    }
    fn read(&self, row: usize, first: usize, out: &mut [T]) {
        match self {
            Weight::Values { values, cols } => Dense::new(values, *cols).read(row, first, out),
            Weight::Packed(panels) => panels.read(row, first, out),
            Weight::Stored(tensor) => T::with_f32s(out, |out| tensor.read(row, first, out)),
            Weight::Prepared { weight, .. } => weight.read(row, first, out),
        }
    }
    fn dense(&self) -> Option<&[T]> {
        match self {
            Weight::Values { values, .. } => Some(values),
            Weight::Prepared { weight, .. } => weight.dense(),
            Weight::Packed(_) | Weight::Stored(_) => None,
        }
    }
    fn panels(&self) -> Option<&dyn Any> {
        match self {
            Weight::Prepared { panels, .. } => Some(&**panels as &dyn Any),
            _ => None,
        }
    }
}

impl<T: Number> DeviceWeight for Weight<T> {
    fn rows(&self) -> usize {
        Rows::<T>::rows(self)
    }

    fn cols(&self) -> usize {
        Rows::<T>::cols(self)
    }

    fn is_packed(&self) -> bool {
        self.codes().is_some()
    }
}
