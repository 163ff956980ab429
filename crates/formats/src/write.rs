//! Writing: a temporary file beside the target, synced, then renamed.
use crate::error::Result;
use crate::model::Model;
use std::path::Path;

/// File formats a model can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// GGUF v3. Packed tensors must be exactly Q4_0 or Q8_0; floats are written as they are (1-D tensors F32).
    Gguf,
    /// Our own safetensors layout: any grid (docs/format.md).
    Halfstep,
}

/// Writes to `path` atomically: nothing is left there on an error. Returns the bytes written.
pub fn save(_model: &Model, _path: &Path, _format: FileFormat) -> Result<u64> {
    todo!()
}

/// The file's bytes in memory (for WASM and tests).
pub fn to_bytes(_model: &Model, _format: FileFormat) -> Result<Vec<u8>> {
    todo!()
}

/// Runs `write` on a temporary file beside `path`, syncs it, renames it to `path`, syncs the folder. The temporary file is removed on an error.
pub fn atomic(_path: &Path, _write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> Result<()> {
    todo!()
}
