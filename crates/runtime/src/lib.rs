//! A model run for inference: prefill, decode, KV cache, sampling, scoring. Reads the architecture
//! as data; knows no candle, training or method.

pub mod cache;
pub mod clock;
pub mod error;
pub mod generate;
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
