//! Quantizers: codes and values from numbers and steps, their gradients, and the rules that find a
//! first step.

pub mod activation;
pub mod activation_spec;
pub mod affine;
pub mod element;
pub mod lsq;
pub mod nearest;
pub mod observer;
mod rounding;
pub mod scale;
pub mod spec;
pub mod tensor;
