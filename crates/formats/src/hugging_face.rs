//! A Hugging Face folder: config.json, tokenizer.json and model.safetensors or shards with an
//! index.

use crate::architecture::{Architecture, Role, TensorSpec, family};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::model::{Model, Tensor, TensorData};
use crate::safetensors::{self, Dtype, Info};
use crate::source::Source;
use crate::tokenizer::Tokenizer;
use crate::write::{self, Temporary};
use crate::{config, halfstep_file, inventory, json};
use half::vec::HalfBitsVecExt;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Most bytes that a tokenizer.json may have.
pub const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// Most bytes that a tokenizer_config.json (it may list every added token) or a
/// generation_config.json may have.
pub const MAX_SIDE_BYTES: u64 = 16 << 20;
/// Most bytes that a chat template may have.
pub const MAX_TEMPLATE_BYTES: u64 = 256 << 10;
/// Most files that the weights may be split over.
pub const MAX_SHARDS: usize = 1024;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Reads a folder. Errors: `Io` (no config.json, no weights), those of config.rs and
/// safetensors.rs, `MissingTensor`, `Shape`, `Unsupported` (a tensor that the architecture has no
/// place for, an element type that is no float).
pub fn load(folder: Folder) -> Result<Model> {
    let mut file_bytes = 0;
    let mut read = |name: &str, cap: u64| -> Result<Option<(String, Vec<u8>)>> {
        let found = folder.read(name, cap)?;
        file_bytes += found.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
        Ok(found)
    };
    let config_file_and_bytes = read("config.json", config::MAX_CONFIG_BYTES as u64)?
        .ok_or_else(|| absent(folder, "config.json"))?;
    let (config_file, config_bytes) = &config_file_and_bytes;
    let architecture = config::parse(config_file, config_bytes)?;
    let tokenizer_config = read("tokenizer_config.json", MAX_SIDE_BYTES)?;
    let generation = read("generation_config.json", MAX_SIDE_BYTES)?;
    let template = read("chat_template.jinja", MAX_TEMPLATE_BYTES)?;
    let side = tokenizer_config.as_ref().map(|(_, bytes)| bytes.as_slice());
    let mut warnings = vec![];
    let tokenizer = match read_tokenizer(&mut read, side)? {
        None => {
            warnings.push("the folder has no tokenizer, and what is made of it has none".into());
            None
        }
        Some((file, tokenizer)) => {
            check_vocabulary(&tokenizer, &architecture, &file)?;
            let sources = generation.iter().chain([&config_file_and_bytes]);
            let tokenizer = with_end_tokens(tokenizer, sources)?;
            warnings.extend(tokenizer.warnings.iter().cloned());
            Some(tokenizer)
        }
    };
    let chat_template = match template {
        Some((file, bytes)) => Some(String::from_utf8(bytes).map_err(|e| Error::Format {
            file,
            offset: e.utf8_error().valid_up_to() as u64,
            reason: "not UTF-8".into(),
        })?),
        None => tokenizer_config
            .as_ref()
            .map(|(file, bytes)| template_of(file, bytes))
            .transpose()?
            .flatten(),
    };
    let mut shards = open_shards(folder, &mut file_bytes)?;
    let tensors = read_tensors(folder, &architecture, &mut shards)?;
    let (low_rank, provenance) = (BTreeMap::new(), BTreeMap::new());
    Ok(Model {
        name: folder.name(),
        architecture,
        tensors,
        low_rank,
        linear_parts: BTreeMap::new(),
        tokenizer,
        chat_template,
        quantization: None,
        provenance,
        file_bytes,
        warnings,
        carried: BTreeMap::new(),
    })
}

/// A file's name for errors, and its contents.
type NamedBytes = (String, Vec<u8>);

/// The tokenizer from whichever files of one the folder has, with the name of the first.
fn read_tokenizer(
    read: &mut dyn FnMut(&str, u64) -> Result<Option<NamedBytes>>,
    config: Option<&[u8]>,
) -> Result<Option<(String, Tokenizer)>> {
    if let Some((file, bytes)) = read("tokenizer.json", MAX_TOKENIZER_BYTES)? {
        let tokenizer = Tokenizer::from_json(&file, &bytes, config)?;
        return Ok(Some((file, tokenizer)));
    }
    let added = read("added_tokens.json", MAX_SIDE_BYTES)?.map(|(_, bytes)| bytes);
    if let Some((file, bytes)) = read("tokenizer.model", MAX_TOKENIZER_BYTES)? {
        let tokenizer = Tokenizer::from_sentence_piece(&file, &bytes, config, added.as_deref())?;
        return Ok(Some((file, tokenizer)));
    }
    let vocab = read("vocab.json", MAX_TOKENIZER_BYTES)?;
    let merges = read("merges.txt", MAX_TOKENIZER_BYTES)?;
    match (vocab, merges) {
        (None, None) => Ok(None),
        (Some((file, vocab)), Some((_, merges))) => {
            let tokenizer =
                Tokenizer::from_merges(&file, &vocab, &merges, config, added.as_deref())?;
            Ok(Some((file, tokenizer)))
        }
        (Some((file, _)), None) | (None, Some((file, _))) => Err(Error::Unsupported {
            file,
            name: "half a tokenizer".into(),
            reason: "vocab.json and merges.txt belong together; or have a tokenizer.json".into(),
        }),
    }
}

fn absent(folder: Folder, name: &str) -> Error {
    Error::Io {
        path: folder.file_label(name),
        source: std::io::Error::new(
            std::io::ErrorKind::NotFound,
            "a Hugging Face folder must have it",
        ),
    }
}

struct Shard<'a> {
    source: Source<'a>,
    tensors: Vec<Info>,
}

/// The weight files with their checked headers. Under an index, each shard keeps only the tensors
/// that the index places there.
fn open_shards<'a>(folder: Folder<'a>, file_bytes: &mut u64) -> Result<Vec<Shard<'a>>> {
    let mut shard = |mut source: Source<'a>| -> Result<Shard<'a>> {
        *file_bytes += source.length;
        let tensors = safetensors::read_header(&mut source)?.tensors;
        Ok(Shard { source, tensors })
    };
    if let Some((_, source)) = folder.open(WEIGHTS)? {
        return Ok(vec![shard(source)?]);
    }
    let Some((index_file, index_bytes)) = folder.read(INDEX, safetensors::MAX_HEADER_BYTES)? else {
        return Err(absent(folder, WEIGHTS));
    };
    let map = json::typed::<Index>(&index_file, &index_bytes, 0)?.weight_map.0;
    let wrong = |key: &str, reason: String| Error::Format {
        file: index_file.clone(),
        offset: json::key_offset(&index_bytes, key),
        reason,
    };
    let names: BTreeSet<&String> = map.values().collect();
    if names.len() > MAX_SHARDS {
        return Err(wrong("weight_map", format!("{} shards, more than {MAX_SHARDS}", names.len())));
    }
    // Two spellings of one file would be read twice.
    let mut paths = BTreeSet::new();
    let mut shards = vec![];
    for name in names {
        let (path, source) = folder.open(name)?.ok_or_else(|| absent(folder, name))?;
        let mut shard = shard(source)?;
        if !paths.insert(path) {
            return Err(wrong(
                "weight_map",
                format!("shard {name:?} is a file that the index names twice"),
            ));
        }
        shard.tensors.retain(|t| map.get(&t.name) == Some(name));
        let held: BTreeSet<&str> = shard.tensors.iter().map(|t| t.name.as_str()).collect();
        if let Some((tensor, _)) =
            map.iter().find(|(t, s)| *s == name && !held.contains(t.as_str()))
        {
            return Err(wrong(tensor, format!("tensor {tensor:?} is not in shard {name:?}")));
        }
        shards.push(shard);
    }
    Ok(shards)
}

#[derive(Deserialize)]
struct Index {
    weight_map: safetensors::Strings,
}

fn read_tensors(
    folder: Folder,
    architecture: &Architecture,
    shards: &mut [Shard],
) -> Result<BTreeMap<String, Tensor>> {
    let (file, named) = (folder.label(), named_specs(architecture));
    let wanted: Vec<TensorSpec> = named.iter().map(|(_, stored)| stored.clone()).collect();
    let places: BTreeMap<String, (usize, Info)> = shards
        .iter()
        .enumerate()
        .flat_map(|(i, s)| s.tensors.iter().map(move |t| (t.name.clone(), (i, t.clone()))))
        .collect();
    inventory::check_size(&file, architecture, 16, shards.iter().map(|s| s.source.length).sum())?;
    inventory::check_shapes(&file, &wanted, |name| places.get(name).map(|(_, t)| t.shape.clone()))?;
    let present: BTreeMap<&str, ()> = places.keys().map(|k| (k.as_str(), ())).collect();
    let [embedding_name, head_name] = table_names(architecture);
    for name in inventory::extra(&wanted, &present) {
        if name.ends_with("rotary_emb.inv_freq") {
            continue; // computed from theta by everyone who reads it
        }
        let (shard, tensor) = &places[name];
        let source = &mut shards[*shard].source;
        let unsupported = |reason: &str| Error::Unsupported {
            file: source.file.clone(),
            name: format!("tensor {name}"),
            reason: reason.into(),
        };
        if name != head_name {
            let reason = format!("a {} with this config has no such tensor", architecture.family);
            return Err(unsupported(&reason));
        }
        // The head is tied according to config.json, and stored as well.
        let reason = "tie_word_embeddings is true, but it is not the embedding";
        let differs = unsupported(reason);
        let (embedding_shard, embedding) = &places[&embedding_name];
        if tensor.dtype != embedding.dtype || tensor.shape != embedding.shape {
            return Err(differs);
        }
        let head: Vec<u8> = source.values(tensor.begin, (tensor.end - tensor.begin) as usize)?;
        let table: Vec<u8> = shards[*embedding_shard]
            .source
            .values(embedding.begin, (embedding.end - embedding.begin) as usize)?;
        if head != table {
            return Err(differs);
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, stored) in named {
        let (shard, info) = &places[&stored.name];
        let data = float_data(&mut shards[*shard].source, info)?;
        tensors.insert(name, Tensor { shape: stored.shape, data });
    }
    Ok(tensors)
}

/// Every tensor of the architecture: its name inside, and itself under the name that the folder has
/// for it.
fn named_specs(architecture: &Architecture) -> Vec<(String, TensorSpec)> {
    let family = family::of(architecture);
    let named = |spec: TensorSpec| {
        let stored = family.hugging_face_name(&spec);
        (spec.name.clone(), TensorSpec { name: stored, ..spec })
    };
    architecture.tensors().into_iter().map(named).collect()
}

/// What the folder calls the embedding and the head, were it not tied.
fn table_names(architecture: &Architecture) -> [String; 2] {
    let untied =
        named_specs(&architecture.resized(|sizes| (sizes.tied_head, sizes.layers) = (false, 1)));
    [Role::Embedding, Role::Head].map(|role| {
        let table = untied.iter().find(|(_, stored)| stored.role == role);
        table.map(|(_, stored)| stored.name.clone()).unwrap_or_default()
    })
}

/// The values of a float tensor, as they are stored.
pub(crate) fn float_data(source: &mut Source, info: &Info) -> Result<TensorData> {
    Ok(match info.dtype {
        Dtype::F32 => TensorData::F32(source.values(info.begin, info.elements())?),
        Dtype::F16 => {
            TensorData::F16(source.values::<u16>(info.begin, info.elements())?.reinterpret_into())
        }
        Dtype::BF16 => {
            TensorData::BF16(source.values::<u16>(info.begin, info.elements())?.reinterpret_into())
        }
        other => {
            let reason =
                format!("element type of tensor {:?}; weights are F32, F16 or BF16", info.name);
            return Err(Error::Unsupported {
                file: source.file.clone(),
                name: other.name().into(),
                reason,
            });
        }
    })
}

/// Every id has a row in the embedding.
pub(crate) fn check_vocabulary(
    tokenizer: &Tokenizer,
    architecture: &Architecture,
    file: &str,
) -> Result<()> {
    let tokens = tokenizer.vocabulary.tokens.len();
    if tokens > architecture.vocab_size {
        let reason =
            format!("{tokens} tokens, but the config has vocab_size {}", architecture.vocab_size);
        return Err(Error::Format { file: file.into(), offset: 0, reason });
    }
    Ok(())
}

/// The tokenizer with all end tokens of generation_config.json and config.json (there a number or a
/// list). If it names none itself, the first of them is the one that ends a text.
fn with_end_tokens<'f>(
    mut tokenizer: Tokenizer,
    sources: impl Iterator<Item = &'f (String, Vec<u8>)>,
) -> Result<Tokenizer> {
    let mut vocabulary = (*tokenizer.vocabulary).clone();
    let mut warnings = std::mem::take(&mut tokenizer.warnings);
    for (file, bytes) in sources {
        let value = json::typed::<EndToken>(file, bytes, 0)?.eos_token_id;
        let ids = if let Value::Array(list) = &value { list } else { std::slice::from_ref(&value) };
        for number in ids.iter().filter(|number| !number.is_null()) {
            let tokens = vocabulary.tokens.len() as u64;
            let Some(id) = number.as_u64().filter(|&id| id < tokens) else {
                let reason = format!("eos_token_id {number} is no token");
                if vocabulary.eos.is_some() {
                    warnings.push(format!("{file}: {reason}; left out"));
                    continue;
                }
                let offset = json::key_offset(bytes, "eos_token_id");
                return Err(Error::Format { file: file.clone(), offset, reason });
            };
            let id = id as u32;
            if vocabulary.eos.is_none() {
                vocabulary.eos = Some(id);
            } else if vocabulary.eos != Some(id) && !vocabulary.ends.contains(&id) {
                vocabulary.ends.push(id);
            }
        }
    }
    if vocabulary != *tokenizer.vocabulary {
        tokenizer = Tokenizer::new(vocabulary)?;
    }
    tokenizer.warnings = warnings;
    Ok(tokenizer)
}

#[derive(Deserialize)]
struct EndToken {
    #[serde(default)]
    eos_token_id: Value,
}

#[derive(Deserialize)]
struct TemplateHolder {
    #[serde(default)]
    chat_template: Value,
}

/// `chat_template` of a tokenizer_config.json: a string, or a list of named ones of which `default`
/// counts.
fn template_of(file: &str, bytes: &[u8]) -> Result<Option<String>> {
    let wrong = |reason: &str| Error::Format {
        file: file.into(),
        offset: json::key_offset(bytes, "chat_template"),
        reason: format!("chat_template: {reason}"),
    };
    let text = match json::typed::<TemplateHolder>(file, bytes, 0)?.chat_template {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        Value::Array(list) => {
            match list.iter().find(|t| t["name"] == "default").map(|t| &t["template"]) {
                None => return Ok(None),
                Some(Value::String(text)) => text.clone(),
                Some(_) => return Err(wrong("the default template is not a string")),
            }
        }
        _ => return Err(wrong("neither a string nor a list")),
    };
    if text.len() as u64 > MAX_TEMPLATE_BYTES {
        return Err(Error::Memory {
            file: file.into(),
            what: "chat_template".into(),
            bytes: text.len() as u64,
            cap: MAX_TEMPLATE_BYTES,
        });
    }
    Ok(Some(text))
}

/// Writes `model` as a folder: config.json, tokenizer.json with tokenizer_config.json,
/// generation_config.json, chat_template.jinja, model.safetensors with every tensor as it is
/// stored. A new folder appears whole or not at all; in one that exists each file is replaced
/// whole, config.json last. Errors: `Unsupported` for quantized tensors and low-rank factors,
/// `MissingTensor`, `Shape`, `Io`.
pub fn save(model: &Model, folder: &Path) -> Result<()> {
    let io = |source| Error::Io { path: folder.display().to_string(), source };
    let files = folder_files(model)?;
    let temporary = Temporary::folder(folder).map_err(io)?;
    // The caller knows the final folder, not the temporary one.
    let named = |name: &'static str| {
        move |error| match error {
            Error::Io { source, .. } => {
                Error::Io { path: folder.join(name).display().to_string(), source }
            }
            other => other,
        }
    };
    for (name, bytes) in &files {
        write::atomic(&temporary.path.join(name), |out| out.write_all(bytes))
            .map_err(named(name))?;
    }
    write::atomic(&temporary.path.join(WEIGHTS), |out| {
        write_weights(model, out).map_err(std::io::Error::other)
    })
    .map_err(named(WEIGHTS))?;
    if !folder.exists() {
        return temporary.rename_to(folder).map_err(io);
    }
    for name in std::iter::once(WEIGHTS).chain(files.iter().map(|(name, _)| *name)) {
        std::fs::rename(temporary.path.join(name), folder.join(name)).map_err(io)?;
    }
    write::sync_folder(&folder.join(WEIGHTS)).map_err(io)
}

fn write_weights(model: &Model, out: &mut dyn std::io::Write) -> Result<()> {
    let file = model.name.clone();
    model.refuse_low_rank(&file, "a Hugging Face folder")?;
    model.refuse_linear_parts(&file, "a Hugging Face folder cannot store it")?;
    model.architecture.check_family(&file)?;
    inventory::check_shapes(&file, &model.architecture.tensors(), |name| {
        model.tensors.get(name).map(|t| t.shape.clone())
    })?;
    let mut entries = vec![];
    for (name, stored) in named_specs(&model.architecture) {
        let entry =
            halfstep_file::float_entry(&stored.name, &stored.shape, &model.tensors[&name].data);
        entries.push(entry.ok_or_else(|| {
            Error::Unsupported {
                file: file.clone(),
                name: format!("tensor {name}"),
                reason:
                    "a Hugging Face folder is written from float tensors; quantized ones go to a \
                     GGUF or halfstep file"
                        .into(),
            }
        })?);
    }
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::write(entries, &metadata, out).map_err(|source| Error::Io { path: file, source })
}

/// The small files, config.json last: a folder without it is not yet a model.
fn folder_files(model: &Model) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let pretty = |pairs: BTreeMap<&str, Value>| {
        let map: serde_json::Map<String, Value> =
            pairs.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        format!("{:#}\n", Value::Object(map)).into_bytes()
    };
    let mut files = vec![];
    let Value::Object(config) = config::to_json(&model.architecture) else {
        unreachable!("a config is an object")
    };
    let mut config: BTreeMap<&str, Value> =
        config.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    if let Some(tokenizer) = &model.tokenizer {
        let v = &tokenizer.vocabulary;
        let ids = [("bos_token_id", v.bos), ("eos_token_id", v.eos), ("pad_token_id", v.padding)];
        let mut ids: BTreeMap<&str, Value> =
            ids.into_iter().filter_map(|(name, id)| Some((name, id?.into()))).collect();
        if !v.ends.is_empty() {
            let ends: Vec<u32> = v.eos.into_iter().chain(v.ends.iter().copied()).collect();
            ids.insert("eos_token_id", ends.into());
        }
        config.extend(ids.clone());
        files.push(("tokenizer.json", tokenizer.to_json().into_bytes()));
        files.push(("tokenizer_config.json", tokenizer.to_config_json(None).into_bytes()));
        files.push(("generation_config.json", pretty(ids)));
    }
    if let Some(template) = &model.chat_template {
        files.push(("chat_template.jinja", template.clone().into_bytes()));
    }
    files.push(("config.json", pretty(config)));
    Ok(files)
}
