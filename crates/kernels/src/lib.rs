//! CPU operations over slices: everything that decides **bytes** (grids, scales, rounding, packing)
//! and the arithmetic around them. Knows nothing of files, models or methods.
//!
//! Legend: B batch, T query tokens, S key tokens, H heads, K key/value heads, D head width, M rows
//! (tokens), O out features, I in features, G groups per row, V vocabulary. Matrices are row-major,
//! weights `[O, I]`.
//!
//! Float order: every sum is a function of its own length (and of absolute position, in attention)
//! alone, never of the number of rows, the tile or the thread count. No fused multiply-add in the
//! inference path and our own `exp`/`ln`/`sin`/`cos`, so a result is the same on every CPU and in
//! WASM.

#![warn(missing_docs)]

pub mod dispatch;
pub mod math;
pub mod ops;
pub mod pack;
pub mod quant;
mod real;
pub mod recycle;
pub mod rng;
mod threads;
mod uninit_vec;

pub use quant::activation_spec::{ActivationGranularity, ActivationSpec};
pub use quant::element::{Element, Int, IntRange};
pub use quant::scale::ScaleCodec;
pub use quant::spec::{Granularity, QuantSpec, ZeroPoint};
pub use quant::tensor::QuantTensor;
pub use real::Real;
pub use threads::Pool;
pub use uninit_vec::uninit_vec;
