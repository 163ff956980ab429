//! Descriptions of files: the same numbers as the loaded model has, and as much as a file says
//! where its model cannot be run, with the loader's own error.

use crate::any_model::*;
use crate::raw_gguf::{self, Raw};
use halfstep_formats::description::{Description, spec_name};
use halfstep_formats::load::{describe, describe_bytes, describe_files, load, load_bytes};
use halfstep_formats::write::{FileFormat, save, save_hugging_face, to_bytes};
use halfstep_formats::{Model, TensorData};
use halfstep_kernels::{Granularity, Int, QuantSpec, ScaleCodec};
use serde_json::json;
use std::collections::BTreeMap;

/// Number and bytes of the tensors of a model by storage type.
fn storage(model: &Model) -> BTreeMap<String, (usize, u64)> {
    let mut totals = BTreeMap::new();
    let mut count = |name: String, bytes: usize| {
        let total: &mut (usize, u64) = totals.entry(name).or_default();
        *total = (total.0 + 1, total.1 + bytes as u64);
    };
    for tensor in model.tensors.values() {
        let (name, bytes) = match &tensor.data {
            TensorData::F32(v) => ("F32".into(), 4 * v.len()),
            TensorData::F16(v) => ("F16".into(), 2 * v.len()),
            TensorData::BF16(v) => ("BF16".into(), 2 * v.len()),
            TensorData::Packed(m) => (spec_name(m.spec), m.stored_bytes()),
            TensorData::Blocks { kind, bytes } => (kind.name().into(), bytes.len()),
        };
        count(name, bytes);
    }
    for factors in model.low_rank.values() {
        count(format!("low rank {}", factors.rank), factors.stored_bytes());
    }
    totals
}

fn described_storage(description: &Description) -> BTreeMap<String, (usize, u64)> {
    let one = |(name, total): (&String, &halfstep_formats::description::StorageTotal)| {
        (name.clone(), (total.tensors, total.bytes))
    };
    description.storage.iter().map(one).collect()
}

fn assert_describes(got: &Description, model: &Model) {
    assert!(got.refusal.is_none(), "{:?}", got.refusal);
    let (sizes, have) = (model.architecture.sizes(), got.sizes);
    assert_eq!(got.parameters, model.architecture.parameters() as u64);
    assert_eq!(got.file_bytes, model.file_bytes);
    assert_eq!(got.name, model.name);
    assert_eq!(got.architecture.as_deref(), Some("llama"));
    assert_eq!(have.vocab_size, Some(sizes.vocab_size));
    assert_eq!(have.hidden_size, Some(sizes.hidden_size));
    assert_eq!(have.intermediate_size, Some(sizes.intermediate_size));
    assert_eq!(have.layers, Some(sizes.layers));
    assert_eq!((have.heads, have.kv_heads), (Some(sizes.heads), Some(sizes.kv_heads)));
    assert_eq!(have.head_dim, Some(sizes.head_dim));
    assert_eq!(have.max_positions, Some(sizes.max_positions));
    assert_eq!(have.tied_head, Some(sizes.tied_head));
    assert_eq!(got.has_chat_template, model.chat_template.is_some());
    assert_eq!(got.tokenizer.is_some(), model.tokenizer.is_some());
    assert_eq!(got.target, model.quantization.as_ref().map(|q| q.target.clone()));
    assert_eq!(got.provenance, model.provenance);
    assert_eq!(described_storage(got), storage(model));
}

#[test]
fn a_model_that_can_be_run_is_described_as_it_loads() {
    let folder = Folder::new("described");
    let halves = model(false, Stored::F16, Stored::F16, Stored::F32, None, 4);
    let packed = packed_model(QuantSpec::Q4_0);
    for (name, model, format) in [
        ("float.gguf", &float_model(), FileFormat::Gguf),
        ("halves.gguf", &halves, FileFormat::Gguf),
        ("float.safetensors", &float_model(), FileFormat::Halfstep),
        ("packed.safetensors", &packed, FileFormat::Halfstep),
    ] {
        let path = folder.join(name);
        save(model, &path, format).expect("written");
        assert_describes(&describe(&path).expect("described"), &load(&path).expect("loads"));
        let bytes = std::fs::read(&path).expect("is there");
        let in_memory = describe_bytes(name, &bytes).expect("described");
        assert_describes(&in_memory, &load_bytes(name, &bytes).expect("loads"));
    }
    let path = folder.join("folder");
    save_hugging_face(&halves, &path).expect("written");
    assert_describes(&describe(&path).expect("described"), &load(&path).expect("loads"));
}

#[test]
fn parts_of_linears_are_counted_by_the_names_that_a_loaded_model_has() {
    let spec = QuantSpec::int(Int::symmetric(3), Granularity::Group(7), ScaleCodec::F16);
    let (mut draw, mut m) = (Draw(9), packed_model(spec));
    add_low_rank(&mut m, &mut draw, |_, most| most.min(2));
    add_linear_parts(&mut m, &mut draw);
    let bytes = to_bytes(&m, FileFormat::Halfstep).expect("written");
    let got = describe_bytes("m", &bytes).expect("described");
    assert!(got.refusal.is_none() && !m.linear_parts.is_empty(), "{:?}", got.refusal);
    let (mut described, mut parts) = (described_storage(&got), 0);
    for (name, total) in storage(&m) {
        assert_eq!(described.remove(&name), Some(total), "{name}");
    }
    for name in m.linear_parts.values().flat_map(|of| of.names()) {
        let (count, bytes) = described.get_mut(&name).expect("counted");
        (*count, parts) = (*count - 1, parts + std::mem::take(bytes));
    }
    assert!(described.values().all(|(count, _)| *count == 0), "{described:?}");
    let stored: usize = m.linear_parts.values().map(|of| of.stored_bytes()).sum();
    assert_eq!(parts, stored as u64);
}

/// A sound GGUF file after a change.
fn gguf(change: impl FnOnce(&mut Raw)) -> Vec<u8> {
    let mut raw = Raw::parse(&to_bytes(&float_model(), FileFormat::Gguf).expect("written"));
    change(&mut raw);
    raw.to_bytes()
}

/// The description of a model that cannot be run, whose refusal is the loader's and says `words`.
#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) -> Description {
    let got = describe_bytes("m.gguf", bytes).expect("described");
    let refusal = got.refusal.as_ref().expect("cannot be run").to_string();
    assert_eq!(refusal, load_bytes("m.gguf", bytes).expect_err("refused").to_string());
    for word in words {
        assert!(refusal.contains(word), "{refusal} has no {word:?}");
    }
    got
}

#[test]
fn a_gguf_of_an_unknown_architecture_is_described() {
    let bytes = gguf(|raw| {
        raw.set_string("general.architecture", "mystery");
        for entry in &mut raw.entries {
            let key = String::from_utf8(entry.key.clone()).expect("ASCII");
            entry.key = key.replace("llama.", "mystery.").into_bytes();
        }
    });
    let got = refused(&bytes, &["mystery"]);
    let want = describe_bytes("m.gguf", &gguf(|_| ())).expect("described");
    assert_eq!(got.architecture.as_deref(), Some("mystery"));
    assert_eq!((got.sizes, got.storage), (want.sizes, want.storage));
    assert_eq!((got.parameters, got.tokenizer), (want.parameters, want.tokenizer));
    assert!(got.has_chat_template);
}

#[test]
fn a_gguf_with_types_that_are_not_read_is_described() {
    const I32: u32 = 26;
    let bytes = gguf(|raw| raw.tensor("output_norm.weight").kind = I32);
    // The norm has four bytes a value, as the other type has.
    let got = refused(&bytes, &["I32", "output_norm.weight"]);
    assert_eq!(got.storage["I32"].tensors, 1);
    let want = describe_bytes("m.gguf", &gguf(|_| ())).expect("described");
    assert_eq!(got.tensor_bytes(), want.tensor_bytes());
    assert_eq!(got.parameters, want.parameters);
}

#[test]
fn a_gguf_with_an_unknown_tokenizer_is_described() {
    let bytes = gguf(|raw| raw.set_string("tokenizer.ggml.model", "mystery"));
    let got = refused(&bytes, &["mystery"]);
    assert_eq!(got.tokenizer.as_deref(), Some("mystery"));
    assert_eq!(got.sizes.layers, Some(2));
}

#[test]
fn sizes_of_a_gguf_that_differ_between_layers_are_given_by_their_largest() {
    let heads: Vec<u8> = [2u32, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    let array = raw_gguf::array(raw_gguf::U32, 2, &heads);
    let bytes = gguf(|raw| raw.set("llama.attention.head_count_kv", raw_gguf::ARRAY, array));
    let got = describe_bytes("m.gguf", &bytes).expect("described");
    assert_eq!(got.sizes.kv_heads, Some(2));
    assert!(got.refusal.is_some());
}

#[test]
fn a_folder_of_an_unknown_family_is_described() {
    let folder = Folder::new("described-unknown");
    save_hugging_face(&float_model(), &folder.0).expect("written");
    let config = json!({
        "architectures": ["MysteryForCausalLM"], "model_type": "mystery",
        "text_config": {"hidden_size": 20, "num_attention_heads": 4, "num_hidden_layers": 2},
    });
    folder.put("config.json", config.to_string());
    let got = describe(&folder.0).expect("described");
    assert_eq!(got.architecture.as_deref(), Some("mystery"));
    assert_eq!((got.sizes.hidden_size, got.sizes.head_dim), (Some(20), Some(5)));
    assert_eq!(got.sizes.vocab_size, None);
    assert_eq!(got.tokenizer.as_deref(), Some("BPE"));
    assert_eq!(described_storage(&got), storage(&float_model()));
    assert_eq!(got.parameters, float_model().architecture.parameters() as u64);
    let refusal = got.refusal.expect("cannot be run").to_string();
    assert_eq!(refusal, load(&folder.0).expect_err("refused").to_string());
    assert!(refusal.contains("Mystery"), "{refusal}");
}

#[test]
fn a_folder_without_weights_is_described_by_its_config() {
    let folder = Folder::new("described-bare");
    save_hugging_face(&float_model(), &folder.0).expect("written");
    std::fs::remove_file(folder.join("model.safetensors")).expect("removed");
    let got = describe(&folder.0).expect("described");
    assert_eq!(got.sizes.layers, Some(2));
    assert!(got.storage.is_empty() && got.bits_per_weight() == 0.0);
    assert!(got.refusal.expect("no weights").to_string().contains("model.safetensors"));
}

#[test]
fn a_single_file_of_a_folder_is_described_as_far_as_it_goes() {
    let folder = Folder::new("described-files");
    save_hugging_face(&float_model(), &folder.0).expect("written");
    let config = describe(&folder.join("config.json")).expect("described");
    assert_eq!((config.format, config.architecture.as_deref()), ("config", Some("llama")));
    assert_eq!(config.parameters, float_model().architecture.parameters() as u64);
    let refusal = config.refusal.expect("no weights").to_string();
    assert!(refusal.contains("config.json by itself"), "{refusal}");
    let weights = describe(&folder.join("model.safetensors")).expect("described");
    assert_eq!((weights.format, weights.architecture), ("safetensors", None));
    assert_eq!(
        weights.storage.values().map(|total| total.tensors).sum::<usize>(),
        float_model().tensors.len()
    );
    assert!(weights.refusal.expect("no config").to_string().contains("by itself"));
}

#[test]
fn folders_in_memory_are_described_alike() {
    let folder = Folder::new("described-memory");
    save_hugging_face(&float_model(), &folder.0).expect("written");
    let read = |name: String| (name.clone(), std::fs::read(folder.join(&name)).expect("is there"));
    let files: BTreeMap<String, Vec<u8>> = folder.names().into_iter().map(read).collect();
    let (got, want) =
        (describe_files("m", &files).expect("described"), describe(&folder.0).expect("described"));
    assert_eq!((got.sizes, got.storage, got.tokenizer), (want.sizes, want.storage, want.tokenizer));
    assert_eq!((got.parameters, got.file_bytes), (want.parameters, want.file_bytes));
    assert!(got.refusal.is_none() && want.refusal.is_none());
}

#[test]
fn what_is_no_sound_file_is_an_error() {
    let sound = gguf(|_| ());
    for (bytes, code) in [
        (sound[..sound.len() / 2].to_vec(), "ERR_FORMAT"),
        (b"GGUF".to_vec(), "ERR_FORMAT"),
        (b"{\"model_type\": ".to_vec(), "ERR_FORMAT"),
        (b"hello, world".to_vec(), "ERR_FORMAT"),
        (vec![], "ERR_FORMAT"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "ERR_UNSUPPORTED"),
    ] {
        assert_eq!(describe_bytes("m", &bytes).expect_err("no model").code(), code);
    }
    assert_eq!(describe("absent".as_ref()).expect_err("nothing").code(), "ERR_IO");
}
