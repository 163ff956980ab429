//! What is collected about a model before it is quantized.

pub mod hessian;
pub mod saliency;
