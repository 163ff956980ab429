//! Operations of the transformer, forward and backward, one file each.
// Loops over indices on purpose: see `lanes`.
#![allow(clippy::needless_range_loop)]

pub mod activation;
pub mod adamw;
pub mod attend;
pub mod attention;
pub mod convolution;
pub mod delta_rule;
pub mod gemm;
pub mod hadamard;
pub(crate) mod lanes;
pub mod layer_norm;
pub mod linear;
pub mod loss;
pub mod rms_norm;
pub mod rope;
pub mod routing;
pub mod softcap;
pub mod swiglu;
