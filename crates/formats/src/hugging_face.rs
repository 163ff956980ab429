//! A Hugging Face folder: config.json, tokenizer.json and model.safetensors or shards with an
//! index.

use crate::architecture::fields::Form;
use crate::architecture::storage::{self, Stored};
use crate::architecture::{Architecture, Role, TensorSpec};
use crate::bitnet_folder::{self, Ternary};
use crate::description::{Description, config_architecture, config_sizes};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::forms;
use crate::model::{Model, Tensor, TensorData};
use crate::pieces::joined;
use crate::safetensors::{self, Dtype, Info};
use crate::shards::{self, Shard, Shards, WEIGHTS};
use crate::source::Source;
use crate::tokenizer::{self, Tokenizer};
use crate::write::{self, Temporary};
use crate::{config, encoding, halfstep_file, inventory, json, mxfp4_folder};
use half::vec::HalfBitsVecExt;
use halfstep_kernels::Pool;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Most bytes that a tokenizer.json may have.
pub const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// Most bytes that a tokenizer_config.json (it may list every added token) or a
/// generation_config.json may have.
pub const MAX_SIDE_BYTES: u64 = 16 << 20;
/// Most values and keys in one of these.
const MAX_SIDE_VALUES: usize = 250_000;
/// Most bytes that a chat template may have.
pub const MAX_TEMPLATE_BYTES: u64 = 256 << 10;
/// Bytes of a stored head that are compared with the embedding at a time.
const COMPARED_BYTES: usize = 1 << 20;

/// Reads a folder. Errors: `Io` (no config.json, no weights), those of config.rs and
/// safetensors.rs, `MissingTensor`, `Shape`, `Unsupported` (a tensor that the architecture has no
/// place for, an element type that is no float, a folder of something else).
pub fn load(folder: Folder) -> Result<Model> {
    let small = read_small_files(folder)?;
    let mut shards = Shards::open(folder)?;
    let placed = place_tensors(&folder.label(), &small, &shards)?;
    let warnings = [small.warnings, shards.warnings.clone(), placed.warnings.clone()].concat();
    let file_bytes = small.bytes + shards.length();
    let mut tensors = read_tensors(&folder.label(), placed, &mut shards.files)?;
    if let Some(ternary) = small.ternary {
        ternary.round(&folder.label(), &mut tensors)?;
    }
    let (low_rank, provenance) = (BTreeMap::new(), BTreeMap::new());
    Ok(Model {
        name: folder.name(),
        architecture: small.architecture,
        tensors,
        low_rank,
        linear_parts: BTreeMap::new(),
        tokenizer: small.tokenizer,
        chat_template: small.chat_template,
        quantization: small.ternary.map(|_| bitnet_folder::quantization()),
        provenance,
        file_bytes,
        warnings,
        carried: BTreeMap::new(),
    })
}

/// Checks all of a folder that can be checked without reading a weight; returns the warnings, and
/// the bytes of experts.
fn check(folder: Folder) -> Result<(Vec<String>, u64)> {
    let small = read_small_files(folder)?;
    let shards = Shards::open(folder)?;
    let placed = place_tensors(&folder.label(), &small, &shards)?;
    let experts = placed.all.iter().filter(|stored| stored.is_of_experts());
    let bytes = experts.map(|stored| placed.bytes(&stored.name)).sum();
    Ok(([small.warnings, shards.warnings, placed.warnings].concat(), bytes))
}

/// Describes the model of a folder, whether [`load`] can read it or not; no weight is read.
/// Errors: no config.json or a damaged one.
pub fn describe(folder: Folder) -> Result<Description> {
    let (config_file, config_bytes) = folder
        .read("config.json", config::MAX_CONFIG_BYTES as u64)?
        .ok_or_else(|| shards::explain_absent(folder, "config.json"))?;
    let config = json::parse(&config_file, &config_bytes)?;
    let (tokenizer, has_chat_template, small_bytes) = describe_small_files(folder);
    let mut description = Description {
        name: folder.name(),
        format: "folder",
        architecture: config_architecture(&config),
        sizes: config_sizes(&config),
        tokenizer,
        has_chat_template,
        file_bytes: config_bytes.len() as u64 + small_bytes,
        ..Description::default()
    };
    if let Ok(shards) = Shards::open(folder) {
        description.count_all(shards.files.iter().flat_map(|shard| &shard.tensors));
        description.file_bytes += shards.length();
        description.warnings = shards.warnings;
    }
    let mut expert_bytes = 0;
    match check(folder) {
        Ok((warnings, bytes)) => (description.warnings, expert_bytes) = (warnings, bytes),
        Err(refusal) => description.refusal = Some(refusal),
    }
    if let Ok(architecture) = config::parse(&config_file, &config_bytes) {
        description.count_graph(&architecture, expert_bytes);
        description.sizes.tied_head = Some(is_tied(&architecture));
        let widths = architecture.layers.iter().map(|layer| layer.feed_forward.dense());
        if let Some(widths) = widths.collect::<Option<Vec<_>>>() {
            // Some configs give another number, of which the width is made.
            let widest = widths.into_iter().map(|dense| dense.intermediate_size).max();
            description.sizes.intermediate_size = widest;
        }
    }
    Ok(description)
}

/// The kind of the tokenizer, whether there is a chat template, and the bytes of their files. What
/// is wrong with one of them is the loader's to say.
fn describe_small_files(folder: Folder) -> (Option<String>, bool, u64) {
    let mut bytes = 0;
    let mut read = |name: &str, cap: u64| {
        let found = folder.read(name, cap).ok().flatten();
        bytes += found.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
        found
    };
    let tokenizer = read("tokenizer.json", MAX_TOKENIZER_BYTES)
        .and_then(|(file, bytes)| tokenizer_kind(&file, &bytes));
    let template = read("chat_template.jinja", MAX_TEMPLATE_BYTES).is_some();
    let config = read("tokenizer_config.json", MAX_SIDE_BYTES);
    read("generation_config.json", MAX_SIDE_BYTES);
    let in_config =
        || config.and_then(|(file, bytes)| template_of(&file, &bytes).ok().flatten()).is_some();
    let there = |name: &str| folder.open(name).is_ok_and(|file| file.is_some());
    let other = || match () {
        () if there("tokenizer.model") => Some("SentencePiece (tokenizer.model)".to_owned()),
        () if there("vocab.json") => Some("BPE (vocab.json, merges.txt)".to_owned()),
        () => None,
    };
    (tokenizer.or_else(other), template || in_config(), bytes)
}

/// The type of the model in a tokenizer.json: `BPE`, `Unigram`, ...
pub(crate) fn tokenizer_kind(file: &str, bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    #[derive(Deserialize)]
    struct Holder {
        model: Kind,
    }
    Some(json::typed::<Holder>(file, bytes, 0).ok()?.model.r#type)
}

/// What a folder holds besides its weights.
struct SmallFiles {
    architecture: Architecture,
    /// How linears of layers are stored, where they are ternary.
    ternary: Option<Ternary>,
    tokenizer: Option<Tokenizer>,
    chat_template: Option<String>,
    /// Bytes of the files.
    bytes: u64,
    warnings: Vec<String>,
}

fn read_small_files(folder: Folder) -> Result<SmallFiles> {
    let mut file_bytes = 0;
    let mut read = |name: &str, cap: u64| -> Result<Option<(String, Vec<u8>)>> {
        let found = folder.read(name, cap)?;
        file_bytes += found.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
        Ok(found)
    };
    let config = read("config.json", config::MAX_CONFIG_BYTES as u64)?
        .ok_or_else(|| shards::explain_absent(folder, "config.json"))?;
    let (config_file, config_bytes) = &config;
    shards::refuse_quantization_config(config_file, config_bytes)?;
    let architecture = config::parse(config_file, config_bytes)?;
    architecture.check_numbers(config_file)?;
    let ternary = Ternary::of_config(config_file, config_bytes)?;
    let tokenizer_config = read("tokenizer_config.json", MAX_SIDE_BYTES)?;
    let generation = read("generation_config.json", MAX_SIDE_BYTES)?;
    let template = read("chat_template.jinja", MAX_TEMPLATE_BYTES)?;
    let special = read("special_tokens_map.json", MAX_SIDE_BYTES)?;
    for (file, bytes) in [&tokenizer_config, &generation, &special].into_iter().flatten() {
        json::check_count(file, bytes, MAX_SIDE_VALUES)?;
    }
    let side = tokenizer_side(&config, tokenizer_config.as_ref(), special.as_ref())?;
    let side = side.as_deref();
    let mut warnings = vec![];
    let tokenizer = match read_tokenizer(&mut read, side)? {
        None => {
            warnings.push("the folder has no tokenizer, and what is made of it has none".into());
            None
        }
        Some((file, tokenizer)) => {
            check_vocabulary(&tokenizer, &architecture, &file)?;
            let sources = generation.iter().chain([&config]);
            let tokenizer = with_end_tokens(tokenizer, sources)?;
            warnings.extend(tokenizer.warnings.iter().cloned());
            Some(tokenizer)
        }
    };
    let chat_template = match template {
        Some((file, bytes)) => Some(encoding::text(bytes).map_err(|e| Error::Format {
            file,
            offset: e.offset as u64,
            reason: e.reason,
        })?),
        None => tokenizer_config
            .as_ref()
            .map(|(file, bytes)| template_of(file, bytes))
            .transpose()?
            .flatten(),
    };
    Ok(SmallFiles { architecture, ternary, tokenizer, chat_template, bytes: file_bytes, warnings })
}

/// A file's name for errors, and its contents.
type NamedBytes = (String, Vec<u8>);

/// A tokenizer_config.json with what it leaves out: tokens that special_tokens_map.json gives a role,
/// and the class of the tokenizer, which config.json names or implies.
fn tokenizer_side(
    (config_file, config): &NamedBytes,
    own: Option<&NamedBytes>,
    special: Option<&NamedBytes>,
) -> Result<Option<Vec<u8>>> {
    const CLASS: &str = "tokenizer_class";
    let object =
        |(file, bytes): &NamedBytes| json::typed::<BTreeMap<String, Value>>(file, bytes, 0);
    let mut side = own.map(object).transpose()?.unwrap_or_default();
    let count = side.len();
    let absent =
        |side: &BTreeMap<String, Value>, key: &str| side.get(key).is_none_or(Value::is_null);
    for (key, token) in special.map(object).transpose()?.unwrap_or_default() {
        if key.ends_with("_token") && absent(&side, &key) {
            side.insert(key, token);
        }
    }
    if absent(&side, CLASS) {
        #[derive(Deserialize)]
        struct About {
            #[serde(default)]
            tokenizer_class: Value,
            #[serde(default)]
            model_type: Value,
        }
        let about = json::typed::<About>(config_file, config, 0)?;
        let implied = about.model_type.as_str().and_then(tokenizer::class_of_model);
        if let Some(class) = about.tokenizer_class.as_str().or(implied) {
            side.insert(CLASS.into(), class.into());
        }
    }
    if side.len() == count {
        return Ok(own.map(|(_, bytes)| bytes.clone()));
    }
    Ok(serde_json::to_vec(&side).ok())
}

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
            offset: None,
        }),
    }
}

/// How a tensor is stored that is no plain tensor of floats.
#[derive(Clone, Copy)]
enum Coded {
    /// MXFP4 blocks and their scales.
    Mxfp4,
    /// Ternary codes and a scale.
    Ternary(Ternary),
}

/// Where every tensor of the architecture is stored, all of them checked.
struct Placed {
    /// What the folder's tensors hold.
    all: Vec<Stored>,
    places: BTreeMap<String, (usize, Info)>,
    /// Names of the tensors that are stored as codes, and of which kind.
    coded: BTreeMap<String, Coded>,
    /// Names of a head that is tied and stored as well, and of the table that it must equal.
    stored_head: Option<[String; 2]>,
    warnings: Vec<String>,
}

impl Placed {
    /// Bytes of a tensor, or of the blocks and scales that it is stored as.
    fn bytes(&self, name: &str) -> u64 {
        let parts = mxfp4_folder::names(name);
        let own = [name].into_iter().chain(parts.iter().map(String::as_str));
        let infos = own.filter_map(|name| self.places.get(name));
        infos.map(|(_, info)| info.end - info.begin).sum()
    }
}

/// Every tensor of the architecture is there in its shape, and no other: as floats, but for those
/// that its family has in another form.
fn place_tensors(file: &str, small: &SmallFiles, shards: &Shards) -> Result<Placed> {
    let architecture = &small.architecture;
    let mut all = storage::stored(architecture, Form::HuggingFace);
    let mut warnings = vec![];
    let places = shards.places();
    let [embedding_name, head_name] = table_names(architecture);
    if !places.contains_key(&embedding_name)
        && places.contains_key(&head_name)
        && is_tied(architecture)
    {
        for stored in all.iter_mut().filter(|stored| stored.name == embedding_name) {
            stored.name.clone_from(&head_name);
        }
        warnings.push(format!(
            "{file}: {embedding_name} is not stored; the head, which is tied to it, is read as both"
        ));
    }
    let mut coded = BTreeMap::new();
    let mut idle: BTreeSet<String> =
        storage::unread(architecture, Form::HuggingFace).into_iter().collect();
    for stored in &mut all {
        if mxfp4_folder::find(file, stored, &places)? {
            coded.insert(stored.name.clone(), Coded::Mxfp4);
            idle.extend(mxfp4_folder::names(&stored.name));
        }
        if let Some(ternary) = small.ternary
            && ternary.finds(file, stored, &places)?
        {
            coded.insert(stored.name.clone(), Coded::Ternary(ternary));
            idle.extend([stored.name.clone(), bitnet_folder::scale_name(&stored.name)]);
        }
    }
    let floats = all.iter().filter(|stored| !coded.contains_key(&stored.name));
    let wanted: Vec<TensorSpec> = floats.map(of_file).collect();
    let names: BTreeSet<&str> = wanted.iter().map(|spec| spec.name.as_str()).collect();
    shards.refuse_quantized(|name| names.contains(name))?;
    inventory::check_shapes(file, &wanted, |name| places.get(name).map(|(_, t)| t.shape.clone()))?;
    let present: BTreeMap<&str, ()> = places.keys().map(|k| (k.as_str(), ())).collect();
    let mut stored_head = None;
    for name in inventory::extra(&wanted, &present) {
        // Frequencies are computed from theta by everyone who reads them.
        if name.ends_with("rotary_emb.inv_freq") || idle.contains(name) {
            continue;
        }
        if name != head_name {
            let reason = format!("a {} with this config has no such tensor", architecture.family);
            let file = shards.files[places[name].0].source.file.clone();
            return Err(Error::Unsupported {
                file,
                name: format!("tensor {name}"),
                reason,
                offset: None,
            });
        }
        stored_head = Some([head_name.clone(), embedding_name.clone()]);
    }
    Ok(Placed { all, places, coded, stored_head, warnings })
}

fn is_tied(architecture: &Architecture) -> bool {
    architecture.tensors().iter().all(|spec| spec.role != Role::Head)
}

fn read_tensors(
    file: &str,
    placed: Placed,
    shards: &mut [Shard],
) -> Result<BTreeMap<String, Tensor>> {
    let Placed { all, places, coded, stored_head, .. } = placed;
    if let Some(tables) = stored_head {
        let tables = tables.map(|name| places[&name].clone());
        check_stored_head(shards, &tables)?;
    }
    let mut tensors = BTreeMap::new();
    for stored in all {
        let mut bytes = |name: &str| {
            let (shard, info) = &places[name];
            shards[*shard].source.values::<u8>(info.begin, info.elements())
        };
        let data = match coded.get(&stored.name) {
            Some(Coded::Mxfp4) => {
                let [blocks, scales] = mxfp4_folder::names(&stored.name);
                mxfp4_folder::joined(&bytes(&blocks)?, &bytes(&scales)?)
            }
            Some(Coded::Ternary(ternary)) => {
                let codes = bytes(&stored.name)?;
                let (shard, info) = &places[&bitnet_folder::scale_name(&stored.name)];
                let data = float_data(&mut shards[*shard].source, info)?;
                let scale = Tensor { shape: vec![1], data }.to_f32(&Pool::serial())[0];
                ternary.joined(&stored, file, &codes, scale)?
            }
            None => {
                let (shard, info) = &places[&stored.name];
                float_data(&mut shards[*shard].source, info)?
            }
        };
        stored.take(file, data, &mut tensors)?;
    }
    Ok(tensors)
}

/// A head that is tied according to config.json and stored as well is the embedding.
fn check_stored_head(shards: &mut [Shard], tables: &[(usize, Info); 2]) -> Result<()> {
    let [(head_shard, head), (_, embedding)] = tables;
    let differs = Error::Unsupported {
        file: shards[*head_shard].source.file.clone(),
        name: format!("tensor {}", head.name),
        reason: "tie_word_embeddings is true, but it is not the embedding".into(),
        offset: None,
    };
    if head.dtype != embedding.dtype || head.shape != embedding.shape {
        return Err(differs);
    }
    let length = head.end - head.begin;
    for at in (0..length).step_by(COMPARED_BYTES) {
        let count = (length - at).min(COMPARED_BYTES as u64) as usize;
        let mut part =
            |(shard, info): &(usize, Info)| shards[*shard].source.part(info.begin + at, count);
        if part(&tables[0])? != part(&tables[1])? {
            return Err(differs);
        }
    }
    Ok(())
}

/// A tensor of the folder, for the inventory.
fn of_file(stored: &Stored) -> TensorSpec {
    let first = &stored.pieces[0].tensor;
    TensorSpec { name: stored.name.clone(), shape: stored.shape.clone(), ..first.clone() }
}

/// What the folder calls the embedding and the head, were it not tied.
fn table_names(architecture: &Architecture) -> [String; 2] {
    let untied = architecture.resized(|sizes| (sizes.tied_head, sizes.layers) = (false, 1));
    let all = storage::stored(&untied, Form::HuggingFace);
    [Role::Embedding, Role::Head].map(|role| {
        let table = all.iter().find(|stored| stored.pieces[0].tensor.role == role);
        table.map(|stored| stored.name.clone()).unwrap_or_default()
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
        other => return Err(shards::not_float(&source.file, &info.name, other)),
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
/// list). If it names none itself, the first of them is the one that ends a text. Ids of other roles
/// that no token has are warned of.
fn with_end_tokens<'f>(
    mut tokenizer: Tokenizer,
    sources: impl Iterator<Item = &'f (String, Vec<u8>)>,
) -> Result<Tokenizer> {
    let mut vocabulary = (*tokenizer.vocabulary).clone();
    let mut warnings = std::mem::take(&mut tokenizer.warnings);
    let tokens = vocabulary.tokens.len() as u64;
    let token = |number: &Value| number.as_u64().filter(|&id| id < tokens).map(|id| id as u32);
    for (file, bytes) in sources {
        let roles = json::typed::<RoleIds>(file, bytes, 0)?;
        for (key, value) in [("bos_token_id", &roles.bos), ("pad_token_id", &roles.pad)] {
            for number in ids(value).iter().filter(|number| token(number).is_none()) {
                warnings.push(format!("{file}: {key} {number} is no token; left out"));
            }
        }
        let of_text = || roles.text_config.get("eos_token_id").unwrap_or(&Value::Null);
        let ends = if roles.eos.is_null() { of_text() } else { &roles.eos };
        for number in ids(ends) {
            let Some(id) = token(number) else {
                let reason = format!("eos_token_id {number} is no token");
                // People write -1 for "none".
                if vocabulary.eos.is_some() || number.as_i64() == Some(-1) {
                    warnings.push(format!("{file}: {reason}; left out"));
                    continue;
                }
                let offset = json::key_offset(bytes, "eos_token_id");
                return Err(Error::Format { file: file.clone(), offset, reason });
            };
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

/// The ids of a role: a number, a list, or null for none.
fn ids(value: &Value) -> &[Value] {
    match value {
        Value::Array(list) => list,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}

/// Roles in a config.json or generation_config.json. Wrappers have those of their text model inside.
#[derive(Deserialize)]
struct RoleIds {
    #[serde(default, rename = "bos_token_id")]
    bos: Value,
    #[serde(default, rename = "eos_token_id")]
    eos: Value,
    #[serde(default, rename = "pad_token_id")]
    pad: Value,
    #[serde(default)]
    text_config: Value,
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
    if !config::has_spelling(&model.architecture) {
        return Err(Error::Unsupported {
            file,
            name: "rope_freqs".into(),
            reason: "factors of rotary frequencies have no place in a Hugging Face folder".into(),
            offset: None,
        });
    }
    let held = model.architecture.in_form(Form::HuggingFace);
    let mut made = vec![];
    for stored in storage::stored(&model.architecture, Form::HuggingFace) {
        let of = |piece: &storage::Piece| {
            let tensor = &model.tensors[&piece.tensor.name];
            forms::in_file(&file, tensor, piece, [&model.architecture, &held])
        };
        let tensors = stored.pieces.iter().map(of).collect::<Result<Vec<_>>>()?;
        let data = joined(&stored, &tensors).ok_or_else(|| Error::Unsupported {
            file: file.clone(),
            name: format!("tensor {}", stored.pieces[0].tensor.name),
            reason: "a Hugging Face folder is written from float tensors; quantized ones go to a \
                     GGUF or halfstep file"
                .into(),
            offset: None,
        })?;
        made.push((stored, data));
    }
    let mut entries = vec![];
    for (stored, data) in &made {
        entries.extend(halfstep_file::float_entry(&stored.name, &stored.shape, data));
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
    let held = model.architecture.in_form(Form::HuggingFace);
    let Value::Object(config) = config::to_json(&held)? else {
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
