//! Bytes to tensors and back, every byte taken as hostile: safetensors, GGUF, config.json,
//! tokenizer, chat template.
//!
//! Inside, a model always has Hugging Face tensor names and row order, whatever file it came from.

#![warn(missing_docs)]

pub mod architecture;
mod bitnet_folder;
pub mod blocks;
pub mod config;
pub mod description;
pub mod encoding;
mod error;
mod folder;
pub mod foreign;
pub mod forms;
pub mod gguf;
mod halfstep_file;
mod hugging_face;
mod inventory;
mod json;
pub mod linear_parts;
pub mod load;
mod low_rank;
mod model;
mod mxfp4_folder;
mod numbered;
mod pieces;
mod quantization;
pub mod safetensors;
mod shards;
mod source;
pub mod template;
mod tensor_names;
pub mod tokenizer;
pub mod write;

pub use architecture::Architecture;
pub use description::Description;
pub use error::{Error, Result};
pub use linear_parts::LinearParts;
pub use low_rank::LowRank;
pub use model::{Model, Tensor, TensorData};
pub use quantization::Quantization;
pub use tokenizer::Tokenizer;
