//! Trainable operations, one file each: forward and backward side by side, the arithmetic a call
//! into `halfstep-kernels`.
//!
//! A weight is not an argument of its operation but part of it: its gradient goes straight into the
//! parameter's buffer (a [`Sink`]), summed over micro-batches there, and never through the tape.

pub mod attention;
pub mod bias;
pub mod fake_quant;
pub mod linear;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;
pub mod weight;

use crate::Result;
use crate::autograd::tensor::Tensor;
use halfstep_kernels::Real;
use std::borrow::Cow;
use std::sync::{Arc, Mutex};

/// The number types the trainer runs in: f32 for training, f64 for replaying reference traces.
pub trait Number: Real {
    /// In f32, without a copy if they are.
    fn to_f32s(values: &[Self]) -> Cow<'_, [f32]>;
    /// From f32, without a copy if they stay so.
    fn from_f32s(values: Vec<f32>) -> Vec<Self>;
    /// What `write` writes in f32, directly if they are.
    fn with_f32s(values: &mut [Self], write: impl FnOnce(&mut [f32]));
}

impl Number for f32 {
    fn to_f32s(values: &[f32]) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }
    fn from_f32s(values: Vec<f32>) -> Vec<f32> {
        values
    }
    fn with_f32s(values: &mut [f32], write: impl FnOnce(&mut [f32])) {
        write(values);
    }
}

impl Number for f64 {
    fn to_f32s(values: &[f64]) -> Cow<'_, [f32]> {
        values.iter().map(|&v| v as f32).collect()
    }
    fn from_f32s(values: Vec<f32>) -> Vec<f64> {
        values.into_iter().map(f64::from).collect()
    }
    fn with_f32s(values: &mut [f64], write: impl FnOnce(&mut [f32])) {
        let mut narrow = vec![0.0; values.len()];
        write(&mut narrow);
        values.iter_mut().zip(narrow).for_each(|(value, x)| *value = x.into());
    }
}

/// An operation of `N` arguments.
pub trait Op<T, const N: usize>: Send + Sync {
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

    fn forward(&self, arguments: [&Tensor<T>; N]) -> Result<Tensor<T>>;

    /// The gradient of each argument; None where nothing flows. `arguments` and the result `y` have
    /// values where this operation says that it reads them. `dy` may be passed on without a copy.
    fn backward(
        &self,
        arguments: [&Tensor<T>; N],
        y: &Tensor<T>,
        dy: &Tensor<T>,
    ) -> Result<[Option<Tensor<T>>; N]>;
}

/// Where the gradient of one parameter is summed. `None` values of it (a frozen parameter) are
/// simply absent.
#[derive(Clone)]
pub struct Sink<T>(Arc<Mutex<SinkState<T>>>);

struct SinkState<T> {
    gradient: Vec<T>,
    /// Contributions since the last [`Sink::clear`]; 0 means that no gradient arrived.
    count: usize,
}

impl<T: Number> Sink<T> {
    pub fn new(len: usize) -> Self {
        Self(Arc::new(Mutex::new(SinkState { gradient: vec![T::ZERO; len], count: 0 })))
    }

    /// Adds a contribution: `write(gradient, accumulate)` overwrites the buffer if `accumulate` is
    /// false.
    pub fn add(&self, write: impl FnOnce(&mut [T], bool)) {
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let accumulate = state.count > 0;
        write(&mut state.gradient, accumulate);
        state.count += 1;
    }

    /// Adds `contribution` elementwise.
    pub fn add_slice(&self, contribution: &[T]) {
        self.add(|gradient, accumulate| {
            if !accumulate {
                gradient.copy_from_slice(contribution);
            } else {
                gradient.iter_mut().zip(contribution).for_each(|(g, &c)| *g += c);
            }
        });
    }

    /// Contributions since the last clear.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).count
    }

    /// The next contribution starts anew.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).count = 0;
    }

    pub fn with<R>(&self, read: impl FnOnce(&mut Vec<T>) -> R) -> R {
        read(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()).gradient)
    }
}
