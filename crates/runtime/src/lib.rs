//! Inference: prefill, decode, KV cache, sampling, scoring. It reads the architecture as data and
//! depends on no training code.

#![warn(missing_docs)]

pub mod cache;
pub mod clock;
pub mod error;
pub mod generate;
mod linear_parts;
pub mod low_rank;
mod matrix;
pub mod network;
pub mod sample;
pub mod score;

pub use cache::Cache;
pub use error::{Error, Result};
pub use generate::{GenerateConfig, generate};
pub use network::{Arithmetic, Network};
pub use score::{Evaluation, evaluate};
