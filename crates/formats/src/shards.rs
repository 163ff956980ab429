//! The weight files of a Hugging Face folder: one file, or several by an index or by their numbered
//! names, with their checked headers. No value is read here.

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::json;
use crate::numbered::Numbered;
use crate::safetensors::{self, Dtype, Info};
use crate::source::Source;
use crate::tensor_names::{Place, place};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Most files that the weights may be split over.
pub const MAX_SHARDS: usize = 1024;
/// The usual name of a single file of weights.
pub const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ENDING: &str = ".safetensors";
const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Most bytes of an adapter_config.json.
const MAX_ADAPTER_BYTES: u64 = 1 << 20;

/// Names of weights in formats that are not read, or what they end with, and what would work.
const OTHER_WEIGHTS: &[(&str, &str)] = &[
    (".bin", PICKLES),
    (".pth", PICKLES),
    (".pt", PICKLES),
    (".ckpt", PICKLES),
    (".bin.index.json", PICKLES),
    (".gguf", "load it by its own path, not by its folder"),
    (".msgpack", "it holds Flax weights: save them as safetensors from PyTorch"),
    (".h5", "it holds TensorFlow weights: save them as safetensors from PyTorch"),
    (".onnx", "it holds an ONNX graph: download the safetensors of the model"),
    (".npz", "it holds NumPy arrays: download the safetensors of the model"),
];
const PICKLES: &str = "a pickle is a program and is never run here: save the weights as \
    safetensors (in transformers `model.save_pretrained(folder)`), or download those of the model";

/// What names of tensors end with that other quantizers make.
const OTHER_QUANTIZERS: &[(&str, &str)] = &[
    (".qweight", "GPTQ or AWQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".SCB", "bitsandbytes (int8)"),
    (".absmax", "bitsandbytes (4 bits)"),
    (".quant_state.bitsandbytes__nf4", "bitsandbytes (nf4)"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes (fp4)"),
    (".weight_scale_inv", "FP8"),
    (".weight_packed", "compressed-tensors"),
];
/// What to do about the weights of another quantizer.
const FLOAT_MODEL: &str =
    "load the float model that they were made from (BF16, F16 or F32), or a GGUF file";

/// A weight file and the tensors that are read from it, under the names of a text model.
pub struct Shard<'a> {
    pub source: Source<'a>,
    pub tensors: Vec<Info>,
}

/// All weight files of a folder.
pub struct Shards<'a> {
    pub files: Vec<Shard<'a>>,
    /// What was left out, for people.
    pub warnings: Vec<String>,
}

impl<'a> Shards<'a> {
    /// Opens the weight files. Under an index, each keeps only the tensors that the index places
    /// there. Errors: `Io` (no weights), `Unsupported` (weights in another format), `Format`.
    pub fn open(folder: Folder<'a>) -> Result<Self> {
        let mut files = open_all(folder)?;
        let warnings = set_names_right(folder, &mut files)?;
        Ok(Self { files, warnings })
    }

    /// Bytes of all files.
    pub fn length(&self) -> u64 {
        self.files.iter().map(|shard| shard.source.length).sum()
    }

    /// Every tensor by name, with the file that holds it.
    pub fn places(&self) -> BTreeMap<String, (usize, Info)> {
        let of = |(i, shard): (usize, &Shard)| {
            shard.tensors.iter().map(move |t| (t.name.clone(), (i, t.clone()))).collect::<Vec<_>>()
        };
        self.files.iter().enumerate().flat_map(of).collect()
    }

    /// Refuses weights that another quantizer made, by its name or by their element type.
    /// `is_weight` says which tensors the architecture has.
    pub fn refuse_quantized(&self, is_weight: impl Fn(&str) -> bool) -> Result<()> {
        for Shard { source, tensors } in &self.files {
            for Info { name, dtype, .. } in tensors {
                let made_by = OTHER_QUANTIZERS.iter().find(|(end, _)| name.ends_with(end));
                if let Some((_, quantizer)) = made_by {
                    return Err(Error::Unsupported {
                        file: source.file.clone(),
                        name: format!("weights quantized by {quantizer}"),
                        reason: format!("tensor {name:?} is part of one; {FLOAT_MODEL}"),
                        offset: None,
                    });
                }
                if is_weight(name) && !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                    return Err(not_float(&source.file, name, *dtype));
                }
            }
        }
        Ok(())
    }
}

/// A weight whose elements are no floats of a kind that is read.
pub fn not_float(file: &str, tensor: &str, dtype: Dtype) -> Error {
    let reason =
        format!("element type of tensor {tensor:?}; weights are F32, F16 or BF16: {FLOAT_MODEL}");
    Error::Unsupported { file: file.into(), name: dtype.name().into(), reason, offset: None }
}

/// A file that a folder must have.
pub fn absent(folder: Folder, name: &str) -> Error {
    Error::Io {
        path: folder.file_label(name),
        source: std::io::Error::new(
            std::io::ErrorKind::NotFound,
            "a Hugging Face folder must have it",
        ),
    }
}

/// Why the file `name` is not there, as far as the other files of the folder tell.
pub fn explain_absent(folder: Folder, name: &str) -> Error {
    explained(folder, name).unwrap_or_else(|error| error)
}

fn explained(folder: Folder, name: &str) -> Result<Error> {
    let unsupported = |file: &str, name: String, reason: String| Error::Unsupported {
        file: folder.file_label(file),
        name,
        reason,
        offset: None,
    };
    if let Some((_, bytes)) = folder.read(ADAPTER_CONFIG, MAX_ADAPTER_BYTES)? {
        #[derive(Deserialize)]
        struct Adapter {
            #[serde(default)]
            base_model_name_or_path: Value,
            #[serde(default)]
            peft_type: Value,
        }
        let about = json::typed::<Adapter>(&folder.file_label(ADAPTER_CONFIG), &bytes, 0)?;
        let kind = about.peft_type.as_str().unwrap_or("PEFT").to_owned();
        let base = about.base_model_name_or_path.as_str().unwrap_or("its base model").to_owned();
        return Ok(unsupported(
            ADAPTER_CONFIG,
            format!("an adapter ({kind})"),
            adapter_reason(&base),
        ));
    }
    let names = folder.names()?;
    if let Some(file) = names.iter().find(|file| file.starts_with("adapter_model.")) {
        return Ok(unsupported(file, "an adapter".into(), adapter_reason("its base model")));
    }
    let other = names.iter().find_map(|file| {
        let (_, reason) = OTHER_WEIGHTS.iter().find(|(end, _)| file.ends_with(end))?;
        Some((file, *reason))
    });
    Ok(match other {
        Some((file, reason)) => {
            let name = format!("a folder with this file and without {name}");
            unsupported(file, name, reason.into())
        }
        None => absent(folder, name),
    })
}

/// Why an adapter is no model, and what to do with it.
pub fn adapter_reason(base: &str) -> String {
    format!(
        "it holds only what is added to {base}: merge it (in peft `merge_and_unload()`, then \
         `save_pretrained`) and load the merged folder"
    )
}

/// A method of `quantization_config` whose weights are not floats, refused by its name. Those that
/// a family reads pass.
pub fn refuse_quantization_config(file: &str, config: &[u8]) -> Result<()> {
    /// Methods that are part of a family: its own file decides.
    const OF_FAMILIES: [&str; 2] = ["bitnet", "mxfp4"];
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        quantization_config: Value,
    }
    let config = json::typed::<Config>(file, config, 0)?.quantization_config;
    let method = config.get("quant_method").and_then(Value::as_str);
    match method.filter(|method| !OF_FAMILIES.contains(method)) {
        Some(method) => Err(Error::Unsupported {
            file: file.into(),
            name: format!("quantization_config {method:?}"),
            reason: format!("the weights were quantized by {method}; {FLOAT_MODEL}"),
            offset: None,
        }),
        None => Ok(()),
    }
}

fn open_all<'a>(folder: Folder<'a>) -> Result<Vec<Shard<'a>>> {
    if let Some((_, source)) = folder.open(WEIGHTS)? {
        return Ok(vec![shard(source)?]);
    }
    match folder.read(INDEX, safetensors::MAX_HEADER_BYTES)? {
        Some((file, bytes)) => open_indexed(folder, &file, &bytes),
        None => open_unindexed(folder),
    }
}

fn shard(mut source: Source) -> Result<Shard> {
    let tensors = safetensors::read_header(&mut source)?.tensors;
    Ok(Shard { source, tensors })
}

#[derive(Deserialize)]
struct Index {
    weight_map: safetensors::Strings,
}

fn open_indexed<'a>(
    folder: Folder<'a>,
    index_file: &str,
    index_bytes: &[u8],
) -> Result<Vec<Shard<'a>>> {
    let map = json::typed::<Index>(index_file, index_bytes, 0)?.weight_map.0;
    let wrong = |key: &str, reason: String| Error::Format {
        file: index_file.to_owned(),
        offset: json::key_offset(index_bytes, key),
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

/// The one file of weights, whatever its name, or every one of a numbered row of them.
fn open_unindexed<'a>(folder: Folder<'a>) -> Result<Vec<Shard<'a>>> {
    let is_weights = |name: &String| name.ends_with(ENDING) && !name.starts_with("adapter_");
    let mut names: Vec<String> = folder.names()?.into_iter().filter(is_weights).collect();
    let Some(first) = names.first().cloned() else {
        return Err(explain_absent(folder, WEIGHTS));
    };
    if let Some(row) = Numbered::parse(&first, ENDING).filter(|row| row.count <= MAX_SHARDS) {
        names = (1..=row.count).map(|number| row.name(number)).collect();
    } else if names.len() > 1 {
        return Err(Error::Unsupported {
            file: folder.label(),
            name: format!("{} files of weights without {INDEX}", names.len()),
            reason: format!("add the index, or keep one of {} as {WEIGHTS}", names.join(", ")),
            offset: None,
        });
    }
    let open = |name: &String| {
        let (_, source) = folder.open(name)?.ok_or_else(|| absent(folder, name))?;
        shard(source)
    };
    names.iter().map(open).collect()
}

/// Gives every tensor the name that the text model has for it, and leaves out those of other parts.
/// Returns what was left out.
fn set_names_right(folder: Folder, files: &mut [Shard]) -> Result<Vec<String>> {
    let (mut seen, mut parts) = (BTreeMap::new(), BTreeSet::new());
    let (mut count, mut bytes) = (0, 0);
    for Shard { source, tensors } in files {
        let mut kept = Vec::with_capacity(tensors.len());
        for info in tensors.drain(..) {
            let name = match place(&info.name) {
                Place::Text(name) => name,
                Place::Outside(part) => {
                    parts.insert(part);
                    (count, bytes) = (count + 1, bytes + (info.end - info.begin));
                    continue;
                }
            };
            if let Some(other) = seen.insert(name.clone(), info.name.clone()) {
                return Err(Error::Format {
                    file: source.file.clone(),
                    offset: info.begin,
                    reason: format!("tensors {other:?} and {:?} are both {name:?}", info.name),
                });
            }
            kept.push(Info { name, ..info });
        }
        *tensors = kept;
    }
    let parts: Vec<String> = parts.into_iter().collect();
    let warning = format!(
        "{}: {count} tensors ({bytes} bytes) of {} are left out: only the text model is read",
        folder.label(),
        parts.join(", ")
    );
    Ok((count > 0).then_some(warning).into_iter().collect())
}
