//! Readers of this crate for the fuzz targets (`crates/fuzz`); compiled only for them.

use crate::Result;
use crate::data::documents::Documents;
use crate::engine::checkpoint::Manifest;

/// Reads the text of a file of training data named `name`.
///
/// Errors: those of reading such a file.
pub fn documents(name: &str, text: &str) -> Result<()> {
    Documents::of_file(name, text.to_owned()).map(drop)
}

/// Reads the manifest of a checkpoint; an error says what is wrong with it.
pub fn manifest(bytes: &[u8]) -> std::result::Result<(), String> {
    Manifest::parse(bytes).map(drop)
}
