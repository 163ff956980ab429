//! Bytes to tensors and back, every byte taken as hostile: safetensors, GGUF, config.json,
//! tokenizer, chat template.
//!
//! Inside, a model always has Hugging Face tensor names and row order, whatever file it came from.

pub mod architecture;
pub mod blocks;
pub mod config;
pub mod error;
pub mod folder;
pub mod gguf;
pub mod halfstep_file;
pub mod hugging_face;
pub mod inventory;
pub mod json;
pub mod linear_parts;
pub mod load;
pub mod low_rank;
pub mod model;
pub mod quantization;
pub mod safetensors;
pub mod source;
pub mod template;
pub mod tokenizer;
pub mod write;

pub use architecture::Architecture;
pub use error::{Error, Result};
pub use linear_parts::LinearParts;
pub use low_rank::LowRank;
pub use model::{Model, Tensor, TensorData};
pub use quantization::Quantization;
pub use tokenizer::Tokenizer;
