//! Whole runs on the small mixture of experts of test/models: what recipes make of experts, what
//! their reports and plans say of them, and what is written and read again.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipes::RecipeConfig;
use halfstep::record::ExpertsRecord;
use halfstep::run::{
    ExpertsInspection, Report, inspect, inspect_file, load, logits, parse_config, plan, quantize,
    save, tokenize,
};
use halfstep::{Event, Model};
use halfstep_formats::architecture::{Linear, Parameter, Role};
use halfstep_formats::{Tensor, TensorData};
use halfstep_kernels::Pool;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const LAYERS: usize = 3;
const EXPERTS: usize = 8;
/// Rows that every expert sees, if there are so many.
const FLOOR: usize = 64;

static MOE: LazyLock<Model> =
    LazyLock::new(|| Model::clone(&load(&file("test/models/moe")).expect("the model")));

/// What each recipe makes of the model in groups of 32 at 4 bits, from 24 sequences of 64 tokens.
static RUNS: LazyLock<BTreeMap<&str, (Model, Report)>> = LazyLock::new(|| {
    let solver = r#""train":{"samples":24,"sequenceLength":64}"#;
    let silq = r#""train":{"tokens":6144,"sequenceLength":64,"batch":8,"learningRate":1e-4}"#;
    let recipes = [("rtn", r#""groupSize":32"#), ("gptq", solver), ("awq", solver), ("silq", silq)];
    let run = |(kind, options): (&'static str, &str)| (kind, quantized(kind, options, true).0);
    recipes.into_iter().map(run).collect()
});

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name).display().to_string()
}

fn recipe(kind: &str, options: &str) -> RecipeConfig {
    let json = format!(r#"{{"kind":"{kind}","target":"gguf:q4_0",{options}}}"#);
    parse_config(&json).expect("a config")
}

/// The result of a recipe, and the warnings of the run.
fn quantized(kind: &str, options: &str, measured: bool) -> ((Model, Report), Vec<String>) {
    let run = RunConfig {
        data: Some(file("assets/demo-train.txt")),
        validation: measured.then(|| file("assets/demo-eval.txt")),
        validation_tokens: Some(2048),
        record: measured,
        threads: 2,
        ..RunConfig::default()
    };
    let mut warnings = vec![];
    let mut keep = |event| {
        if let Event::Warning { message } = event {
            warnings.push(message);
        }
    };
    let made = quantize(&MOE, &recipe(kind, options), &run, &mut keep, &Cancel::default());
    (made.unwrap_or_else(|error| panic!("{kind}: {error}")), warnings)
}

/// A folder of this test's own.
fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("experts");
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

fn text(tokens: usize) -> Vec<u32> {
    let held_out = std::fs::read_to_string(file("assets/demo-eval.txt")).expect("a text");
    let mut ids = tokenize(&MOE, &held_out[..8 * tokens], false).expect("tokens");
    ids.truncate(tokens);
    ids
}

/// Linears of all experts, by weight.
fn expert_weights() -> Vec<String> {
    let experts = (0..EXPERTS as u16).flat_map(Linear::expert);
    let of = |linear: Linear| (0..LAYERS).map(move |layer| linear.weight_name(layer));
    experts.flat_map(of).collect()
}

#[test]
fn recipes_keep_the_held_out_output_of_a_mixture_of_experts() {
    let kl = |kind: &str, subject: &str| RUNS[kind].1.evaluations[subject].kl.expect("measured");
    let rtn = kl("rtn", "result");
    let full = RUNS["rtn"].1.evaluations["fp"].perplexity;
    assert!(full < 120.0, "the model predicts the text: perplexity {full}");
    assert!(rtn > 1e-3 && rtn < 0.02, "rtn {rtn}");
    // AWQ rounds on the grid of the largest magnitude, rtn on that of the least error.
    for (kind, most) in [("gptq", 1.0), ("silq", 1.0), ("awq", 1.25)] {
        let own = kl(kind, "result");
        assert!(own > 0.0 && own < most * rtn, "{kind} {own}, rtn {rtn}");
    }
}

#[test]
fn every_expert_is_a_site_of_its_own() {
    let weights: BTreeSet<String> = expert_weights().into_iter().collect();
    for kind in ["gptq", "awq", "silq"] {
        let (made, report) = &RUNS[kind];
        let record = report.record.as_ref().expect("a record");
        let named =
            record.matrices.iter().map(|m| format!("model.layers.{}.{}.weight", m.block, m.linear));
        let named: BTreeSet<String> = named.collect();
        assert!(weights.is_subset(&named), "{kind}");
        // Each was solved or trained from what it saw.
        for name in &weights {
            let codes = |model: &Model| match &model.tensors[name].data {
                TensorData::Packed(packed) => packed.codes.clone(),
                other => panic!("{name}: {other:?}"),
            };
            assert!(codes(made) != codes(&RUNS["rtn"].0), "{kind}: {name}");
        }
    }
}

#[test]
fn a_report_says_how_many_rows_experts_were_calibrated_on() {
    assert!(RUNS["rtn"].1.experts.is_empty() && RUNS["silq"].1.experts.is_empty());
    for kind in ["gptq", "awq"] {
        let report = &RUNS[kind].1;
        check_rows(&report.experts, 24 * 64);
        let stages = &report.record.as_ref().expect("a record").stages;
        let of_layers: Vec<_> = stages[0].blocks.iter().filter_map(|b| b.experts).collect();
        assert_eq!(report.experts, of_layers);
    }
    // 64 rows, of which no expert gets all: every one is filled up.
    let options = r#""train":{"samples":2,"sequenceLength":32}"#;
    let ((_, report), warnings) = quantized("gptq", options, false);
    check_rows(&report.experts, 64);
    assert!(report.experts.iter().any(|layer| layer.topped_up == EXPERTS));
    assert!(warnings.iter().any(|w| w.contains("few calibration tokens")), "{warnings:?}");
    // Static scales of activations are found on topped up rows too.
    let silq = r#""target":"halfstep","staticActivations":true,
        "train":{"tokens":64,"sequenceLength":16,"batch":4}"#;
    let json = format!(r#"{{"kind":"silq",{silq}}}"#);
    let run = RunConfig { data: Some(file("assets/demo-train.txt")), ..RunConfig::default() };
    let recipe: RecipeConfig = parse_config(&json).expect("a config");
    let made = quantize(&MOE, &recipe, &run, &mut |_| {}, &Cancel::default()).expect("a run");
    assert_eq!(made.1.experts.len(), LAYERS);
    assert!(made.1.experts.iter().all(|layer| layer.topped_up > 0));
}

/// Of all layers, from so many rows of calibration.
fn check_rows(experts: &[ExpertsRecord], rows: usize) {
    assert_eq!(experts.iter().map(|e| e.block).collect::<Vec<_>>(), [0, 1, 2]);
    for layer in experts {
        assert_eq!((layer.experts, layer.floor), (EXPERTS, FLOOR));
        // Two experts for each row, so that the mean is a quarter of the rows.
        let mean = rows / 4;
        assert!(layer.least_rows <= mean && layer.most_rows >= mean, "{layer:?}");
        assert_eq!(layer.topped_up > 0, layer.least_rows < FLOOR, "{layer:?}");
    }
}

#[test]
fn no_expert_of_the_model_is_idle() {
    let options = r#""train":{"samples":16,"sequenceLength":256}"#;
    let ((_, report), _) = quantized("gptq", options, false);
    for layer in &report.experts {
        // Of two rows for each of 4096 tokens; even use would be 1024 rows each.
        assert!(layer.least_rows > 16 && layer.most_rows < 4096, "{layer:?}");
        println!("{layer:?}");
    }
}

#[test]
fn the_router_stays_in_floating_point_and_files_give_the_same_logits() {
    let tokens = text(48);
    for (kind, (made, _)) in RUNS.iter() {
        let path = scratch().join(format!("{kind}.gguf")).display().to_string();
        assert!(save(made, &path).expect("a file").parity);
        let again = load(&path).expect("the file");
        let of_memory = logits(&made.clone().into(), &tokens).expect("logits");
        assert!(of_memory == logits(&again, &tokens).expect("logits"), "{kind}");
        let routers: Vec<_> = MOE
            .architecture
            .tensors()
            .into_iter()
            .filter(|spec| spec.role == Role::Parameter(Parameter::Router))
            .collect();
        assert_eq!(routers.len(), LAYERS);
        for spec in routers {
            let values = |tensor: &Tensor| match &tensor.data {
                TensorData::F32(values) => values.clone(),
                TensorData::BF16(values) => values.iter().map(|v| v.to_f32()).collect(),
                other => panic!("{kind}: {}: {other:?}", spec.name),
            };
            let [own, read] = [made, &*again].map(|model| values(&model.tensors[&spec.name]));
            assert_eq!(own, read);
            // Only training changes it.
            assert_eq!(own == values(&MOE.tensors[&spec.name]), *kind != "silq", "{kind}");
        }
    }
}

#[test]
fn prefill_equals_decode_in_every_byte_with_float_and_packed_experts() {
    let tokens = text(40);
    for model in [&*MOE, &RUNS["gptq"].0] {
        let network = Network::new(model, Arithmetic::Auto, Pool::new(2)).expect("a network");
        let mut cache = Cache::new(&network);
        let mut one_by_one = vec![];
        for token in &tokens {
            one_by_one.extend(network.forward(&[*token], &mut cache, Logits::All).expect("logits"));
        }
        let whole = network.forward(&tokens, &mut Cache::new(&network), Logits::All);
        assert!(whole.expect("logits") == one_by_one);
    }
}

#[test]
fn inspections_and_plans_count_experts() {
    // Gate, up and down of width 128; a token uses 2 of 8.
    let of_expert = 3 * 128 * 128;
    let parameters = (LAYERS * EXPERTS * of_expert) as u64;
    let unused = (LAYERS * (EXPERTS - 2) * of_expert) as u64;
    let check = |found: Option<ExpertsInspection>, bytes: u64| {
        let found = found.expect("experts");
        assert_eq!((found.layers, found.count, found.used), (LAYERS, EXPERTS, 2));
        assert_eq!((found.parameters, found.bytes), (parameters, bytes));
        let all = MOE.architecture.parameters() as u64;
        assert_eq!(found.active_parameters, all - unused);
    };
    check(inspect_file(&file("test/models/moe")).expect("a folder").experts, 2 * parameters);
    check(inspect_file(&file("test/models/moe/config.json")).expect("a config").experts, 0);
    check(inspect(&MOE).experts, 2 * parameters);
    // Q4_0 is 18 bytes for 32 weights.
    let small = parameters / 32 * 18;
    let path = scratch().join("counted.gguf").display().to_string();
    save(&RUNS["rtn"].0, &path).expect("a file");
    check(inspect_file(&path).expect("a file").experts, small);
    let run = RunConfig { validation_tokens: Some(64), ..RunConfig::default() };
    let made =
        plan(&MOE, &recipe("rtn", r#""groupSize":32"#), &run, &mut |_| {}, &Cancel::default());
    check(made.expect("a plan").experts, small);
    let dense = load(&file("assets/demo")).expect("the demo");
    assert_eq!(inspect(&dense).experts, None);
    assert_eq!(inspect_file(&file("assets/demo")).expect("a folder").experts, None);
}
