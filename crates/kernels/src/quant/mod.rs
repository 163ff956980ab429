//! Quantizers: codes and values from numbers and steps, their gradients, and the rules that find a
//! first step.

pub mod activation;
pub mod affine;
pub mod cache;
pub mod calibrate;
mod error_search;
pub mod lsq;
mod rounding;
pub mod scale;
