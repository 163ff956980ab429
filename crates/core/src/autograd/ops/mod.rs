//! Trainable operations, one file each: forward and backward side by side, the arithmetic a call of
//! the device.
//!
//! A weight is not an argument of its operation but part of it: its gradient goes straight into the
//! parameter's buffer (a [`Sink`]), summed over micro-batches there, and never through the tape.

pub mod attention;
pub mod bias;
pub mod fake_quant;
pub mod input_map;
pub mod linear;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;

use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceBuffer};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard};

/// An operation of `N` arguments.
pub trait Op<D: Device, const N: usize>: Send + Sync {
    /// Whether the backward reads the values of each argument. Those that nothing reads do not stay
    /// in memory.
    const READS_ARGUMENTS: [bool; N] = [true; N];
    /// Whether the backward reads the values of the result.
    const READS_RESULT: bool = false;

    /// Named by errors.
    fn name(&self) -> &'static str;

    /// Whether the result costs little: it is then made again from the arguments when a backward
    /// reads it, instead of kept.
    fn is_cheap(&self) -> bool {
        false
    }

    fn forward(&self, device: &D, arguments: [&Tensor<D>; N]) -> Result<Tensor<D>>;

    /// The gradient of each argument; None where nothing flows. `arguments` and the result `y` have
    /// values where this operation says that it reads them. `dy` may be passed on without a copy.
    fn backward(
        &self,
        device: &D,
        arguments: [&Tensor<D>; N],
        y: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; N]>;
}

/// Where the gradient of one parameter is summed. `None` values of it (a frozen parameter) are
/// simply absent.
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
    /// Room for a gradient of `len` numbers.
    pub fn new(device: &D, len: usize) -> Result<Self> {
        let gradient = device.zeros(len)?;
        Ok(Self(Arc::new(Mutex::new(SinkState { gradient, count: 0 }))))
    }

    /// Adds a contribution: `write(gradient, accumulate)` overwrites the buffer if `accumulate` is
    /// false.
    pub fn add(&self, write: impl FnOnce(&mut D::Buffer, bool) -> Result<()>) -> Result<()> {
        let mut state = self.lock();
        let accumulate = state.count > 0;
        write(&mut state.gradient, accumulate)?;
        state.count += 1;
        Ok(())
    }

    /// Adds `contribution` elementwise.
    ///
    /// Errors: `Internal` if it has another number of values; those of the device.
    pub fn add_buffer(&self, device: &D, contribution: D::Buffer) -> Result<()> {
        self.add(|gradient, accumulate| {
            let (room, values) = (gradient.len(), contribution.len());
            if room != values {
                let reason = format!("{values} values for a gradient of {room}");
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
    pub fn add_zeros(&self, device: &D) -> Result<()> {
        let len = self.with(|gradient| gradient.len());
        self.add_buffer(device, device.zeros(len)?)
    }

    /// Contributions since the last clear.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// The next contribution starts anew.
    pub fn clear(&self) {
        self.lock().count = 0;
    }

    pub fn with<R>(&self, read: impl FnOnce(&mut D::Buffer) -> R) -> R {
        read(&mut self.lock().gradient)
    }

    fn lock(&self) -> MutexGuard<'_, SinkState<D::Buffer>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
