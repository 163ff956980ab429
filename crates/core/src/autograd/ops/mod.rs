//! Trainable operations, one file each: forward and backward side by side, the arithmetic a call of
//! the device.
//!
//! A weight is not an argument of its operation but part of it: its gradient goes straight into the
//! parameter's buffer (a [`Sink`]), summed over micro-batches there, and never through the tape.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod bias;
pub(crate) mod columns;
pub(crate) mod convolution;
pub(crate) mod delta_rule;
pub(crate) mod fake_quant;
pub(crate) mod input_map;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod rope;
pub(crate) mod routing;
pub(crate) mod rows;
pub(crate) mod scale;

use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceBuffer};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard};

/// An operation of `N` arguments.
pub(crate) trait Op<D: Device, const N: usize>: Send + Sync {
    /// Whether the backward reads the values of each argument. Those that nothing reads do not stay
    /// in memory.
    const READS_ARGUMENTS: [bool; N] = [true; N];
    /// Whether the backward reads the values of the result.
    const READS_RESULT: bool = false;

    /// Name of the operation in errors.
    fn name(&self) -> &'static str;

    /// Whether the result is cheap to compute: it is then computed again from the arguments when a
    /// backward reads it, instead of kept.
    fn is_cheap(&self) -> bool {
        false
    }

    fn forward(&self, device: &D, arguments: [&Tensor<D>; N]) -> Result<Tensor<D>>;

    /// The gradient of each argument; None where no gradient flows. `arguments` and the result `y`
    /// have values where the constants of this trait declare that they are read. `dy` may be passed
    /// on without a copy.
    fn backward(
        &self,
        device: &D,
        arguments: [&Tensor<D>; N],
        y: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; N]>;
}

/// An operation of as many arguments as it is given, whose backward reads all of them.
pub(crate) trait ManyOp<D: Device>: Send + Sync {
    /// Name of the operation in errors.
    fn name(&self) -> &'static str;

    fn forward(&self, device: &D, arguments: &[Tensor<D>]) -> Result<Tensor<D>>;

    /// As [`Op::backward`].
    fn backward(
        &self,
        device: &D,
        arguments: &[Tensor<D>],
        dy: &Tensor<D>,
    ) -> Result<Vec<Option<Tensor<D>>>>;
}

/// The values of a parameter, and where its gradient goes if it learns.
pub(crate) type Learned<D> = (Arc<<D as Device>::Buffer>, Option<Sink<D>>);

/// Where the gradient of one parameter is summed.
pub struct Sink<D: Device>(Arc<Mutex<SinkState<D::Buffer>>>);

struct SinkState<B> {
    gradient: B,
    /// Contributions since the last [`Sink::clear`]; 0 means that no gradient arrived.
    count: usize,
}

impl<D: Device> Clone for Sink<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Device> Sink<D> {
    /// Allocates a gradient of `len` numbers.
    pub(crate) fn new(device: &D, len: usize) -> Result<Self> {
        let gradient = device.zeros(len)?;
        Ok(Self(Arc::new(Mutex::new(SinkState { gradient, count: 0 }))))
    }

    /// Adds a contribution: `write(gradient, accumulate)` overwrites the buffer if `accumulate` is
    /// false.
    pub(crate) fn add(&self, write: impl FnOnce(&mut D::Buffer, bool) -> Result<()>) -> Result<()> {
        let mut state = self.lock();
        let accumulate = state.count > 0;
        write(&mut state.gradient, accumulate)?;
        state.count += 1;
        Ok(())
    }

    /// Adds `contribution` elementwise.
    ///
    /// Errors: `Internal` if it has another number of values; those of the device.
    pub(crate) fn add_buffer(&self, device: &D, contribution: D::Buffer) -> Result<()> {
        self.add(|gradient, accumulate| {
            let (len, values) = (gradient.len(), contribution.len());
            if len != values {
                let reason = format!("{values} values for a gradient of {len}");
                return Err(Error::Internal { reason });
            }
            if accumulate {
                return device.add(gradient, &contribution);
            }
            *gradient = contribution;
            Ok(())
        })
    }

    /// Adds a contribution of zeros, for a step in which nothing else may reach it.
    pub(crate) fn add_zeros(&self, device: &D) -> Result<()> {
        let len = self.with(|gradient| gradient.len());
        self.add_buffer(device, device.zeros(len)?)
    }

    /// Contributions since the last clear.
    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }

    /// Forgets the gradient: the next contribution overwrites it.
    pub(crate) fn clear(&self) {
        self.lock().count = 0;
    }

    /// The gradient itself, which the sink then no longer has.
    pub fn take(&self, device: &D) -> Result<D::Buffer> {
        let none = device.zeros(0)?;
        Ok(self.with(|gradient| std::mem::replace(gradient, none)))
    }

    pub fn with<R>(&self, read: impl FnOnce(&mut D::Buffer) -> R) -> R {
        read(&mut self.lock().gradient)
    }

    fn lock(&self) -> MutexGuard<'_, SinkState<D::Buffer>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
