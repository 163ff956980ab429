//! Whole stages, those that go layer by layer among them, on both devices; and a run whose device
//! fails.

use super::{TOKENS, hash, is_failure_of, model_of};
use crate::every_field::architectures;
use crate::random_model::random_model;
use crate::strict_device::Strict;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::data::Text;
use halfstep::device::{Cpu, Device};
use halfstep::engine::Progress;
use halfstep::engine::stages::{Training, TrainingInputs};
use halfstep::event::Evaluations;
use halfstep::host::Host;
use halfstep::recipe::block::{
    BlockPhase, BlockRates, SaliencyConfig, SaliencyDifference, SaliencyScale,
};
use halfstep::recipe::{
    BlockConfig, LowRankConfig, RangeConfig, Recipe, RecipeData, Rule, Stage, StageStart,
    TrainArithmetic, TrainConfig, Trains, WeightSite,
};
use halfstep::run::{load, quantize_on, quantize_with};
use halfstep::solver::SolverConfig;
use halfstep::solver::awq::AwqConfig;
use halfstep::solver::comq::ComqConfig;
use halfstep::solver::gptq::GptqConfig;
use halfstep::target::TargetId;
use halfstep::{Event, Model, Result};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Of the in-memory host.
const FOLDER: &str = "run-of-the-device-test";
const SAMPLES: usize = 3;

/// Enough for a window of two layers that overlaps with the next.
static MODEL: LazyLock<Model> = LazyLock::new(|| model_of(3));

fn config() -> BlockConfig {
    let rates = BlockRates { ranges: 1e-2, low_rank: 1e-2, weights: 1e-2 };
    let usual = BlockConfig::usual(rates, 0.5);
    BlockConfig {
        samples: SAMPLES,
        sequence_length: TOKENS,
        batch: 2,
        phases: vec![BlockPhase { epochs: 1, ..usual.phases[0] }],
        arithmetic: Some(TrainArithmetic::F32),
        ..usual
    }
}

fn recipe(name: &str, site: WeightSite, stages: Vec<Stage>) -> Recipe {
    let rules = vec![
        Rule::weights(site),
        Rule::activations(ActivationSpec::token(8)),
        Rule::cache(ActivationSpec::head(8)),
    ];
    let (id, target, data) = (name.into(), TargetId::Halfstep, RecipeData::default());
    Recipe { id, target, rules, data, stages }
}

/// Ranges, weights, norms and factors, with two targets, a penalty and a pull; then the scales end
/// to end.
fn blocks() -> Recipe {
    let spec = QuantSpec::int(Int::unsigned(2), Granularity::Group(16), ScaleCodec::F16);
    let low_rank = Some(LowRankConfig::outside(2, 4.0));
    let site = WeightSite { range: RangeConfig::ScaleZero, low_rank, ..WeightSite::absmax(spec) };
    let saliency = SaliencyConfig {
        lambda: 1.0,
        scale: SaliencyScale::ScaleFree,
        difference: SaliencyDifference::AfterLowRank,
        samples: 2,
        sequence_length: TOKENS,
    };
    let usual = config();
    let config = BlockConfig {
        second_target: true,
        saliency: Some(saliency),
        anchor: 0.1,
        phases: vec![BlockPhase { saliency: true, ..usual.phases[0] }],
        ..usual
    };
    let trains = Trains { weights: true, norms: true, low_rank: true, ..Trains::SCALES };
    let end = TrainConfig {
        tokens: 2 * TOKENS,
        sequence_length: TOKENS,
        batch: 1,
        arithmetic: Some(TrainArithmetic::F32),
        ..TrainConfig::default()
    };
    let stages = vec![
        Stage::Block { from: StageStart::Original, trains, config },
        Stage::Model { from: StageStart::Previous, trains: Trains::SCALES, config: end },
    ];
    recipe("blocks", site, stages)
}

/// Every layer but the first begins in the window before its last.
fn windows() -> Recipe {
    let spec = QuantSpec::int(Int::symmetric(4), Granularity::Group(16), ScaleCodec::F16);
    let site = WeightSite { range: RangeConfig::Scale, ..WeightSite::absmax(spec) };
    let usual = config();
    let config = BlockConfig {
        second_target: true,
        arithmetic: Some(TrainArithmetic::Int8Forward),
        ..usual
    };
    let trains = Trains { weights: true, norms: true, ..Trains::SCALES };
    let from = StageStart::Original;
    recipe("windows", site, vec![Stage::Window { from, trains, layers: 2, stride: 1, config }])
}

fn solved(name: &str, solver: SolverConfig) -> Recipe {
    let spec = QuantSpec::int(Int::unsigned(3), Granularity::Group(16), ScaleCodec::F16);
    let config = BlockConfig { solver: Some(solver), phases: vec![], batch: 1, ..config() };
    let (from, trains) = (StageStart::Original, Trains::NONE);
    recipe(name, WeightSite::absmax(spec), vec![Stage::Block { from, trains, config }])
}

fn gptq() -> Recipe {
    solved("gptq", SolverConfig::Gptq(GptqConfig { damping: 0.01, act_order: true }))
}

fn recipes() -> [Recipe; 5] {
    let comq = ComqConfig {
        passes: 2,
        greedy: true,
        from_nearest: false,
        two_streams: true,
        damping: 0.01,
        update_scales: true,
    };
    [
        blocks(),
        windows(),
        gptq(),
        solved("awq", SolverConfig::Awq(AwqConfig { clip: true })),
        solved("comq", SolverConfig::Comq(comq)),
    ]
}

/// What a run gives, to the bit.
#[derive(Debug, PartialEq)]
struct Outcome {
    losses: Vec<u64>,
    packed: blake3::Hash,
}

/// A whole run by its steps; `folder`: whether it keeps what it finishes.
fn run<D: Device<Number = f32>>(
    device: &D,
    recipe: &Recipe,
    how: (bool, bool),
    host: &Host,
    watch: &mut dyn FnMut(&Event),
) -> Result<Outcome> {
    run_of(&MODEL, device, recipe, how, host, watch)
}

fn run_of<D: Device<Number = f32>>(
    model: &Model,
    device: &D,
    recipe: &Recipe,
    (folder, resume): (bool, bool),
    host: &Host,
    watch: &mut dyn FnMut(&Event),
) -> Result<Outcome> {
    let mut rng = Rng::new(3, 0);
    let vocab = model.architecture.vocab_size as u64;
    let tokens = (0..SAMPLES * TOKENS).map(|_| rng.below(vocab) as u32).collect();
    let (text, pool) = (Text::generated(tokens), Pool::new(1));
    let run_folder = folder.then(|| FOLDER.to_owned());
    let run = &RunConfig { run_folder, resume, threads: 1, ..RunConfig::default() };
    let inputs = TrainingInputs { model, recipe, run, text: &text, host, pool: &pool };
    let mut measure = |_: &Model, _: &mut dyn FnMut(Event)| Ok(Evaluations::new());
    let mut training = Training::on(device.clone(), inputs, &mut measure);
    let mut losses = vec![];
    loop {
        let mut hear = |event: Event| {
            if let Event::Step { loss, .. } = event {
                losses.push(loss.to_bits());
            }
            watch(&event);
        };
        if let Progress::Done(made) = training.step(&mut hear)? {
            let packed = hash(&(&made.model.tensors, &made.model.low_rank));
            return Ok(Outcome { losses, packed });
        }
    }
}

fn in_memory() -> Host {
    Host::in_memory(|| 0.0, Cancel::default())
}

/// Every stage on both devices.
pub fn compare(cpu: &Cpu, strict: &Strict) {
    for recipe in recipes() {
        let made = |outcome: Result<Outcome>| outcome.unwrap_or_else(|e| panic!("{e}"));
        let want = made(run(cpu, &recipe, (false, false), &in_memory(), &mut |_| {}));
        let got = made(run(strict, &recipe, (false, false), &in_memory(), &mut |_| {}));
        assert_eq!(got, want, "{}", recipe.id);
    }
}

/// Blocks, windows and solvers on every field of an architecture; a resumed run reads the same
/// beside its layers.
#[test]
fn stages_of_layers_know_every_field() {
    let cpu = Cpu::new(&Pool::new(2));
    for (name, architecture) in architectures() {
        let model = random_model(architecture, Rng::new(9, 0), 0.3);
        for recipe in recipes() {
            let (host, mut topped_up) = (in_memory(), 0);
            let mut hear = |event: &Event| {
                let few = "the router sends few calibration tokens";
                let told = matches!(event, Event::Warning { message } if message.contains(few));
                topped_up += usize::from(told);
            };
            let made = run_of(&model, &cpu, &recipe, (true, false), &host, &mut hear);
            let made = made.unwrap_or_else(|e| panic!("{name}, {}: {e}", recipe.id));
            let losses = made.losses.iter().map(|bits| f64::from_bits(*bits));
            assert!(losses.into_iter().all(f64::is_finite), "{name}, {}", recipe.id);
            // Solvers see every expert; there are fewer tokens than the floor.
            let layers = model.architecture.layers.iter();
            let experts = layers.filter(|layer| layer.feed_forward.experts().is_some()).count();
            let solves = ["gptq", "awq", "comq"].contains(&&*recipe.id);
            assert_eq!(topped_up, if solves { experts } else { 0 }, "{name}, {}", recipe.id);
            let again = run_of(&model, &cpu, &recipe, (true, true), &host, &mut |_| {});
            let again = again.unwrap_or_else(|e| panic!("{name}, {}: {e}", recipe.id));
            assert_eq!(again.packed, made.packed, "{name}, {}", recipe.id);
        }
    }
}

#[test]
fn linears_of_experts_do_not_learn_one_by_one() {
    let (from, trains) = (StageStart::Original, Trains::SCALES);
    let stage = Stage::Linear { from, trains, config: config() };
    let spec = QuantSpec::int(Int::symmetric(4), Granularity::Group(16), ScaleCodec::F16);
    let site = WeightSite { range: RangeConfig::Scale, ..WeightSite::absmax(spec) };
    let recipe = recipe("linears", site, vec![stage]);
    let cpu = Cpu::new(&Pool::new(2));
    let e = run(&cpu, &recipe, (false, false), &in_memory(), &mut |_| {}).expect_err("refused");
    assert!(e.to_string().starts_with("scope: layer 1 has experts"), "{e}");
}

#[test]
fn a_window_that_goes_on_from_what_was_saved_gives_the_same_bytes() {
    let (strict, host, recipe) = (Strict::new(1), in_memory(), windows());
    let want = run(&strict, &recipe, (false, false), &in_memory(), &mut |_| {}).expect("a run");
    // Stopped where the first layer is finished and the second has learned.
    let mut saved = 0;
    let mut stop = |event: &Event| {
        saved += usize::from(matches!(event, Event::Checkpoint { .. }));
        if saved == 1 {
            strict.fail(Some("linear_backward_input"));
        }
    };
    run(&strict, &recipe, (true, false), &host, &mut stop).expect_err("it was stopped");
    strict.fail(None);
    let mut resumed = false;
    let mut hear = |event: &Event| {
        resumed |= matches!(event, Event::Phase { name, .. } if name == "resume");
    };
    let got = run(&strict, &recipe, (true, true), &host, &mut hear).expect("a run");
    assert!(resumed && got.losses.len() < want.losses.len(), "nothing was trained twice");
    assert_eq!(got.packed, want.packed);
}

/// What a store holds under the run folder, with the sizes of files.
fn files(host: &Host, folder: &Path) -> BTreeSet<(PathBuf, Option<u64>)> {
    let mut found = BTreeSet::new();
    for path in host.store.list(folder).unwrap_or_default() {
        if host.store.is_folder(&path) {
            found.extend(files(host, &path));
        }
        let size = host.store.size(&path).ok();
        found.insert((path, size));
    }
    found
}

#[test]
fn an_operation_that_fails_in_a_stage_of_layers_ends_the_run_and_leaves_what_was_finished() {
    for recipe in [Recipe { stages: blocks().stages[..1].to_vec(), ..blocks() }, gptq()] {
        let strict = Strict::new(1);
        let mut at_checkpoint = None;
        let mut watch = |event: &Event| {
            if at_checkpoint.is_none() && matches!(event, Event::Checkpoint { .. }) {
                at_checkpoint = Some(strict.calls());
            }
        };
        let want = run(&strict, &recipe, (true, false), &in_memory(), &mut watch).expect("a run");
        let (before, all) = (at_checkpoint.expect("a finished layer"), strict.calls());
        // These tell no error.
        let tells = |name: &&str| !["pool", "free_memory"].contains(name);
        let called: Vec<&str> = all.keys().copied().filter(tells).collect();
        let later = called.iter().filter(|name| before.get(*name) != all.get(*name)).copied();
        let cases = called.iter().map(|name| (*name, false)).chain(later.map(|name| (name, true)));
        let mut failed = [0, 0];
        for (operation, after_a_layer) in cases {
            let (host, mut finished) = (in_memory(), None);
            strict.fail((!after_a_layer).then_some(operation));
            let mut watch = |event: &Event| {
                if after_a_layer && matches!(event, Event::Checkpoint { .. }) {
                    strict.fail(Some(operation));
                    finished = Some(files(&host, Path::new(FOLDER)));
                }
            };
            let ended = run(&strict, &recipe, (true, false), &host, &mut watch);
            let error = ended.expect_err(operation);
            assert!(is_failure_of(operation, &error), "{}, {operation}: {error}", recipe.id);
            let block = Path::new(FOLDER).join("block-00000000");
            // The first layer may not call it.
            let kept = after_a_layer || !before.contains_key(operation);
            assert_eq!(host.store.exists(&block), kept, "{operation}");
            if let Some(finished) = finished {
                assert_eq!(files(&host, Path::new(FOLDER)), finished, "{operation}");
            }
            strict.fail(None);
            let got = run(&strict, &recipe, (true, true), &host, &mut |_| {}).expect(operation);
            assert_eq!(got.packed, want.packed, "{operation}");
            let anew = got.losses.len() == want.losses.len();
            assert!(want.losses.is_empty() || anew != kept, "{operation}");
            failed[usize::from(after_a_layer)] += 1;
        }
        let least = if recipe.id == "gptq" { 10 } else { 20 };
        assert!(failed.iter().all(|&n| n > least), "{}: {failed:?} operations", recipe.id);
    }
}

/// The demo model with everything around the training: the text, a record with squared gradients,
/// the report.
#[test]
fn a_whole_run_on_another_device_gives_the_bytes_of_the_cpu() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let demo = load(&assets.join("demo").display().to_string()).expect("the demo model");
    let recipe = gptq();
    let recipe = Recipe { rules: recipe.rules[..1].to_vec(), ..recipe };
    let data = Some(assets.join("demo-train.txt").display().to_string());
    let options = RunConfig { data, record: true, threads: 2, ..RunConfig::default() };
    let bytes = |(model, report): (Model, halfstep::run::Report)| {
        let record = report.record.expect("a record");
        assert!(record.matrices.iter().all(|matrix| matrix.saliency.is_some()));
        blake3::hash(&to_bytes(&model, FileFormat::Halfstep).expect("bytes"))
    };
    let cpu = quantize_on(&demo, &recipe, &options, &mut |_| {}, &in_memory()).expect("a run");
    let strict = Strict::new(1);
    let other = quantize_with(&demo, &recipe, &options, strict.clone(), &mut |_| {}, &in_memory());
    assert_eq!(bytes(other.expect("a run")), bytes(cpu));
    assert!(strict.calls()["linear"] > 0 && strict.calls()["cross_entropy"] > 0);
}
