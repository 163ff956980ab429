//! One door for reading: the kind of file is found from its first bytes.

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::model::Model;
use crate::source::Source;
use crate::{foreign, gguf, halfstep_file, hugging_face, safetensors};
use std::collections::BTreeMap;
use std::path::Path;

/// A GGUF file, a `halfstep` file (one .safetensors with our metadata), or a Hugging Face folder
/// (config.json, tokenizer.json, model.safetensors or a sharded index).
pub fn load(path: &Path) -> Result<Model> {
    let name = path.display().to_string();
    if std::fs::metadata(path).map_err(|source| Error::Io { path: name.clone(), source })?.is_dir()
    {
        return hugging_face::load(Folder::Disk(path));
    }
    let mut source = open(path)?;
    let mut start = [0; foreign::BYTES];
    let known = start.len().min(source.length as usize);
    source.read_at(0, &mut start[..known])?;
    match kind(&name, &start[..known])? {
        Kind::Gguf => gguf::read_files(gguf::Files::on_disk(source, path, false)?),
        Kind::Safetensors => load_safetensors(source),
    }
}

/// Loads a model from bytes in memory (GGUF or `halfstep` file), for WASM. Errors name it `name`.
pub fn load_bytes(name: &str, bytes: &[u8]) -> Result<Model> {
    match kind(name, &bytes[..bytes.len().min(foreign::BYTES)])? {
        Kind::Gguf => gguf::read(name, bytes),
        Kind::Safetensors => load_safetensors(Source::memory(name, bytes)),
    }
}

/// The files of a Hugging Face folder in memory, by their names.
pub fn load_files(name: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<Model> {
    hugging_face::load(Folder::Memory { name, files })
}

enum Kind {
    Gguf,
    Safetensors,
}

fn kind(file: &str, start: &[u8]) -> Result<Kind> {
    match start {
        [b'G', b'G', b'U', b'F', ..] => Ok(Kind::Gguf),
        // The length of the header may begin as other files do.
        [_, _, _, _, _, _, _, _, b'{', ..] => Ok(Kind::Safetensors),
        _ => {
            foreign::refuse(file, start)?;
            Err(Error::Format {
                file: file.into(),
                offset: 0,
                reason: "neither GGUF nor safetensors by its first bytes".into(),
            })
        }
    }
}

fn load_safetensors(mut source: Source) -> Result<Model> {
    let header = safetensors::read_header(&mut source)?;
    if !header.metadata.contains_key(halfstep_file::FORMAT_KEY) {
        let reason = "it has no halfstep metadata; for a Hugging Face model give its folder, with \
                      config.json and tokenizer.json";
        return Err(Error::Unsupported {
            file: source.file,
            name: "a safetensors file by itself".into(),
            reason: reason.into(),
        });
    }
    halfstep_file::read(source, header)
}

/// Size of a regular file; a pipe or a device could have no end.
pub fn regular_file_bytes(path: &Path) -> Result<u64> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let about = std::fs::metadata(path).map_err(io)?;
    if !about.is_file() {
        return Err(io(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "not a regular file",
        )));
    }
    Ok(about.len())
}

/// The bytes of a regular file.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    regular_file_bytes(path)?;
    std::fs::read(path).map_err(|source| Error::Io { path: path.display().to_string(), source })
}

pub(crate) fn open(path: &Path) -> Result<Source<'static>> {
    regular_file_bytes(path)?;
    Source::open(path)
}
