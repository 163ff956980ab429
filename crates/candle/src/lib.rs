//! Parts of halfstep for programs on candle: weights on the grid of a file while they train, linear
//! layers on packed codes, distillation through large vocabularies, and models both ways.
//!
//!     let quantizer = FakeQuant::new(QuantSpec::Q4_0);
//!     let scales = Var::from_tensor(&quantizer.initial(&w, Observer::ErrorSearch)?.scales)?;
//!     let y = x.matmul(&quantizer.symmetric(&w, &scales)?.t()?)?;         // trains on the grid
//!     let packed = quantizer.pack(&w, &scales, None)?;                    // what the file holds
//!
//! Everything runs on the CPU on halfstep's own threads and works with candle's `backward`.

#![warn(missing_docs)]

pub mod fake_quant;
pub mod kl;
pub mod model;
pub mod packed_linear;
mod values;

pub use fake_quant::{FakeQuant, Initial};
pub use kl::{ChunkedKl, Logits};
pub use model::{Error, from_candle, to_candle};
pub use packed_linear::PackedLinear;
