//! Trainable operations on candle tensors, one file each: forward and backward side by side, the
//! arithmetic a call into `halfstep-kernels`.
//!
//! Every op is a candle `CustomOp` on our own thread pool. A weight is not an argument of its op
//! but part of it: its gradient goes straight into the parameter's buffer (a [`Sink`]), summed over
//! micro-batches there, and never through the graph.

pub mod attention;
pub mod bias;
pub mod fake_quant;
pub mod linear;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;
pub mod weight;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType};
use halfstep_kernels::Real;
use std::borrow::Cow;
use std::sync::{Arc, Mutex};

/// The number types the trainer runs in: f32 for training, f64 for replaying reference traces.
pub trait Number: Real + WithDType {
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
        Self(Arc::new(Mutex::new(SinkState { gradient: vec![<T as Real>::ZERO; len], count: 0 })))
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

/// The values behind a storage; all our tensors are contiguous from offset 0.
pub(crate) fn values<'a, T: Number>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::Msg("tensor is not contiguous".into()))?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Reads a CPU tensor's values in place.
pub fn with_values<T: Number, R>(tensor: &Tensor, read: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(read(values(cpu, layout)?)),
        _ => Err(candle_core::Error::Msg("tensor is not on the CPU".into())),
    }
}

/// A tensor that owns `data`, without a copy.
pub fn tensor<T: Number>(data: Vec<T>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(data, shape, &candle_core::Device::Cpu)
}

/// (rows, columns) of a tensor seen as a matrix whose rows are its last dimension.
pub(crate) fn matrix(layout: &Layout) -> (usize, usize) {
    let dims = layout.dims();
    let cols = dims.last().copied().unwrap_or(1);
    (layout.shape().elem_count() / cols.max(1), cols)
}
