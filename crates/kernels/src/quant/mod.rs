//! Quantizers: codes and values from numbers and steps, their gradients, and the rules that find a
//! first step.

pub mod activation;
pub mod activation_spec;
pub mod affine;
pub mod cache;
pub mod calibrate;
pub mod element;
mod error_search;
pub mod lsq;
mod rounding;
pub mod scale;
pub mod spec;
pub mod tensor;
