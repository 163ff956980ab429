//! One door for reading: the kind of file is found from its first bytes.

use crate::description::{Description, config_architecture, config_sizes};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::gguf::OtherTypes;
use crate::json::BYTE_ORDER_MARK;
use crate::model::Model;
use crate::source::Source;
use crate::{config, foreign, gguf, halfstep_file, hugging_face, json, safetensors, shards};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

/// A GGUF file, a `halfstep` file (one .safetensors with our metadata), or a Hugging Face folder
/// (config.json, tokenizer.json, model.safetensors or a sharded index).
pub fn load(path: &Path) -> Result<Model> {
    let name = path.display().to_string();
    if is_folder(path)? {
        return hugging_face::load(Folder::Disk(path));
    }
    let mut source = open(path)?;
    let mut start = [0; foreign::BYTES];
    let known = start.len().min(source.length as usize);
    source.read_at(0, &mut start[..known])?;
    match kind(&name, &start[..known])? {
        Kind::Gguf => gguf::read_files(gguf::Files::on_disk(source, path, OtherTypes::Refuse)?),
        Kind::Safetensors => load_safetensors(source),
    }
}

/// Whether `path` is a folder. What is not there may be a name on Hugging Face, which other tools
/// download by themselves.
fn is_folder(path: &Path) -> Result<bool> {
    let name = path.display().to_string();
    let file = std::fs::metadata(path).map_err(|source| {
        let source = match hub_name(&name) {
            Some(model) if source.kind() == ErrorKind::NotFound => std::io::Error::new(
                source.kind(),
                format!(
                    "{source}. A path is needed here, and nothing is downloaded; a model of this \
                     name on Hugging Face comes by `hf download {name} --local-dir {model}`"
                ),
            ),
            _ => source,
        };
        Error::Io { path: name.clone(), source }
    })?;
    Ok(file.is_dir())
}

/// The second part of `owner/model`, if a path has the form of such a name.
fn hub_name(path: &str) -> Option<&str> {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let (owner, model) = path.split_once('/')?;
    let is_file = [".gguf", ".safetensors", ".json"].iter().any(|end| model.ends_with(end));
    (is_part(owner) && is_part(model) && !is_file).then_some(model)
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
        return Err(by_itself(source.file, "a safetensors file by itself"));
    }
    halfstep_file::read(source, header)
}

/// A file of a Hugging Face folder that is no model without the others.
fn by_itself(file: String, name: &str) -> Error {
    let reason = "it has no halfstep metadata; for a Hugging Face model give its folder, with \
                  config.json and tokenizer.json";
    Error::Unsupported { file, name: name.into(), reason: reason.into(), offset: None }
}

/// Describes the model of a file or folder, whether [`load`] can read it or not: what `load` reads,
/// a safetensors file or a config.json by itself. Only headers and small files are read.
///
/// Errors: `Io`, `Format` and `Memory` where the file itself is damaged, `Unsupported` where it is
/// no model. What keeps a sound one from being run is in the description.
pub fn describe(path: &Path) -> Result<Description> {
    let name = path.display().to_string();
    if is_folder(path)? {
        return hugging_face::describe(Folder::Disk(path));
    }
    let mut source = open(path)?;
    let mut start = [0; foreign::BYTES];
    let known = start.len().min(source.length as usize);
    source.read_at(0, &mut start[..known])?;
    match described_kind(&name, &start[..known])? {
        Described::Model(Kind::Gguf) => {
            gguf::describe(gguf::Files::on_disk(source, path, OtherTypes::Describe)?)
        }
        Described::Model(Kind::Safetensors) => describe_safetensors(source),
        Described::Config => describe_config(source),
    }
}

/// Describes the model of bytes in memory; errors name it `name`.
pub fn describe_bytes(name: &str, bytes: &[u8]) -> Result<Description> {
    let source = Source::memory(name, bytes);
    match described_kind(name, &bytes[..bytes.len().min(foreign::BYTES)])? {
        Described::Model(Kind::Gguf) => {
            gguf::describe(gguf::Files::one(source, OtherTypes::Describe)?)
        }
        Described::Model(Kind::Safetensors) => describe_safetensors(source),
        Described::Config => describe_config(source),
    }
}

/// Describes the model of a Hugging Face folder in memory, its files by their names.
pub fn describe_files(name: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<Description> {
    hugging_face::describe(Folder::Memory { name, files })
}

enum Described {
    Model(Kind),
    Config,
}

fn described_kind(file: &str, start: &[u8]) -> Result<Described> {
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start).trim_ascii_start();
    match text {
        [b'{', ..] => Ok(Described::Config),
        _ => kind(file, start).map(Described::Model),
    }
}

fn describe_safetensors(mut source: Source) -> Result<Description> {
    let header = safetensors::read_header(&mut source)?;
    if header.metadata.contains_key(halfstep_file::FORMAT_KEY) {
        return halfstep_file::describe(source, header);
    }
    let mut description = Description {
        name: stem(&source.file),
        format: "safetensors",
        file_bytes: source.length,
        ..Description::default()
    };
    description.count_all(&header.tensors);
    description.refusal = Some(by_itself(source.file, "a safetensors file by itself"));
    Ok(description)
}

fn describe_config(mut source: Source) -> Result<Description> {
    let cap = config::MAX_CONFIG_BYTES as u64;
    if source.length > cap {
        let (file, bytes) = (source.file, source.length);
        return Err(Error::Memory { file, what: "config.json".into(), bytes, cap });
    }
    let bytes: Vec<u8> = source.values(0, source.length as usize)?;
    let config = json::parse(&source.file, &bytes)?;
    let parsed = shards::refuse_quantization_config(&source.file, &bytes)
        .and_then(|()| config::parse(&source.file, &bytes));
    let mut description = Description {
        name: stem(&source.file),
        format: "config",
        architecture: config_architecture(&config),
        sizes: config_sizes(&config),
        file_bytes: source.length,
        ..Description::default()
    };
    if let Ok(graph) = &parsed {
        description.count_graph(graph, 0);
    }
    let by_itself = || by_itself(source.file, "a config.json by itself");
    description.refusal = Some(parsed.err().unwrap_or_else(by_itself));
    Ok(description)
}

/// The name of a file without the way to it and its ending.
fn stem(file: &str) -> String {
    let name = Path::new(file).file_stem().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_hugging_face_is_told_from_other_paths() {
        assert_eq!(hub_name("HuggingFaceTB/SmolLM2-135M"), Some("SmolLM2-135M"));
        let others = ["SmolLM2", "./owner/model", "a/b/c", "/model", "owner/", "models/a.gguf"];
        for path in others {
            assert_eq!(hub_name(path), None, "{path}");
        }
        let said = load(Path::new("no-such-owner/model")).expect_err("it is not there");
        assert_eq!(said.code(), "ERR_IO");
        assert!(said.to_string().contains("hf download no-such-owner/model --local-dir model"));
    }
}
