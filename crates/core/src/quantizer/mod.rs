//! The weight side of a quantized model: how a matrix becomes what the forward uses, and what of it
//! learns. A quantized weight is a pipeline of parts, each a file and a line in its list:
//!
//! | part | module | question |
//! |---|---|---|
//! | observer | [`halfstep_kernels::quant::observer`] | which scales and zero points does it begin with? |
//! | transform | [`transform`] | what do weight and input go through, so that their product stays? |
//! | range | [`range`] | how do scales and zero points come about in each step, what of them learns? |
//! | rounding | [`rounding`] | which code does a weight get, and where does its gradient go? |
//! | low rank | `low_rank` | which factors are added, inside of the quantizer or outside? |

pub mod builder;
#[cfg(test)]
mod gradient_check;
pub(crate) mod low_rank;
pub(crate) mod matrix;
pub(crate) mod observer;
pub mod range;
pub mod rounding;
pub(crate) mod site;
pub mod transform;
