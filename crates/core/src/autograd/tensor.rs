//! The arguments and results of operations: values that are shared until one is changed, a shape,
//! and an identity for the tape.
//!
//! Values are stored row after row; there are no strides and no views.

use crate::device::{Device, DeviceBuffer};
use crate::{Error, Result};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identity of one result of one operation. A clone keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TensorId(u64);

impl TensorId {
    fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A row-major array on a device. Cloning shares the values.
#[derive(Debug)]
pub struct Tensor<D: Device> {
    id: TensorId,
    shape: Vec<usize>,
    /// None if only the identity and the shape are kept.
    values: Option<Arc<D::Buffer>>,
}

impl<D: Device> Clone for Tensor<D> {
    fn clone(&self) -> Self {
        Self { id: self.id, shape: self.shape.clone(), values: self.values.clone() }
    }
}

impl<D: Device> Tensor<D> {
    /// A tensor that owns `values`, without a copy.
    ///
    /// Errors: `Internal` if `shape` has another number of elements.
    pub fn new(values: D::Buffer, shape: &[usize]) -> Result<Self> {
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

    pub(crate) fn id(&self) -> TensorId {
        self.id
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The same values in another shape, under the same identity.
    pub(crate) fn reshaped(mut self, shape: &[usize]) -> Self {
        debug_assert_eq!(self.len(), shape.iter().product::<usize>());
        self.shape = shape.to_vec();
        self
    }

    /// Number of elements that the shape has.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of the last dimension: the tensor is read as a matrix of such rows.
    pub(crate) fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    pub(crate) fn rows(&self) -> usize {
        self.len() / self.cols().max(1)
    }

    /// The values on the device.
    ///
    /// Errors: `Internal` if only the identity was kept.
    pub(crate) fn buffer(&self) -> Result<&D::Buffer> {
        self.values.as_deref().ok_or_else(nothing_kept)
    }

    /// The values to be changed in place. They are copied first if another tensor shares them.
    ///
    /// Errors: as [`Self::buffer`]; those of the copy.
    pub(crate) fn buffer_mut(&mut self, device: &D) -> Result<&mut D::Buffer> {
        let values = self.values.as_mut().ok_or_else(nothing_kept)?;
        if Arc::get_mut(values).is_none() {
            *values = Arc::new(device.copy(values)?);
        }
        Arc::get_mut(values).ok_or_else(nothing_kept)
    }

    /// The values on the host; borrowed where the device is the CPU.
    ///
    /// Errors: as [`Self::buffer`]; those of reading.
    pub(crate) fn read<'a>(&'a self, device: &D) -> Result<Cow<'a, [D::Number]>> {
        device.read(self.buffer()?)
    }

    /// The values themselves, copied only if another tensor shares them.
    ///
    /// Errors: as [`Self::buffer`]; those of the copy.
    pub(crate) fn into_buffer(self, device: &D) -> Result<D::Buffer> {
        match Arc::try_unwrap(self.values.ok_or_else(nothing_kept)?) {
            Ok(values) => Ok(values),
            Err(shared) => device.copy(&shared),
        }
    }
}

fn nothing_kept() -> Error {
    Error::Internal { reason: "the values of a tensor were not kept".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use halfstep_kernels::Pool;

    #[test]
    fn a_shape_of_another_size_is_refused() {
        assert!(Tensor::<Cpu>::new(vec![0.0; 6], &[2, 3]).is_ok());
        let five = Tensor::<Cpu>::new(vec![0.0; 5], &[2, 3]);
        assert!(matches!(five, Err(Error::Internal { .. })));
    }

    #[test]
    fn a_change_in_place_copies_only_values_that_are_shared() {
        let device = Cpu::new(&Pool::serial());
        let mut a = Tensor::<Cpu>::new(vec![1.0, 2.0], &[2]).expect("a tensor");
        let values = |of: &Tensor<Cpu>| of.buffer().expect("values").clone();
        let place = |of: &Tensor<Cpu>| of.buffer().expect("values").as_ptr();
        let before = place(&a);
        a.buffer_mut(&device).expect("values")[0] = 3.0;
        assert_eq!(place(&a), before);
        let b = a.clone();
        assert_eq!((b.id(), place(&b)), (a.id(), before));
        a.buffer_mut(&device).expect("values")[0] = 4.0;
        assert_eq!((values(&a), values(&b)), (vec![4.0, 2.0], vec![3.0, 2.0]));
        let last = b.into_buffer(&device).expect("values");
        assert_eq!(last.as_ptr(), before);
    }

    #[test]
    fn values_that_were_not_kept_are_an_error() {
        let named = Tensor::<Cpu>::new(vec![0.0; 2], &[2]).expect("a tensor").name();
        assert!(named.buffer().is_err() && named.len() == 2);
    }
}
