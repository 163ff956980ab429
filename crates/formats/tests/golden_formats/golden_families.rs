//! Every family of test/golden/arch (or of HALFSTEP_GOLDEN_ARCH): the graph and the tensors of its
//! Hugging Face folder are those of the GGUF file that llama.cpp's converter made of it, and the
//! GGUF file that is written here says what the converter's says.
//!
//! A family that is refused by name is a skip, printed; so is a field that the converter's file has
//! no place for. Tokenizers are left out: their tests are others.

use crate::raw_gguf::{self, Raw};
use halfstep_formats::architecture::fields::Form;
use halfstep_formats::architecture::{
    Architecture, Attention, DeltaRule, HeadOrder, Linear, Mixer, Norm, NormKind, Parameter, Role,
    Rope, RopeScaling, YarnScaling,
};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Error, Model, gguf, load};
use halfstep_golden::arch_folder;
use halfstep_kernels::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What the converter's files of a family cannot hold, or hold otherwise: family and field.
const LOST: &[(&str, &str)] = &[
    // Written as a Llama, without its window.
    ("mistral", "family"),
    ("mistral", "window"),
    // No key; readers take the width of a head.
    ("gemma2", "scale"),
    // Taken from the hidden size, as if heads had no width of their own.
    ("cohere2", "turned"),
    // Written, and not heeded by readers unless there are 64 layers.
    ("exaone4", "window"),
    ("exaone4", "rope"),
];

/// What no GGUF file holds, since its readers would take it otherwise: family and key.
const REFUSED: &[(&str, &str)] = &[
    ("mistral", "sliding_window"),
    ("gemma2", "query_pre_attn_scalar"),
    ("gemma3", "query_pre_attn_scalar"),
    ("exaone4", "sliding_window"),
    ("exaone4", "head_dim"),
    ("phi3", "sliding_window"),
    ("command-r", "use_qk_norm"),
    ("cohere2", "head_dim"),
    ("nemotron", "head_dim"),
    ("smollm3", "no_rope_layers"),
    ("gemma4", "num_kv_shared_layers"),
];

/// Where the converter computes in f32.
const CONVERTER_ERROR: f32 = 2e-5;

struct Family {
    name: String,
    /// Of the folder.
    model: Model,
    /// The converter's file, without its tokenizer.
    gguf: Option<Raw>,
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(arch_folder()).expect("the golden folder");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|path| path.join("config.json").exists());
    folders.sort();
    folders
}

/// A folder without its tokenizer.
fn load_folder(folder: &Path) -> Result<Model, Error> {
    let file = |name: &str| (name.to_string(), std::fs::read(folder.join(name)).expect("a file"));
    let files = BTreeMap::from(["config.json", "model.safetensors"].map(file));
    load::load_files("folder", &files)
}

/// Every family of the folder that is not refused by name; at least one.
fn families() -> Vec<Family> {
    let mut families = vec![];
    for folder in folders() {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let model = match load_folder(&folder) {
            Ok(model) => model,
            Err(Error::Unsupported { name: what, reason, .. }) => {
                println!("skipped: {name}: {what}: {reason}");
                continue;
            }
            Err(e) => panic!("{name}: {e}"),
        };
        let gguf = std::fs::read(arch_folder().join("gguf").join(format!("{name}.gguf"))).ok();
        let gguf = gguf.map(|bytes| {
            let mut raw = Raw::parse(&bytes);
            raw.entries.retain(|entry| !entry.key.starts_with(b"tokenizer."));
            raw
        });
        if gguf.is_none() {
            println!("skipped: {name}: no GGUF file");
        }
        families.push(Family { name, model, gguf });
    }
    assert!(!families.is_empty(), "{} has no family that is read", arch_folder().display());
    println!("{} families are read", families.len());
    families
}

/// Six digits: what is left of a number that went through f32, and through a division or a root.
fn rounded(x: f64) -> f64 {
    format!("{x:.5e}").parse().expect("a number")
}

fn rounded_rope(rope: &Rope) -> Rope {
    let all = |values: &[f64]| values.iter().map(|&x| rounded(x)).collect();
    let scaling = rope.scaling.as_ref().map(|scaling| match scaling {
        RopeScaling::Linear { factor } => RopeScaling::Linear { factor: rounded(*factor) },
        RopeScaling::Llama3(s) => RopeScaling::Llama3(*s),
        RopeScaling::Yarn(yarn) => RopeScaling::Yarn(YarnScaling {
            factor: rounded(yarn.factor),
            beta_fast: rounded(yarn.beta_fast),
            beta_slow: rounded(yarn.beta_slow),
            magnitude: rounded(yarn.magnitude),
            ..*yarn
        }),
        RopeScaling::Long(long) => {
            let mut rounded_long = (**long).clone();
            rounded_long.short = all(&long.short);
            rounded_long.long = all(&long.long);
            rounded_long.magnitude = rounded(long.magnitude);
            RopeScaling::Long(rounded_long.into())
        }
        other => other.clone(),
    });
    Rope { theta: rounded(rope.theta), scaling, ..rope.clone() }
}

/// The graph with its numbers as far as f32 keeps them.
fn rounded_graph(graph: &Architecture) -> Architecture {
    let mut graph = graph.clone();
    for x in [&mut graph.norm.eps, &mut graph.embed_scale, &mut graph.logit_scale] {
        *x = rounded(*x);
    }
    graph.logit_softcap = graph.logit_softcap.map(rounded);
    for layer in &mut graph.layers {
        layer.residual_scale = rounded(layer.residual_scale);
        let Some(a) = layer.attention_mut() else { continue };
        a.scale = a.scale.map(rounded);
        a.softcap = a.softcap.map(rounded);
        a.rope = a.rope.as_ref().map(rounded_rope);
        if let Some(temper) = &mut a.temper {
            temper.beta = rounded(temper.beta);
        }
    }
    graph
}

/// Names of the fields in which two graphs differ.
fn differences(a: &Architecture, b: &Architecture) -> BTreeSet<&'static str> {
    let (a, b) = (rounded_graph(a), rounded_graph(b));
    let mut names = BTreeSet::new();
    let mut differ = |differ: bool, name: &'static str| {
        if differ {
            names.insert(name);
        }
    };
    differ(a.family != b.family, "family");
    for (x, y) in a.layers.iter().zip(&b.layers) {
        // Another mixer has no fields that files lose.
        let (Some(x), Some(y)) = (x.attention(), y.attention()) else { continue };
        differ(x.window != y.window, "window");
        differ(x.scale != y.scale, "scale");
        let turned = |a: &Attention| a.rope.as_ref().map(|rope| rope.turned);
        differ(turned(x).is_some() != turned(y).is_some(), "rope");
        let both = turned(x).zip(turned(y));
        differ(both.is_some_and(|(x, y)| x != y), "turned");
        differ(x.temper != y.temper, "temper");
        differ(x.softcap != y.softcap, "softcap");
    }
    // Whatever is left once these are made alike has no name of its own here.
    let mut same = b.clone();
    same.family = a.family;
    for (x, y) in a.layers.iter().zip(&mut same.layers) {
        let (Some(from), Some(to)) = (x.attention(), y.attention_mut()) else { continue };
        (to.window, to.scale, to.temper, to.softcap) =
            (from.window, from.scale, from.temper, from.softcap);
        match (&from.rope, &mut to.rope) {
            (Some(from), Some(to)) => to.turned = from.turned,
            (from, to) => *to = from.clone(),
        }
    }
    differ(same != a, "another field");
    names
}

#[test]
fn the_converters_file_has_the_graph_of_the_folder() {
    for Family { name, model, gguf } in families() {
        let Some(raw) = gguf else { continue };
        let theirs = gguf::read("theirs.gguf", &raw.to_bytes());
        let theirs = theirs.unwrap_or_else(|e| panic!("{name}: {e}")).architecture;
        let ours = model.architecture.in_form(Form::Gguf);
        let family = ours.family;
        for field in differences(&ours, &theirs) {
            let known = LOST.contains(&(family, field));
            assert!(known, "{name}: {field}: {ours:#?}\n{theirs:#?}");
            println!("skipped: {name}: {field}: the converter's file has another value");
        }
    }
}

#[test]
fn the_converters_file_has_the_tensors_of_the_folder() {
    let pool = Pool::serial();
    for Family { name, model, gguf } in families() {
        let Some(raw) = gguf else { continue };
        let theirs = gguf::read("theirs.gguf", &raw.to_bytes()).expect("read");
        let ours = values_in_gguf(&model);
        assert_eq!(theirs.tensors.len(), ours.len(), "{name}");
        for (tensor, values) in ours {
            let theirs = theirs.tensors[&tensor].to_f32(&pool);
            let same = match tensor.ends_with("A_log") {
                true => nearly_equal(&values, &theirs),
                false => values == theirs,
            };
            assert!(same, "{name}: {tensor}");
        }
    }
}

/// Equal but for what is computed in f32.
fn nearly_equal(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= CONVERTER_ERROR * b.abs())
}

/// The values by the names inside; GGUF files have the whole weights of norms, the rates of delta
/// rules with a minus, and in some families value heads in turn by key head.
fn values_in_gguf(model: &Model) -> BTreeMap<String, Vec<f32>> {
    let (pool, graph) = (Pool::serial(), &model.architecture);
    let held = graph.in_form(Form::Gguf);
    let one = |spec: halfstep_formats::architecture::TensorSpec| {
        let mut values = model.tensors[&spec.name].to_f32(&pool);
        if matches!(spec.role, Role::Norm(norm) if norm != Norm::Delta)
            || matches!(spec.role, Role::FinalNorm | Role::PerLayerNorm)
        {
            values.iter_mut().for_each(|x| *x += graph.norm.offset as f32);
        }
        if spec.role == Role::Parameter(Parameter::DeltaRate) {
            values.iter_mut().for_each(|x| *x = -x.exp());
        }
        let mixers =
            spec.layer.map(|layer| (&graph.layers[layer].mixer, &held.layers[layer].mixer));
        if let Some((Mixer::DeltaRule(delta), Mixer::DeltaRule(held))) = mixers
            && held.order == HeadOrder::Tiled
        {
            values = tiled(delta, spec.role, &values);
        }
        (spec.name, values)
    };
    graph.tensors().into_iter().map(one).collect()
}

/// Values of a tensor of a delta rule whose value heads are neighbours where they read the same key
/// head, in the order in which the first ones of all key heads come first.
fn tiled(delta: &DeltaRule, role: Role, values: &[f32]) -> Vec<f32> {
    let (keys, heads, width) = (delta.key_heads, delta.value_heads, delta.value_dim);
    let in_turn: Vec<usize> = (0..heads / keys)
        .flat_map(|number| (0..keys).map(move |key| key * (heads / keys) + number))
        .collect();
    let (before, piece) = match role {
        Role::Linear(Linear::DeltaQkv) | Role::Parameter(Parameter::DeltaKernel) => {
            let cols = values.len() / delta.channels();
            (2 * delta.key_width() * cols, width * cols)
        }
        Role::Linear(Linear::DeltaGate) => (0, values.len() / heads),
        Role::Parameter(_) => (0, values.len() / heads),
        Role::Linear(Linear::DeltaOut) => {
            let row = |row: &[f32]| -> Vec<f32> {
                in_turn.iter().flat_map(|&head| row[head * width..][..width].to_vec()).collect()
            };
            return values.chunks(heads * width).flat_map(row).collect();
        }
        _ => return values.to_vec(),
    };
    let (same, moved) = values.split_at(before);
    let moved = in_turn.iter().flat_map(|&head| &moved[head * piece..][..piece]);
    same.iter().chain(moved).copied().collect()
}

/// What a metadata value says: numbers of any type, or text.
#[derive(Debug, PartialEq)]
enum Said {
    Numbers(Vec<f64>),
    Text(Vec<u8>),
}

fn said(kind: u32, value: &[u8]) -> Said {
    let one = |kind: u32, bytes: &[u8]| -> (f64, usize) {
        match kind {
            raw_gguf::U8 | raw_gguf::BOOL => (bytes[0].into(), 1),
            raw_gguf::U32 => (u32::from_le_bytes(bytes[..4].try_into().expect("4")).into(), 4),
            raw_gguf::I32 => (i32::from_le_bytes(bytes[..4].try_into().expect("4")).into(), 4),
            raw_gguf::F32 => (f32::from_le_bytes(bytes[..4].try_into().expect("4")).into(), 4),
            other => panic!("a value of type {other}"),
        }
    };
    match kind {
        raw_gguf::STRING => Said::Text(value.to_vec()),
        raw_gguf::ARRAY => {
            let element = u32::from_le_bytes(value[..4].try_into().expect("4"));
            let mut rest = &value[12..];
            let mut numbers = vec![];
            while !rest.is_empty() {
                let (number, size) = one(element, rest);
                numbers.push(number);
                rest = &rest[size..];
            }
            Said::Numbers(numbers)
        }
        _ => Said::Numbers(vec![one(kind, value).0]),
    }
}

/// Whether a reader of the architecture does without a key of the converter, with that value.
fn is_idle(model: &Model, key: &str, value: &Said) -> bool {
    let graph = &model.architecture;
    let mut ropes = graph.attentions().filter_map(|a| a.rope.as_ref());
    let scaled = ropes.any(|rope| rope.scaling.is_some());
    match key {
        "attention.layer_norm_rms_epsilon" => graph.norm.kind == NormKind::Layer,
        "rope.scaling.type" => *value == Said::Text(raw_gguf::string(b"none")),
        "rope.scaling.original_context_length" => !scaled,
        "attention.sliding_window" => *value == Said::Numbers(vec![0.0]),
        // Readers compute it from the factor.
        "rope.scaling.yarn_attn_factor" => true,
        // The width of feed-forwards that are not there.
        "feed_forward_length" => graph.layers[0].feed_forward.experts().is_some(),
        "rope.dimension_count" => LOST.contains(&(graph.family, "turned")),
        _ => false,
    }
}

#[test]
fn the_file_that_is_written_says_what_the_converters_says() {
    let mut compared = 0;
    for Family { name, model, gguf } in families() {
        let Some(theirs) = gguf else { continue };
        let ours = match to_bytes(&model, FileFormat::Gguf) {
            Ok(bytes) => Raw::parse(&bytes),
            Err(Error::Unsupported { name: what, reason, .. }) => {
                let known = REFUSED.contains(&(model.architecture.family, &what));
                assert!(known, "{name}: {what}: {reason}");
                assert!(reason.contains("Hugging Face folder"), "{name}: {what}: {reason}");
                println!("skipped: {name}: {what}: {reason}");
                continue;
            }
            Err(e) => panic!("{name}: {e}"),
        };
        let standard = ours.entries.iter().filter(|entry| !entry.key.starts_with(b"halfstep."));
        let entries: BTreeMap<&[u8], Said> =
            standard.map(|e| (&e.key[..], said(e.kind, &e.value))).collect();
        for entry in theirs.entries.iter().filter(|entry| !entry.key.starts_with(b"general.")) {
            let key = String::from_utf8_lossy(&entry.key);
            let (value, (_, rest)) =
                (said(entry.kind, &entry.value), key.split_once('.').expect("a key"));
            if is_idle(&model, rest, &value) {
                continue;
            }
            assert_eq!(entries.get(&entry.key[..]), Some(&value), "{name}: {key}");
        }
        compare_tensors(&name, ours, theirs);
        compared += 1;
    }
    println!("{compared} files are those of the converter");
    assert!(compared > 0);
}

fn compare_tensors(name: &str, mut ours: Raw, mut theirs: Raw) {
    let names = |raw: &Raw| -> BTreeSet<String> {
        raw.tensors.iter().map(|t| String::from_utf8_lossy(&t.name).into_owned()).collect()
    };
    assert_eq!(names(&ours), names(&theirs), "{name}");
    for tensor in names(&theirs) {
        let (dimensions, want) = values_of(&mut theirs, &tensor);
        let (our_dimensions, got) = values_of(&mut ours, &tensor);
        assert_eq!(our_dimensions, dimensions, "{name}: {tensor}");
        let same = match tensor.as_str() {
            "rope_freqs.weight" => nearly_equal(&got, &want),
            rates if rates.ends_with("ssm_a") => nearly_equal(&got, &want),
            _ => got == want,
        };
        assert!(same, "{name}: {tensor}");
    }
}

/// Dimensions and values of a tensor of floats.
fn values_of(raw: &mut Raw, name: &str) -> (Vec<u64>, Vec<f32>) {
    let tensor = raw.tensor(name).clone();
    let count = tensor.dimensions.iter().product::<u64>() as usize;
    let data = raw.data_of(name);
    let values = match tensor.kind {
        0 => data[..4 * count].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        30 => data[..2 * count]
            .as_chunks()
            .0
            .iter()
            .map(|&b| half::bf16::from_le_bytes(b).to_f32())
            .collect(),
        other => panic!("{name} is of type {other}"),
    };
    (tensor.dimensions, values)
}
