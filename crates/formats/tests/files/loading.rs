//! What people have on disk: split files, wrapped names, folders with one oddly named file, and
//! things that are no model. Each loads, or is refused in words that name it and what would work.

use crate::any_model::*;
use crate::raw_gguf::{self, Raw};
use halfstep_formats::load::{load, load_bytes, load_files};
use halfstep_formats::safetensors::{self, Dtype, Entry};
use halfstep_formats::write::{FileFormat, save_hugging_face, to_bytes};
use halfstep_formats::{Error, Model};
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor of a safetensors file.
#[derive(Clone)]
struct Weight {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

fn weights(bytes: &[u8]) -> Vec<Weight> {
    let header = safetensors::read("sound", bytes).expect("sound");
    let one = |info: &safetensors::Info| Weight {
        name: info.name.clone(),
        dtype: info.dtype,
        shape: info.shape.clone(),
        data: bytes[info.begin as usize..info.end as usize].to_vec(),
    };
    header.tensors.iter().map(one).collect()
}

fn file(weights: &[Weight]) -> Vec<u8> {
    let entries = weights.iter().map(|w| Entry {
        name: w.name.clone(),
        dtype: w.dtype,
        shape: w.shape.clone(),
        data: w.data.as_slice().into(),
    });
    let mut out = vec![];
    safetensors::write(entries.collect(), &BTreeMap::new(), &mut out).expect("written");
    out
}

/// A folder with a sound model of one dtype for each role, its head tied or not.
fn folder(name: &str, tied: bool) -> (Folder, Model) {
    let model = model(tied, Stored::F32, Stored::BF16, Stored::F16, None, 5);
    let folder = Folder::new(name);
    save_hugging_face(&model, &folder.0).expect("saved");
    (folder, model)
}

/// Changes the tensors of the folder's file.
fn change(folder: &Folder, change: impl FnOnce(&mut Vec<Weight>)) {
    let path = folder.join(WEIGHTS);
    let mut all = weights(&std::fs::read(&path).expect("is there"));
    change(&mut all);
    std::fs::write(path, file(&all)).expect("written");
}

fn set_config(folder: &Folder, key: &str, value: serde_json::Value) {
    let text = std::fs::read_to_string(folder.join("config.json")).expect("is there");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config[key] = value;
    folder.put("config.json", config.to_string());
}

fn remove(folder: &Folder, name: &str) {
    std::fs::remove_file(folder.join(name)).expect("removed");
}

const WEIGHTS: &str = "model.safetensors";

/// The error of a refused model, which must say all of `words`.
#[track_caller]
fn refused(path: &Path, code: &str, words: &[&str]) -> Error {
    let error = load(path).expect_err("refused");
    let text = error.to_string();
    assert_eq!(error.code(), code, "{text}");
    for word in words {
        assert!(text.contains(word), "{text} has no {word:?}");
    }
    error
}

/// The first `tensors` of a file and the rest, as two files of one model.
fn split(whole: &[u8], tensors: usize) -> [Vec<u8>; 2] {
    let raw = Raw::parse(whole);
    let middle = raw.tensors[tensors].offset;
    let (mut first, mut second) = (raw.clone(), raw.clone());
    first.tensors.truncate(tensors);
    first.data.truncate(middle as usize);
    second.entries.clear();
    second.tensors.drain(..tensors);
    second.tensors.iter_mut().for_each(|tensor| tensor.offset -= middle);
    second.data.drain(..middle as usize);
    for (number, part) in [&mut first, &mut second].into_iter().enumerate() {
        part.set("split.no", 2, (number as u16).to_le_bytes());
        part.set("split.count", 2, 2u16.to_le_bytes());
        part.set("split.tensors.count", raw_gguf::I32, (raw.tensors.len() as i32).to_le_bytes());
    }
    [first.to_bytes(), second.to_bytes()]
}

const FIRST: &str = "small-00001-of-00002.gguf";
const SECOND: &str = "small-00002-of-00002.gguf";

#[test]
fn a_split_gguf_is_one_model_by_the_name_of_its_first_file() {
    let folder = Folder::new("split");
    let whole = to_bytes(&float_model(), FileFormat::Gguf).expect("written");
    let want = load_bytes("small.gguf", &whole).expect("sound");
    for tensors in [1, 7, want.tensors.len() - 1] {
        let [first, second] = split(&whole, tensors);
        let (length, path) = (first.len() + second.len(), folder.put(FIRST, first));
        folder.put(SECOND, second);
        let got = load(&path).expect("loads");
        assert_same(&got, &want);
        assert_eq!(got.file_bytes, length as u64);
        assert_eq!(got.warnings, [] as [String; 0]);
    }
}

#[test]
fn a_split_gguf_without_a_name_is_called_without_its_number() {
    let folder = Folder::new("split-name");
    let mut raw = Raw::parse(&to_bytes(&float_model(), FileFormat::Gguf).expect("written"));
    raw.remove("general.name");
    let [first, second] = split(&raw.to_bytes(), 3);
    folder.put(SECOND, second);
    assert_eq!(load(&folder.put(FIRST, first)).expect("loads").name, "small");
}

#[test]
fn a_part_of_a_split_gguf_says_which_file_to_name() {
    let folder = Folder::new("split-refused");
    let whole = to_bytes(&float_model(), FileFormat::Gguf).expect("written");
    let [first, second] = split(&whole, 5);
    let path = folder.put(FIRST, &first);
    refused(&path, "ERR_IO", &[SECOND, "part 2 of the 2", FIRST]);
    let path = folder.put(SECOND, &second);
    refused(&path, "ERR_UNSUPPORTED", &["split.count", "part 2", FIRST, "--merge"]);
    // Another name: the others cannot be found.
    let path = folder.put("renamed.gguf", &first);
    refused(&path, "ERR_UNSUPPORTED", &["split.count", "-00001-of-00002.gguf", "--merge"]);
    let error = load_bytes(FIRST, &first).expect_err("one of two in memory");
    assert!(error.to_string().contains("llama-gguf-split --merge"), "{error}");
}

#[test]
fn parts_of_a_split_gguf_that_do_not_belong_together_are_refused() {
    let folder = Folder::new("split-mixed");
    let whole = to_bytes(&float_model(), FileFormat::Gguf).expect("written");
    let [first, second] = split(&whole, 5);
    let path = folder.put(FIRST, &first);
    folder.put(SECOND, &first);
    refused(&path, "ERR_FORMAT", &[SECOND, "split.no", "expected part 2 of 2"]);
    folder.put(SECOND, &whole);
    refused(&path, "ERR_FORMAT", &[SECOND, "no part of a split model"]);
    let [_, shorter] = split(&whole, 6);
    folder.put(SECOND, shorter);
    refused(&path, "ERR_FORMAT", &[FIRST, "split.tensors.count"]);
    let [longer, _] = split(&whole, 6);
    folder.put(FIRST, longer);
    folder.put(SECOND, &second);
    refused(&path, "ERR_FORMAT", &[SECOND, "in an earlier part too"]);
}

#[test]
fn bytes_after_the_last_tensor_of_a_gguf_are_left_out_with_a_warning() {
    let mut whole = to_bytes(&float_model(), FileFormat::Gguf).expect("written");
    let want = load_bytes("small", &whole).expect("sound");
    assert_eq!(want.warnings, [] as [String; 0]);
    whole.extend([7; 123]);
    let got = load_bytes("small", &whole).expect("loads");
    assert_same(&got, &want);
    assert!(got.warnings.len() == 1 && got.warnings[0].contains("123 bytes"), "{:?}", got.warnings);
}

#[test]
fn key_value_heads_may_be_given_for_every_layer() {
    let whole = to_bytes(&float_model(), FileFormat::Gguf).expect("written");
    let mut raw = Raw::parse(&whole);
    let heads: Vec<u8> = [2u32, 2].iter().flat_map(|n| n.to_le_bytes()).collect();
    let array = raw_gguf::array(raw_gguf::U32, 2, &heads);
    raw.set("llama.attention.head_count_kv", raw_gguf::ARRAY, array);
    let got = load_bytes("small", &raw.to_bytes()).expect("loads");
    assert_eq!(got.architecture, float_model().architecture);
}

#[test]
fn a_missing_head_is_named_and_a_tied_table_is_found_under_either_name() {
    let (untied, _) = folder("no-head", false);
    change(&untied, |all| all.retain(|w| w.name != "lm_head.weight"));
    refused(&untied.0, "ERR_MISSING_TENSOR", &["lm_head.weight", "no-head"]);
    let (tied, want) = folder("head-only", true);
    change(&tied, |all| {
        let table = all.iter_mut().find(|w| w.name == "model.embed_tokens.weight");
        table.expect("is there").name = "lm_head.weight".into();
    });
    let got = load(&tied.0).expect("loads");
    assert_same_content(&got, &want);
    let warning = &got.warnings[..];
    assert!(warning.len() == 1 && warning[0].contains("model.embed_tokens.weight"), "{warning:?}");
}

#[test]
fn a_git_lfs_pointer_is_called_one_wherever_it_is() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 139834\n";
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS] {
        let (folder, _) = folder("lfs", true);
        folder.put(name, pointer);
        refused(&folder.0, "ERR_UNSUPPORTED", &[name, "Git LFS pointer", "git lfs pull"]);
    }
    let folder = Folder::new("lfs-file");
    let path = folder.put("model.gguf", pointer);
    refused(&path, "ERR_UNSUPPORTED", &["model.gguf", "Git LFS pointer"]);
    let (folder, _) = folder_of_shards("lfs-shard");
    folder.put("model-00002-of-00002.safetensors", pointer);
    refused(&folder.0, "ERR_UNSUPPORTED", &["model-00002-of-00002.safetensors", "Git LFS"]);
}

#[test]
fn a_page_of_a_web_site_is_called_one() {
    let page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>";
    for name in ["config.json", "tokenizer.json", WEIGHTS] {
        let (folder, _) = folder("html", true);
        folder.put(name, page);
        refused(&folder.0, "ERR_UNSUPPORTED", &[name, "an HTML page", "/resolve/"]);
    }
    let folder = Folder::new("html-file");
    let path = folder.put("model.gguf", page);
    refused(&path, "ERR_UNSUPPORTED", &["model.gguf", "an HTML page"]);
}

#[test]
fn weights_in_another_format_are_named_with_what_would_work() {
    for (name, word) in [
        ("pytorch_model.bin", "save_pretrained"),
        ("pytorch_model.bin.index.json", "save_pretrained"),
        ("consolidated.00.pth", "save_pretrained"),
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("model.onnx", "ONNX"),
        ("small-Q4_K_M.gguf", "by its own path"),
    ] {
        let (folder, _) = folder("others", true);
        remove(&folder, WEIGHTS);
        folder.put(name, "PK\x03\x04xxxx");
        refused(&folder.0, "ERR_UNSUPPORTED", &[name, word]);
    }
    let (folder, _) = folder("nothing", true);
    remove(&folder, WEIGHTS);
    refused(&folder.0, "ERR_IO", &[WEIGHTS, "must have it"]);
    let folder = Folder::new("a-gguf-only");
    folder.put("small.gguf", "GGUF");
    refused(&folder.0, "ERR_UNSUPPORTED", &["small.gguf", "config.json", "by its own path"]);
    let path = folder.put("pytorch_model.bin", "PK\x03\x04xxxx");
    refused(&path, "ERR_UNSUPPORTED", &["PyTorch checkpoint"]);
}

#[test]
fn an_adapter_is_named_with_its_base_model() {
    let about = r#"{"base_model_name_or_path":"some/base","peft_type":"LORA","r":4}"#;
    let folder = Folder::new("adapter");
    folder.put("adapter_config.json", about);
    folder.put("adapter_model.safetensors", file(&[]));
    refused(&folder.0, "ERR_UNSUPPORTED", &["adapter (LORA)", "some/base", "merge_and_unload"]);
    let (with_config, _) = self::folder("adapter-config", true);
    remove(&with_config, WEIGHTS);
    with_config.put("adapter_config.json", about);
    with_config.put("adapter_model.safetensors", file(&[]));
    refused(&with_config.0, "ERR_UNSUPPORTED", &["adapter (LORA)", "some/base"]);
}

#[test]
fn weights_of_other_quantizers_are_named() {
    let q = "model.layers.0.self_attn.q_proj.weight";
    for (dtype, name) in
        [(Dtype::I8, "I8"), (Dtype::F8_E4M3, "F8_E4M3"), (Dtype::F8_E5M2, "F8_E5M2")]
    {
        let (folder, _) = folder("int8", true);
        change(&folder, |all| {
            let weight = all.iter_mut().find(|w| w.name == q).expect("is there");
            weight.data.truncate(weight.data.len() / 4);
            weight.dtype = dtype;
        });
        refused(&folder.0, "ERR_UNSUPPORTED", &[name, q, "F32, F16 or BF16", "float model"]);
    }
    for (end, quantizer) in [
        ("qweight", "GPTQ or AWQ"),
        ("SCB", "bitsandbytes"),
        ("absmax", "bitsandbytes"),
        ("weight_scale_inv", "FP8"),
        ("weight_packed", "compressed-tensors"),
    ] {
        let (folder, _) = folder("quantized", true);
        let name = format!("model.layers.0.self_attn.q_proj.{end}");
        change(&folder, |all| {
            let weight = Weight { name: name.clone(), ..all[0].clone() };
            all.push(weight);
        });
        refused(&folder.0, "ERR_UNSUPPORTED", &[quantizer, &name, "float model"]);
    }
    for method in ["bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors"] {
        let (folder, _) = folder("method", true);
        let config = serde_json::json!({"quant_method": method, "bits": 4});
        set_config(&folder, "quantization_config", config);
        let words = ["config.json", "quantization_config", method, "float model"];
        refused(&folder.0, "ERR_UNSUPPORTED", &words);
    }
}

#[test]
fn a_byte_order_mark_before_json_is_skipped() {
    let (folder, want) = folder("bom", true);
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let text = std::fs::read(folder.join(name)).expect("is there");
        folder.put(name, [&b"\xef\xbb\xbf"[..], &text].concat());
    }
    assert_same_content(&load(&folder.0).expect("loads"), &want);
    // What is wrong after the mark has its offset in the file.
    let broken = folder.put("config.json", b"\xef\xbb\xbf{\"a\": x}");
    match load(&folder.0) {
        Err(Error::Format { file, offset, .. }) => {
            assert_eq!((file, offset), (broken.display().to_string(), 3 + 6))
        }
        other => panic!("{:?}", other.err()),
    }
}

/// The folder with its weights in two numbered files, without an index.
fn folder_of_shards(name: &str) -> (Folder, Model) {
    let (folder, model) = folder(name, false);
    let all = weights(&std::fs::read(folder.join(WEIGHTS)).expect("is there"));
    let (first, second) = all.split_at(all.len() / 2);
    folder.put("model-00001-of-00002.safetensors", file(first));
    folder.put("model-00002-of-00002.safetensors", file(second));
    remove(&folder, WEIGHTS);
    (folder, model)
}

#[test]
fn weights_are_found_under_any_one_name_and_in_a_whole_row_of_files() {
    for name in ["model-00001-of-00001.safetensors", "consolidated.safetensors", "x.safetensors"] {
        let (folder, want) = folder("one-name", false);
        std::fs::rename(folder.join(WEIGHTS), folder.join(name)).expect("renamed");
        // An adapter beside a model is none of its weights.
        folder.put("adapter_model.safetensors", file(&[]));
        assert_same_content(&load(&folder.0).expect("loads"), &want);
    }
    let (folder, want) = folder_of_shards("row");
    assert_same_content(&load(&folder.0).expect("loads"), &want);
    remove(&folder, "model-00002-of-00002.safetensors");
    refused(&folder.0, "ERR_IO", &["model-00002-of-00002.safetensors"]);
    let (folder, _) = self::folder("two-files", false);
    std::fs::copy(folder.join(WEIGHTS), folder.join("a.safetensors")).expect("copied");
    std::fs::rename(folder.join(WEIGHTS), folder.join("b.safetensors")).expect("renamed");
    let words = ["2 files of weights", "a.safetensors, b.safetensors", "index.json"];
    refused(&folder.0, "ERR_UNSUPPORTED", &words);
}

#[test]
fn names_of_a_compiled_model_are_read_without_their_prefix() {
    let (folder, want) = folder("compiled", false);
    change(&folder, |all| all.iter_mut().for_each(|w| w.name.insert_str(0, "_orig_mod.")));
    let got = load(&folder.0).expect("loads");
    assert_same_content(&got, &want);
    assert_eq!(got.warnings, [] as [String; 0]);
}

#[test]
fn of_a_multimodal_model_the_text_part_is_read_and_the_rest_left_out_with_one_warning() {
    for prefix in ["model.language_model.", "language_model.model."] {
        let (folder, want) = folder("multimodal", true);
        change(&folder, |all| {
            for weight in all.iter_mut() {
                weight.name = weight.name.replacen("model.", prefix, 1);
            }
            for name in ["model.vision_tower.patch.weight", "model.multi_modal_projector.weight"] {
                let data = vec![0; 24];
                all.push(Weight { name: name.into(), dtype: Dtype::F32, shape: vec![2, 3], data });
            }
        });
        let got = load(&folder.0).expect("loads");
        assert_same_content(&got, &want);
        let warning = got.warnings.join("\n");
        assert_eq!(got.warnings.len(), 1, "{warning}");
        for word in ["2 tensors (48 bytes)", "multi_modal_projector, vision_tower"] {
            assert!(warning.contains(word), "{warning}");
        }
    }
}

#[test]
fn two_tensors_of_one_name_without_their_prefixes_are_refused() {
    let (folder, _) = folder("twice", true);
    change(&folder, |all| {
        let again = Weight { name: format!("_orig_mod.{}", all[0].name), ..all[0].clone() };
        all.push(again);
    });
    refused(&folder.0, "ERR_FORMAT", &["_orig_mod.", "are both"]);
}

#[test]
fn folders_in_memory_load_alike() {
    let (folder, want) = folder_of_shards("in-memory");
    let names = folder.names();
    let read = |name: &String| (name.clone(), std::fs::read(folder.join(name)).expect("is there"));
    let mut files: BTreeMap<String, Vec<u8>> = names.iter().map(read).collect();
    assert_same_content(&load_files("m", &files).expect("loads"), &want);
    files.insert("model-00001-of-00002.safetensors".into(), b"version https://git-lfs".to_vec());
    let error = load_files("m", &files).expect_err("a pointer").to_string();
    assert!(error.contains("m/model-00001-of-00002.safetensors: a Git LFS pointer"), "{error}");
}

/// Headers whose length begins with the bytes of a pickle.
#[test]
fn a_header_of_any_length_is_that_of_a_safetensors_file() {
    let bytes = to_bytes(&float_model(), FileFormat::Halfstep).expect("written");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    for (low, second) in [(0x80, 2), (0x80, 5), (b'P', b'K')] {
        let mut length = header;
        while length.to_le_bytes()[..2] != [low, second] {
            length += 1;
        }
        let (text, data) = bytes[8..].split_at(header as usize);
        let padding = vec![b' '; (length - header) as usize];
        let padded = [&length.to_le_bytes()[..], text, &padding, data].concat();
        assert_same(&load_bytes("small", &padded).expect("loads"), &float_model());
    }
}
