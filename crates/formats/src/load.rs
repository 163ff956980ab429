//! One door for reading: the kind of file is found from its first bytes.
use crate::error::Result;
use crate::model::Model;
use std::path::Path;

/// A GGUF file, a `halfstep` file (one .safetensors with our metadata), or a Hugging Face folder (config.json, tokenizer.json, model.safetensors or a sharded index).
pub fn load(_path: &Path) -> Result<Model> {
    todo!()
}

/// The same from bytes in memory (GGUF or `halfstep` file), for WASM. `name` stands in errors.
pub fn load_bytes(_name: &str, _bytes: &[u8]) -> Result<Model> {
    todo!()
}
