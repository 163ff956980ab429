//! Every family of test/golden/arch (or of HALFSTEP_GOLDEN_ARCH) against PyTorch: logits, hidden
//! states and the greedy continuation, from the Hugging Face folder and from the GGUF file that
//! llama.cpp's converter made of it.
//!
//! Families, sizes and lengths are read from the folder. A family that is refused by name is a
//! skip, printed.

use halfstep_formats::architecture::fields::Form;
use halfstep_formats::architecture::{HeadOrder, Mixer};
use halfstep_formats::write::{self, FileFormat};
use halfstep_formats::{Architecture, Error, Model};
use halfstep_golden::{Golden, arch_folder};
use halfstep_kernels::Pool;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::path::{Path, PathBuf};

/// Of the largest |logit|, in f32; twice PyTorch's own spread, if that is larger. It is larger where
/// PyTorch computes a delta rule in chunks in prefill and token by token in decode; what is computed
/// here is the latter, which `naive.rs` compares with its definition.
const TOLERANCE: f64 = 1e-5;

/// A family of the folder that is read.
struct Family {
    name: String,
    model: Model,
    golden: Golden,
}

impl Family {
    fn ids(&self) -> Vec<u32> {
        self.golden.tensor("ids").i64.iter().map(|&id| id as u32).collect()
    }

    /// The file that llama.cpp's converter made, if there is one.
    fn gguf(&self) -> Option<PathBuf> {
        let path = arch_folder().join("gguf").join(format!("{}.gguf", self.name));
        path.exists().then_some(path)
    }

    /// How far a logit may be off.
    fn allowed(&self) -> f64 {
        self.tolerance() * largest(&self.golden.tensor("logits").f64)
    }

    /// The same as a share of the largest.
    fn tolerance(&self) -> f64 {
        let spread = ["decode_against_prefill", "prefill_with_and_without_cache"]
            .map(|key| self.golden.json[key].as_f64().unwrap_or(0.0));
        let largest = largest(&self.golden.tensor("logits").f64);
        TOLERANCE.max(2.0 * spread[0].max(spread[1]) / largest)
    }
}

/// Every family of the folder that is not refused by name; at least one.
fn families() -> Vec<Family> {
    let entries = std::fs::read_dir(arch_folder()).expect("the golden folder");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|path| path.join("config.json").exists());
    folders.sort();
    let mut families = vec![];
    for folder in folders {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        match halfstep_formats::load::load(&folder) {
            Ok(model) => {
                let golden = halfstep_golden::load_from(&folder, "golden").expect("its numbers");
                families.push(Family { name, model, golden });
            }
            Err(Error::Unsupported { name: what, reason, .. }) => {
                println!("skipped: {name}: {what}: {reason}");
            }
            Err(e) => panic!("{name}: {e}"),
        }
    }
    assert!(!families.is_empty(), "{} has no family that is read", arch_folder().display());
    families
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

fn network(model: &Model) -> Network {
    Network::new(model, Arithmetic::Auto, Pool::new(2)).expect("a network")
}

fn logits(network: &Network, ids: &[u32]) -> Vec<f32> {
    network.forward(ids, &mut Cache::new(network), Logits::All).expect("logits")
}

/// Largest difference of two rows of numbers.
fn off(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).fold(0.0, |m, (&got, want)| m.max((f64::from(got) - want).abs()))
}

#[test]
fn hidden_states_and_logits_are_pytorchs() {
    for family in families() {
        let (network, ids, d) =
            (network(&family.model), family.ids(), family.model.architecture.hidden_size);
        // Before each layer, and what the head reads.
        let mut states = vec![vec![0.0f32; 0]; network.architecture().layers.len()];
        let mut observe = |layer: usize, rows: &[f32]| states[layer].extend_from_slice(rows);
        let mut cache = Cache::new(&network);
        let got = network.forward_with(&ids, &mut cache, Logits::All, &mut observe);
        let got = got.expect("logits");
        if family.golden.has("hidden") {
            let hidden = family.golden.tensor("hidden").f64;
            let rows: Vec<&[f64]> = hidden.chunks(ids.len() * d).collect();
            assert_eq!(rows.len(), states.len() + 1, "{}", family.name);
            *states.last_mut().expect("a layer") =
                network.features(&ids, &mut Cache::new(&network)).expect("features");
            for (layer, (got, want)) in states.iter().zip(&rows[1..]).enumerate() {
                let (off, largest) = (off(got, want), largest(want));
                assert!(
                    off <= family.tolerance() * largest,
                    "{}: after layer {layer}: {off} of {largest}",
                    family.name
                );
            }
        }
        let off = off(&got, &family.golden.tensor("logits").f64);
        println!("{}: logits off by {off:e}, {:e} allowed", family.name, family.allowed());
        assert!(off <= family.allowed(), "{}: logits off by {off}", family.name);
    }
}

#[test]
fn the_greedy_continuation_is_pytorchs() {
    for family in families() {
        let (network, ids) = (network(&family.model), family.ids());
        let next = family.golden.tensor("next_ids").i64;
        let next_logits = family.golden.tensor("next_logits");
        let mut cache = Cache::new(&network);
        let mut row = network.forward(&ids, &mut cache, Logits::Last).expect("logits");
        for (&id, want) in next.iter().zip(next_logits.f64.chunks(row.len())) {
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a token");
            let tie = f64::from(row[best] - row[id as usize]) <= family.allowed();
            assert!(best as i64 == id || tie, "{}: {best} where PyTorch has {id}", family.name);
            row = network.forward(&[id as u32], &mut cache, Logits::Last).expect("logits");
            let off = off(&row, want);
            assert!(off <= family.allowed(), "{}: next logits off by {off}", family.name);
        }
    }
}

#[test]
fn one_token_at_a_time_gives_the_bytes_of_all_at_once() {
    for family in families() {
        let ids = family.ids();
        let serial = Network::new(&family.model, Arithmetic::Auto, Pool::serial());
        let (network, serial) = (network(&family.model), serial.expect("a network"));
        let all = logits(&network, &ids);
        assert!(logits(&serial, &ids) == all, "{}: another number of threads", family.name);
        // Some rotations depend on the length that a sequence will have.
        let mut cache = Cache::for_length(&network, ids.len());
        for (id, want) in ids.iter().zip(all.chunks(all.len() / ids.len())) {
            let got = network.forward(&[*id], &mut cache, Logits::Last).expect("logits");
            assert!(got == want, "{}: a token alone", family.name);
        }
    }
}

/// A field in which the file differs from the folder, to within what f32 holds.
fn difference(file: &Model, folder: &Architecture) -> Option<String> {
    let shown = |graph: &Architecture| {
        let (mut graph, single) = (graph.in_form(Form::Gguf), |x: f64| f64::from(x as f32));
        graph.norm.eps = single(graph.norm.eps);
        graph.logit_scale = single(graph.logit_scale);
        for layer in &mut graph.layers {
            layer.residual_scale = single(layer.residual_scale);
            let Some(attention) = layer.attention_mut() else { continue };
            attention.scale = attention.scale.map(single);
            if let Some(temper) = &mut attention.temper {
                temper.beta = single(temper.beta);
            }
            // Their frequencies are compared below.
            attention.rope = None;
        }
        format!("{graph:#?}")
    };
    let (a, b) = (shown(&file.architecture), shown(folder));
    let lines = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    if let Some((a, b)) = lines {
        return Some(format!("{} where the folder has {}", a.trim(), b.trim()));
    }
    for (a, b) in file.architecture.attentions().zip(folder.attentions()) {
        let [a, b] = [a, b].map(|attention| attention.rope_table(folder.max_positions));
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * b.abs();
        let same = a.turned() == b.turned()
            && a.inverse_frequencies.iter().zip(&b.inverse_frequencies).all(close);
        if !same {
            return Some(format!("{a:?} where the folder has {b:?}"));
        }
    }
    None
}

#[test]
fn the_converters_file_is_the_same_model() {
    for family in families() {
        let Some(path) = family.gguf() else {
            println!("skipped: {}: no GGUF file", family.name);
            continue;
        };
        let model = halfstep_formats::load::load(&path).expect("a model");
        let ids = family.ids();
        // What GGUF has no words for, the converter leaves out.
        let ours = &family.model.architecture;
        if let Some(field) = difference(&model, ours) {
            println!("skipped: {}.gguf: the converter wrote another model: {field}", family.name);
            continue;
        }
        let off = off(&logits(&network(&model), &ids), &family.golden.tensor("logits").f64);
        println!("{}.gguf: logits off by {off:e}", family.name);
        assert!(off <= family.allowed(), "{}.gguf: logits off by {off}", family.name);
    }
}

/// How the value heads of every delta rule follow one another.
fn orders(graph: &Architecture) -> impl Iterator<Item = HeadOrder> {
    graph.layers.iter().filter_map(|layer| match &layer.mixer {
        Mixer::DeltaRule(delta) => Some(delta.order),
        _ => None,
    })
}

#[test]
fn written_files_read_back_as_the_same_model() {
    for family in families() {
        let (model, ids) = (&family.model, family.ids());
        let want = logits(&network(model), &ids);
        for format in [FileFormat::Gguf, FileFormat::Halfstep] {
            let bytes = match write::to_bytes(model, format) {
                Ok(bytes) => bytes,
                Err(Error::Unsupported { name, reason, .. }) if format == FileFormat::Gguf => {
                    println!("skipped: {}.gguf: {name}: {reason}", family.name);
                    continue;
                }
                Err(e) => panic!("{}: {format:?}: {e}", family.name),
            };
            let again = halfstep_formats::load::load_bytes("again", &bytes).expect("read");
            let mut want_graph = model.architecture.clone();
            if format == FileFormat::Gguf {
                want_graph = want_graph.in_form(Form::Gguf);
            }
            assert_eq!(again.architecture, want_graph, "{}: {format:?}", family.name);
            let got = logits(&network(&again), &ids);
            if orders(&want_graph).eq(orders(&model.architecture)) {
                assert!(got == want, "{}: {format:?}", family.name);
                continue;
            }
            // The output linear adds up the same products in another order.
            let wide: Vec<f64> = want.iter().map(|&logit| logit.into()).collect();
            let off = off(&got, &wide);
            assert!(off <= TOLERANCE * largest(&wide), "{}: {format:?}: {off}", family.name);
        }
        let folder = temporary(&family.name);
        write::save_hugging_face(model, &folder).expect("written");
        let again = halfstep_formats::load::load(&folder).expect("read");
        assert_eq!(again.architecture, model.architecture, "{}", family.name);
        assert!(logits(&network(&again), &ids) == want, "{}: a folder", family.name);
        std::fs::remove_dir_all(folder).expect("removed");
    }
}

#[test]
fn texts_have_the_ids_of_the_reference() {
    for family in families() {
        let texts = family.golden.json["tokenizer"].as_array().cloned().unwrap_or_default();
        let Some(tokenizer) = &family.model.tokenizer else {
            println!("skipped: {}: no tokenizer", family.name);
            continue;
        };
        for case in texts {
            let text = case["text"].as_str().expect("a text");
            for (key, special) in [("ids", true), ("without_special", false)] {
                let want: Vec<u64> =
                    case[key].as_array().expect("ids").iter().flat_map(|id| id.as_u64()).collect();
                let got = tokenizer.encode(text, special).expect("ids");
                let got: Vec<u64> = got.into_iter().map(u64::from).collect();
                assert_eq!(got, want, "{}: {text:?}, {key}", family.name);
            }
        }
    }
}

fn temporary(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden_families").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.parent().expect("a parent")).expect("a folder");
    folder
}
