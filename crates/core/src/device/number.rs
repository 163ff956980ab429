//! The number types of the trainer.

use halfstep_kernels::Real;
use std::borrow::Cow;

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
