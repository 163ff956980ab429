//! The weight side of a quantized model: how a matrix becomes what the forward uses, and what of it
//! learns.

pub mod low_rank;
pub mod matrix;
