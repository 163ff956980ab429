//! A file of hundreds of megabytes that cannot be run is refused by its header: none of its weights
//! is read, and nothing allocated for them.

use super::any_model::{Folder, architecture as decoder, tokenizer};
use super::hostile::ALLOCATOR;
use super::llama_keys as keys;
use super::raw_gguf::{ARRAY, Raw, strings};
use super::{alone, small_model};
use halfstep::run;
use halfstep_formats::architecture::Architecture;
use halfstep_formats::architecture::fields::Form;
use halfstep_formats::gguf::GgmlType;
use halfstep_formats::load::describe;
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Model, config};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Least bytes of a file here.
const LARGE: u64 = 400 << 20;
/// Most bytes that are read or allocated: header, tokenizer and what is read at a time.
const SMALL: u64 = 4 << 20;

/// Writes the beginning of a file whose other bytes are on no disk.
fn sparse(path: &Path, beginning: &[u8], length: u64) {
    assert!(length >= LARGE, "{length} bytes");
    std::fs::write(path, beginning).expect("written");
    let file = std::fs::File::options().write(true).open(path).expect("opens");
    file.set_len(length).expect("a sparse file");
}

/// Bytes that this thread has read by calls of the system, where it counts them.
fn bytes_read() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok())
}

/// Refuses the file, having read little of it.
fn refused(what: &str, path: &Path, length: u64, code: &str, says: &str) {
    let (start, read) = (Instant::now(), bytes_read());
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = run::load(&path.display().to_string());
    let allocated = ALLOCATOR.peak_usage().saturating_sub(before) as u64;
    let read = bytes_read().zip(read).map(|(after, before)| after - before);
    let error = result.err().unwrap_or_else(|| panic!("{what}: was loaded"));
    assert!(error.code() == code && error.to_string().contains(says), "{what}: {error}");
    println!(
        "{what}: {} MB refused in {:.1} ms, {} bytes read, {allocated} allocated ({code})",
        length / 1_000_000,
        1e3 * start.elapsed().as_secs_f64(),
        read.map_or("unknown".into(), |read| read.to_string()),
    );
    assert!(allocated <= SMALL, "{what}: {allocated} bytes allocated");
    assert!(read.is_none_or(|read| read <= SMALL), "{what}: {read:?} bytes read");
}

/// The valid file would be loaded: nothing but its size is unusual.
fn is_sound(what: &str, path: &Path) {
    let described = describe(path).expect("described");
    assert!(described.refusal.is_none(), "{what}: {:?}", described.refusal);
}

/// The header of a small GGUF file whose feed-forward layers are made wide, and the file's length.
fn wide(model: &Model, key: &str, width: u64, edit: &dyn Fn(&mut Raw)) -> (Vec<u8>, u64) {
    let mut raw = Raw::parse(&to_bytes(model, FileFormat::Gguf).expect("writes"));
    raw.set_u32(key, width as u32);
    let mut end = 0u64;
    for tensor in &mut raw.tensors {
        let name = String::from_utf8(tensor.name.clone()).expect("a name");
        if (name.contains("ffn_gate") && !name.contains("_inp")) || name.contains("ffn_up") {
            tensor.dimensions[1] = width;
        } else if name.contains("ffn_down") {
            tensor.dimensions[0] = width;
        }
        tensor.offset = end;
        let kind = GgmlType::from_id(tensor.kind).expect("a type");
        let elements: u64 = tensor.dimensions.iter().product();
        let size = elements / kind.block_elements() as u64 * kind.block_bytes() as u64;
        end = (end + size).next_multiple_of(32);
    }
    raw.data.clear();
    edit(&mut raw);
    let mut header = raw.header();
    header.resize(header.len().next_multiple_of(32), 0);
    let length = header.len() as u64 + end;
    (header, length)
}

fn experts() -> Architecture {
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 8,
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": true,
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
        "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
    });
    config::parse("config.json", config.to_string().as_bytes()).expect("a sound config")
}

#[test]
fn gguf_files_are_refused_before_their_weights_are_read() {
    let _turn = alone();
    let folder = Folder::new("headers-gguf");
    let path = folder.join("large.gguf");
    let small = |architecture, kind| {
        let mut numbers = small_model::Numbers(3);
        small_model::model(architecture, &mut numbers, |_, _| kind)
    };
    let dense = small(small_model::architecture(256), GgmlType::Q8_0);
    let try_dense = |edit: &dyn Fn(&mut Raw)| {
        let (header, length) = wide(&dense, keys::FEED_FORWARD_LENGTH, 1 << 18, edit);
        sparse(&path, &header, length);
        length
    };
    try_dense(&|_| ());
    is_sound("gguf", &path);
    type Edit = fn(&mut Raw);
    let cases: [(&str, Edit, &str, &str); 6] = [
        (
            "another family",
            |r| r.set_string(keys::ARCHITECTURE, "deepseek2"),
            "ERR_UNSUPPORTED",
            "deepseek2",
        ),
        (
            "contradictory sizes",
            |r| r.set_u32(keys::HEAD_COUNT_KV, 3),
            "ERR_FORMAT",
            "does not divide",
        ),
        (
            "unreadable tokenizer",
            |r| r.set(keys::MERGES, ARRAY, strings(&["a b c"])),
            "ERR_FORMAT",
            "merge 0",
        ),
        (
            "unknown target",
            |r| r.set_string(keys::OWN_QUANTIZATION, r#"{"target":"x","activation":{"kind":"y"}}"#),
            "ERR_FORMAT",
            keys::OWN_QUANTIZATION,
        ),
        (
            "template over its cap",
            |r| r.set_string(keys::CHAT_TEMPLATE, &"x".repeat((256 << 10) + 1)),
            "ERR_FORMAT",
            "more than",
        ),
        (
            "missing norm",
            |r| r.tensor("blk.1.attn_norm.weight").name = b"blk.1.attn_norms.weight".to_vec(),
            "ERR_MISSING_TENSOR",
            "blk.1.attn_norm.weight",
        ),
    ];
    for (what, edit, code, says) in cases {
        let length = try_dense(&edit);
        refused(&format!("gguf, {what}"), &path, length, code, says);
    }
    let experts = small(experts(), GgmlType::F32);
    let width = "qwen3moe.expert_feed_forward_length";
    let router = "blk.0.ffn_gate_inp.weight";
    for missing in [false, true] {
        let (header, length) = wide(&experts, width, 1 << 16, &|raw: &mut Raw| {
            if missing {
                raw.tensor(router).name = b"blk.0.ffn_gate_in.weight".to_vec();
            }
        });
        sparse(&path, &header, length);
        match missing {
            false => is_sound("gguf with experts", &path),
            true => refused("gguf, missing router", &path, length, "ERR_MISSING_TENSOR", router),
        }
    }
}

/// A header of the tensors of `graph` as floats, and what is in the file before them.
fn floats(graph: &Architecture, without: &str, metadata: &Value, first: &[u8]) -> (Vec<u8>, u64) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    let mut put = |name: String, dtype: &str, shape: Vec<usize>, bytes: usize| {
        let about = json!({ "dtype": dtype, "shape": shape, "data_offsets": [end, end + bytes] });
        header.insert(name, about);
        end += bytes;
    };
    if !first.is_empty() {
        put("halfstep.tokenizer".into(), "U8", vec![first.len()], first.len());
    }
    for tensor in graph.tensors() {
        let bytes = 4 * tensor.shape.iter().product::<usize>();
        let is_left_out = tensor.name == without;
        let name = if is_left_out { format!("{}s", tensor.name) } else { tensor.name };
        put(name, "F32", tensor.shape, bytes);
    }
    if metadata.is_object() {
        header.insert("__metadata__".into(), metadata.clone());
    }
    let text = Value::Object(header).to_string();
    let beginning = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), first].concat();
    let length = (8 + text.len() + end) as u64;
    (beginning, length)
}

/// What is wrong with a model: edits of its config, a tensor that is not there, another tokenizer;
/// code and words of the error.
type Fault =
    (&'static str, &'static str, &'static str, &'static str, bool, &'static str, &'static str);

const NORM: &str = "model.layers.1.input_layernorm.weight";

const FAULTS: [Fault; 4] = [
    (
        "another family",
        "LlamaForCausalLM",
        "OPTForCausalLM",
        "",
        false,
        "ERR_UNSUPPORTED",
        "OPTForCausalLM",
    ),
    (
        "contradictory sizes",
        "\"num_key_value_heads\":2",
        "\"num_key_value_heads\":3",
        "",
        false,
        "ERR_FORMAT",
        "does not divide",
    ),
    ("missing norm", "", "", NORM, false, "ERR_MISSING_TENSOR", NORM),
    ("unreadable tokenizer", "", "", "", true, "ERR_FORMAT", "tokenizer"),
];

#[test]
fn files_of_our_layout_and_folders_are_refused_before_their_weights_are_read() {
    let _turn = alone();
    let folder = Folder::new("headers-safetensors");
    let graph = decoder(true).resized(|sizes| sizes.intermediate_size = 1 << 20);
    let config_text = config::to_json(&graph.in_form(Form::HuggingFace)).expect("a config");
    let config_text = config_text.to_string();
    let sound = tokenizer().to_json();
    let file = folder.join("large.safetensors");
    std::fs::create_dir(folder.join("m")).expect("a folder");
    let valid: Fault = ("nothing", "", "", "", false, "", "");
    for (what, from, to, without, broken, code, says) in [valid].into_iter().chain(FAULTS) {
        assert!(config_text.contains(from), "{config_text}");
        let config_text = config_text.replacen(from, to, 1);
        let tokenizer = if broken { "{}" } else { &sound };
        let own = json!({ "halfstep.format": "1", "halfstep.config": config_text });
        let (beginning, length) = floats(&graph, without, &own, tokenizer.as_bytes());
        sparse(&file, &beginning, length);
        let (beginning, in_folder) = floats(&graph, without, &Value::Null, b"");
        sparse(&folder.join("m/model.safetensors"), &beginning, in_folder);
        folder.put("m/config.json", &config_text);
        folder.put("m/tokenizer.json", tokenizer);
        if code.is_empty() {
            is_sound("own layout", &file);
            is_sound("folder", &folder.join("m"));
            continue;
        }
        refused(&format!("own layout, {what}"), &file, length, code, says);
        refused(&format!("folder, {what}"), &folder.join("m"), in_folder, code, says);
    }
}
