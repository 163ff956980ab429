//! The arguments and results of operations: values that are shared until one is changed, a shape,
//! and an identity for the tape.
//!
//! Values lie row after row; there are no strides and no views, so a kernel reads them as a slice.

use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identity of one result of one operation. A clone keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorId(u64);

impl TensorId {
    fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A row-major array. Cloning shares the values.
#[derive(Clone, Debug)]
pub struct Tensor<T> {
    id: TensorId,
    shape: Vec<usize>,
    /// None if only the identity and the shape are kept.
    values: Option<Arc<Vec<T>>>,
}

impl<T: Clone> Tensor<T> {
    /// A tensor that owns `values`, without a copy.
    ///
    /// Errors: `Internal` if `shape` has another number of elements.
    pub fn new(values: Vec<T>, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != values.len() {
            let reason = format!("{} values for a tensor of shape {shape:?}", values.len());
            return Err(Error::Internal { reason });
        }
        Ok(Self { id: TensorId::unique(), shape: shape.to_vec(), values: Some(Arc::new(values)) })
    }

    /// A tensor without values, for a result that is never read or computed only when it is.
    pub(super) fn without_values(shape: &[usize]) -> Self {
        Self { id: TensorId::unique(), shape: shape.to_vec(), values: None }
    }

    /// This tensor's identity and shape without its values.
    pub(super) fn name(&self) -> Self {
        Self { id: self.id, shape: self.shape.clone(), values: None }
    }

    pub(super) fn has_values(&self) -> bool {
        self.values.is_some()
    }

    pub fn id(&self) -> TensorId {
        self.id
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements that the shape has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the last dimension: the tensor is read as a matrix of such rows.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    pub fn rows(&self) -> usize {
        self.len() / self.cols().max(1)
    }

    /// The values; none if only the identity was kept.
    pub fn values(&self) -> &[T] {
        self.values.as_ref().map_or(&[], |values| values)
    }

    /// The values to be changed in place. They are copied first if another tensor shares them.
    pub fn values_mut(&mut self) -> &mut [T] {
        match &mut self.values {
            Some(values) => Arc::make_mut(values).as_mut_slice(),
            None => &mut [],
        }
    }

    /// The values themselves, copied only if another tensor shares them.
    pub fn into_values(self) -> Vec<T> {
        self.values.map_or_else(Vec::new, Arc::unwrap_or_clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_of_another_size_is_refused() {
        assert!(Tensor::new(vec![0.0f32; 6], &[2, 3]).is_ok());
        assert!(matches!(Tensor::new(vec![0.0f32; 5], &[2, 3]), Err(Error::Internal { .. })));
    }

    #[test]
    fn a_change_in_place_copies_only_values_that_are_shared() {
        let mut a = Tensor::new(vec![1.0f32, 2.0], &[2]).expect("a tensor");
        let before = a.values().as_ptr();
        a.values_mut()[0] = 3.0;
        assert_eq!(a.values().as_ptr(), before);
        let b = a.clone();
        assert_eq!((b.id(), b.values().as_ptr()), (a.id(), before));
        a.values_mut()[0] = 4.0;
        assert_eq!((a.values(), b.values()), (&[4.0, 2.0][..], &[3.0, 2.0][..]));
        let values = b.into_values();
        assert_eq!(values.as_ptr(), before);
    }
}
