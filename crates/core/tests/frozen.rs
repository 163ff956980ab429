//! What does not depend on the CPU keeps its bytes: rounding by every rule for every target,
//! export, re-opening, and portable evaluation and generation, all on the demo model of assets/.
//! The numbers are in `frozen/hashes.json` and are compared at every instruction-set level that
//! this CPU has, each with another number of threads.
//!
//! Results that are meant to change are frozen anew, and the change explained in CHANGELOG.md:
//!
//!     HALFSTEP_FREEZE=1 cargo test --release -p halfstep --test frozen
//!
//! A model is frozen by two hashes. `file` is that of the saved file without its provenance: the
//! strings there (version, source, recipe) say where a model came from and may change with a
//! release or the name of an option. `values` is that of codes, scales, zero points and floats by
//! the name of their tensor, so that a change of the container can be distinguished from one of the
//! model.

use half::f16;
use halfstep::Model;
use halfstep::recipes::RecipeConfig;
use halfstep::run::{
    ArithmeticConfig as Arithmetic, Cancel, EvaluateConfig, GenerationConfig, LoadedModel,
    RunConfig, evaluate, generate, load, logits, parse_config, quantize, tokenize,
};
use halfstep_formats::architecture::{ActivationSite, Role, TensorSpec};
use halfstep_formats::load::load_bytes;
use halfstep_formats::write::{FileFormat, save_hugging_face, to_bytes};
use halfstep_formats::{LowRank, Tensor, TensorData};
use halfstep_kernels::dispatch::{available, force};
use halfstep_kernels::{ActivationSpec, Pool};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const OBSERVERS: [&str; 6] = ["best", "absmax", "signedAbsmax", "errorSearch", "convex", "lsq"];
const GGUF_TARGETS: [&str; 4] = ["gguf:q4_0", "gguf:q4_1", "gguf:q8_0", "gguf:tq2_0"];
/// Tokens of the text that are measured on, in sequences of which the last is a short one.
const TOKENS: usize = 200;
const SEQUENCE_LENGTH: usize = 80;
/// Tokens whose logits are hashed, and tokens that are generated.
const LOGIT_TOKENS: usize = 48;
const NEW_TOKENS: usize = 20;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn stored() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen/hashes.json")
}

/// Half of a blake3 hash, which is as many bits as a chance match needs.
fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}

/// Names and values of everything that is frozen.
struct Frozen {
    facts: BTreeMap<String, String>,
    /// What is wrong whatever the stored hashes say.
    faults: Vec<String>,
    threads: usize,
}

impl Frozen {
    fn keep(&mut self, name: String, fact: String) {
        if self.facts.insert(name.clone(), fact).is_some() {
            self.faults.push(format!("{name}: two cases have this name"));
        }
    }

    /// The two hashes of a model; and the file, re-opened and saved again, is to be the same file.
    fn model(&mut self, name: &str, model: &Model, format: FileFormat) {
        let plain = Model { provenance: BTreeMap::new(), ..model.clone() };
        let bytes = to_bytes(&plain, format).expect("a file");
        let reopened = load_bytes("frozen", &bytes).expect("what was written is read");
        if to_bytes(&reopened, format).expect("a file") != bytes {
            self.faults.push(format!("{name}: saved again it is another file"));
        }
        if values(&reopened) != values(&plain) {
            self.faults.push(format!("{name}: re-opened it has other values"));
        }
        self.keep(format!("{name} file"), hash(&bytes));
        self.keep(format!("{name} values"), hash(&values(&plain)));
    }

    fn quantized(&self, model: &Model, recipe: &Value) -> Model {
        let config: RecipeConfig = parse_config(&recipe.to_string()).expect("options");
        let run = RunConfig { threads: self.threads, ..RunConfig::default() };
        quantize(model, &config, &run, &mut |_| {}, &Cancel::default()).expect("a model").0
    }

    /// Perplexity and the distance from `teacher`, exact to the bit: every f64 has its own
    /// shortest decimal.
    fn evaluation(&mut self, name: &str, model: &Model, teacher: &Model, arithmetic: Arithmetic) {
        let config = EvaluateConfig {
            data: Some(repository("assets/demo-eval.txt").display().to_string()),
            tokens: TOKENS,
            sequence_length: SEQUENCE_LENGTH,
            arithmetic,
            threads: self.threads,
            ..EvaluateConfig::default()
        };
        let e = evaluate(model, Some(teacher), &config, &mut |_, _| {}, &Cancel::default())
            .expect("an evaluation");
        let (kl, top1) = (e.kl.expect("a teacher"), e.top1_agreement.expect("a teacher"));
        self.keep(
            format!("{name} evaluation"),
            format!(
                "perplexity {:?}, nll {:?}, kl {kl:?}, top1 {top1:?}",
                e.perplexity, e.mean_nll
            ),
        );
    }

    /// Logits of a prefill and the tokens of a decode, greedy and sampled.
    fn forward(&mut self, name: &str, model: Model) {
        let model = LoadedModel::from(model);
        let text = std::fs::read_to_string(repository("assets/demo-eval.txt")).expect("a text");
        let mut tokens = tokenize(&model, &text[..4 * LOGIT_TOKENS * 2], false).expect("tokens");
        tokens.truncate(LOGIT_TOKENS);
        assert_eq!(tokens.len(), LOGIT_TOKENS, "the text is long enough");
        let bytes: Vec<u8> = logits(&model, &tokens)
            .expect("logits")
            .iter()
            .flat_map(|logit| logit.to_le_bytes())
            .collect();
        self.keep(format!("{name} logits"), hash(&bytes));
        for (kind, temperature) in [("greedy", 0.0), ("sampled", 0.8)] {
            let config = GenerationConfig {
                prompt: Some("Once upon a time".into()),
                max_tokens: NEW_TOKENS,
                temperature,
                top_k: 40,
                top_p: 0.9,
                seed: 7,
                threads: self.threads,
                ..GenerationConfig::default()
            };
            let made = generate(&model, &config, &mut |_| {}, &Cancel::default());
            let tokens = made.expect("a text").tokens;
            self.keep(format!("{name} {kind}"), format!("{tokens:?}"));
        }
    }

    /// Every rule for every target, on a part of the model that is soon rounded.
    fn rounding(&mut self, demo: &Model) {
        let model = corner(demo);
        for observer in OBSERVERS {
            for target in GGUF_TARGETS {
                let recipe = json!({"kind": "rtn", "target": target, "observer": observer});
                let quantized = self.quantized(&model, &recipe);
                self.model(&format!("rtn {target} {observer}"), &quantized, FileFormat::Gguf);
            }
            for (bits, group_size, zero_points) in grids() {
                let recipe = json!({
                    "kind": "rtn", "target": "halfstep", "observer": observer, "weights": bits,
                    "groupSize": group_size, "zeroPoints": zero_points,
                });
                let quantized = self.quantized(&model, &recipe);
                let zero_points = if zero_points { " zero points" } else { "" };
                let name = format!("rtn halfstep {bits} bit g{group_size}{zero_points} {observer}");
                self.model(&name, &quantized, FileFormat::Halfstep);
            }
        }
    }

    fn export(&mut self, demo: &Model) {
        self.model("export gguf", demo, FileFormat::Gguf);
        self.model("export halfstep", demo, FileFormat::Halfstep);
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("frozen");
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).expect("a scratch folder");
        let saved = |model: &Model, name: &str| {
            let folder = scratch.join(name);
            save_hugging_face(model, &folder).expect("a folder");
            (files(&folder), folder)
        };
        let (first, folder) = saved(demo, "first");
        let reopened = load(&folder.display().to_string()).expect("what was written is read");
        if saved(&reopened, "second").0 != first {
            self.faults.push("export folder: saved again it is another folder".into());
        }
        for (name, bytes) in first {
            self.keep(format!("export folder {name}"), hash(&bytes));
        }
    }

    /// The model and what rounding makes of it, run.
    fn runs(&mut self, demo: &Model) {
        self.evaluation("run float", demo, demo, Arithmetic::Auto);
        self.forward("run float", demo.clone());
        for (name, options) in run_cases() {
            // The cheapest rule: `rounding` has the others.
            let mut recipe = json!({"kind": "rtn", "observer": "absmax"});
            for (key, value) in options.as_object().expect("options") {
                recipe[key] = value.clone();
            }
            let quantized = self.quantized(demo, &recipe);
            let name = format!("run {name}");
            self.evaluation(&name, &quantized, demo, Arithmetic::Integer);
            self.forward(&name, quantized);
        }
        let plain = json!({"kind": "rtn", "target": "halfstep", "observer": "absmax"});
        let plain = self.quantized(demo, &plain);
        self.evaluation("run halfstep decoded", &plain, demo, Arithmetic::Float);
        for bits in [8, 4] {
            let (name, model) = (format!("run static {bits} bit"), with_static_sites(&plain, bits));
            self.model(&name, &model, FileFormat::Halfstep);
            self.evaluation(&name, &model, demo, Arithmetic::Integer);
            self.forward(&name, model);
        }
        let model = with_low_rank(&plain);
        self.model("run low rank", &model, FileFormat::Halfstep);
        self.evaluation("run low rank", &model, demo, Arithmetic::Integer);
        self.forward("run low rank", model);
    }
}

/// Bits, columns of a group and whether there are zero points, of the grids that `halfstep` holds.
fn grids() -> impl Iterator<Item = (u8, usize, bool)> {
    [2, 3, 4, 8].into_iter().flat_map(|bits| {
        [0, 32, 64].into_iter().flat_map(move |g| [false, true].map(|zero| (bits, g, zero)))
    })
}

/// Targets, caches and activations between them in every kind that a rounded model can have.
fn run_cases() -> [(&'static str, Value); 13] {
    [
        ("q4_0 cache f16", json!({"target": "gguf:q4_0"})),
        ("q4_0 cache f32", json!({"target": "gguf:q4_0", "cache": 32})),
        ("q4_0 cache q8_0", json!({"target": "gguf:q4_0", "cache": 8})),
        ("q4_1 cache f16", json!({"target": "gguf:q4_1"})),
        ("q8_0 cache f16", json!({"target": "gguf:q8_0"})),
        ("tq2_0 cache f16", json!({"target": "gguf:tq2_0"})),
        ("w4 a8 cache f16", json!({"target": "halfstep"})),
        ("w4 a4 cache 4", json!({"target": "halfstep", "activations": 4, "cache": 4})),
        (
            "w3 a16 cache 8",
            json!({"target": "halfstep", "weights": 3, "activations": 16, "cache": 8}),
        ),
        (
            "w8 g32 a8 cache 8",
            json!({"target": "halfstep", "weights": 8, "groupSize": 32, "cache": 8}),
        ),
        ("w2 g64 zero points a8 cache f16", json!({"target": "halfstep", "zeroPoints": true})),
        (
            "w4 g0 zero points a8 cache f32",
            json!({"target": "halfstep", "weights": 4, "groupSize": 0, "zeroPoints": true,
                "cache": 32}),
        ),
        (
            "w4 g32 zero points a16 cache 4",
            json!({"target": "halfstep", "weights": 4, "groupSize": 32, "zeroPoints": true,
                "activations": 16, "cache": 4}),
        ),
    ]
}

/// A small model cut out of a large one: the corner of every matrix of the first layer. It keeps
/// the width, because the blocks of a ternary file have 256 columns.
fn corner(model: &Model) -> Model {
    let architecture = model.architecture.resized(|sizes| {
        (sizes.layers, sizes.vocab_size, sizes.intermediate_size) = (1, 64, 256);
    });
    let cut = |spec: TensorSpec| {
        let tensor = &model.tensors[&spec.name];
        let (rows, cols) = match spec.shape[..] {
            [rows, cols] => (rows, cols),
            _ => (1, tensor.cols()),
        };
        let mut values = vec![0.0; rows * cols];
        values.chunks_mut(cols).enumerate().for_each(|(row, out)| tensor.read(row, 0, out));
        (spec.name, Tensor { shape: spec.shape, data: TensorData::F32(values) })
    };
    let tensors = architecture.tensors().into_iter().map(cut).collect();
    Model { architecture, tensors, tokenizer: None, chat_template: None, ..model.clone() }
}

/// The model with static sites, whose steps are found by training elsewhere and are made up here.
fn with_static_sites(model: &Model, bits: u8) -> Model {
    let mut model = model.clone();
    let (layers, coarse) = (model.architecture.layers.len(), f32::from(1u16 << (8 - bits)));
    let quantization = model.quantization.as_mut().expect("a quantized model");
    quantization.activation = ActivationSpec::of_site(bits);
    quantization.cache = ActivationSpec::of_site(bits);
    for (layer, site) in (0..layers).flat_map(|layer| ActivationSite::USUAL.map(|s| (layer, s))) {
        let step = (0.02 + 0.005 * layer as f32) * coarse;
        quantization.static_scales.insert(site.static_scale_name(layer), step);
    }
    model
}

/// The model with artificial factors of rank 3 for every linear, small as trained ones are.
fn with_low_rank(model: &Model) -> Model {
    const RANK: usize = 3;
    let factor = |n: usize, period: usize| -> Vec<f16> {
        (0..n)
            .map(|i| f16::from_f32(((i * 37 % period) as f32 / period as f32 - 0.5) / 8.0))
            .collect()
    };
    let mut model = model.clone();
    for spec in model.architecture.tensors() {
        if let (Role::Linear(_), &[rows, cols]) = (spec.role, &spec.shape[..]) {
            let (a, b) = (factor(RANK * cols, 101), factor(rows * RANK, 89));
            model.low_rank.insert(spec.name, LowRank { rank: RANK, a, b });
        }
    }
    model
}

/// Every tensor's name, shape and numbers, as bytes: codes, scales and zero points of a packed one,
/// the values in f32 of any other (a file may hold them in a wider type).
fn values(model: &Model) -> Vec<u8> {
    let mut out = vec![];
    for (name, tensor) in &model.tensors {
        out.extend(format!("{name} {:?} ", tensor.shape).bytes());
        match &tensor.data {
            TensorData::Packed(matrix) => {
                let mut codes = vec![0i16; matrix.cols];
                for row in 0..matrix.rows {
                    matrix.row_codes(row, &mut codes);
                    out.extend(codes.iter().flat_map(|code| code.to_le_bytes()));
                }
                out.extend(matrix.scales.iter().flat_map(|scale| scale.to_le_bytes()));
                let zero_points = (0..matrix.scales.len()).map(|i| matrix.zero_point(i));
                out.extend(zero_points.flat_map(i32::to_le_bytes));
            }
            _ => out.extend(tensor.to_f32(&Pool::serial()).iter().flat_map(|v| v.to_le_bytes())),
        }
    }
    for (name, factors) in &model.low_rank {
        out.extend(format!("{name} {} ", factors.rank).bytes());
        out.extend(factors.a.iter().chain(&factors.b).flat_map(|v| v.to_le_bytes()));
    }
    out
}

/// The files of a folder by their names.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("readable"))
        })
        .collect()
}

fn freeze(demo: &Model, threads: usize) -> Frozen {
    let mut frozen = Frozen { facts: BTreeMap::new(), faults: vec![], threads };
    frozen.rounding(demo);
    frozen.export(demo);
    frozen.runs(demo);
    frozen
}

/// One line for each name that is not the same in both.
fn differences(
    level: &str,
    got: &BTreeMap<String, String>,
    want: &BTreeMap<String, String>,
) -> Vec<String> {
    let names: BTreeSet<&String> = got.keys().chain(want.keys()).collect();
    names
        .into_iter()
        .filter(|name| got.get(*name) != want.get(*name))
        .map(|name| {
            let show = |of: Option<&String>| of.map_or("nothing", String::as_str).to_owned();
            format!("{level} {name}: {}, frozen is {}", show(got.get(name)), show(want.get(name)))
        })
        .collect()
}

#[test]
fn what_does_not_depend_on_the_cpu_keeps_its_bytes() {
    let path = repository("assets/demo").display().to_string();
    let demo = Model::clone(&load(&path).expect("the demo model loads"));
    let mut problems = vec![];
    let mut want: Option<BTreeMap<String, String>> =
        if std::env::var_os("HALFSTEP_FREEZE").is_some() {
            None
        } else {
            let text = std::fs::read(stored()).expect("frozen/hashes.json");
            Some(serde_json::from_slice(&text).expect("names and hashes"))
        };
    let anew = want.is_none();
    for (i, level) in available().into_iter().enumerate() {
        assert!(force(level), "the CPU has it");
        let frozen = freeze(&demo, i + 1);
        problems.extend(frozen.faults.iter().map(|fault| format!("{} {fault}", level.name())));
        match &want {
            Some(want) => problems.extend(differences(level.name(), &frozen.facts, want)),
            None => want = Some(frozen.facts),
        }
    }
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
    if anew {
        let json = serde_json::to_string_pretty(&want).expect("json");
        std::fs::write(stored(), json + "\n").expect("writable");
        println!("{} written", stored().display());
    }
}
