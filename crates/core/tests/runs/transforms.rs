//! Transforms of weights and factors inside the quantizer: every one trains in every scope, is stored
//! and computed exactly, and is refused by its path where it cannot be.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::quantizer::transform::block_hadamard::BlockHadamardConfig;
use halfstep::quantizer::transform::channel_scale::ChannelScaleConfig;
use halfstep::recipe::block::{
    BlockPhase, BlockRates, SaliencyConfig, SaliencyDifference, SaliencyScale,
};
use halfstep::recipe::{
    BlockConfig, LowRankConfig, LowRankPosition, RangeConfig, Recipe, RecipeData, RoundingConfig,
    Rule, Stage, StageStart, TrainArithmetic, TrainConfig, Trains, TransformConfig, WeightSite,
};
use halfstep::run::{load, quantize_as, save};
use halfstep::solver::SolverConfig;
use halfstep::solver::gptq::GptqConfig;
use halfstep::target::TargetId;
use halfstep::{Error, Model, Result};
use halfstep_formats::linear_parts::OnlineMap;
use halfstep_formats::{LinearParts, TensorData};
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};
use halfstep_runtime::cache::Cache;
use halfstep_runtime::network::{Arithmetic, Logits, Network};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const TOKENS: usize = 16;
const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const DOWN: &str = "model.layers.1.mlp.down_proj.weight";

static DEMO: LazyLock<Model> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo");
    Model::clone(&load(&folder.display().to_string()).expect("the demo model"))
});

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("transforms-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// A text of a few sequences, so that no run reads more.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo-eval.txt");
    let text = std::fs::read_to_string(whole).expect("a text");
    let path = scratch("text").join("text.txt");
    std::fs::write(&path, &text[..4000]).expect("a text");
    path.display().to_string()
});

const HADAMARD: TransformConfig =
    TransformConfig::BlockHadamard(BlockHadamardConfig { size: 64, seed: 3 });
const SCALES: TransformConfig = TransformConfig::ChannelScale(ChannelScaleConfig {});

fn inside(rank: usize) -> LowRankConfig {
    LowRankConfig { position: LowRankPosition::Inside, ..LowRankConfig::outside(rank, 8.0) }
}

fn spec(bits: u8) -> QuantSpec {
    QuantSpec::int(Int::unsigned(bits), Granularity::Group(64), ScaleCodec::F16)
}

fn site(range: RangeConfig) -> WeightSite {
    WeightSite { range, ..WeightSite::absmax(spec(3)) }
}

fn blocks(trains: Trains) -> BlockConfig {
    let rates = BlockRates { ranges: 1e-2, low_rank: 1e-2, weights: 1e-2 };
    let usual = BlockConfig::usual(rates.of(trains), 1.0);
    let phases = vec![BlockPhase { epochs: 1, ..usual.phases[0] }];
    let arithmetic = Some(TrainArithmetic::F32);
    BlockConfig { samples: 2, sequence_length: TOKENS, phases, arithmetic, ..usual }
}

fn model_stage(from: StageStart, trains: Trains) -> Stage {
    let config = TrainConfig {
        tokens: 2 * TOKENS,
        sequence_length: TOKENS,
        batch: 1,
        learning_rate: Some(1e-3),
        warmup: 0.0,
        arithmetic: Some(TrainArithmetic::F32),
        ..TrainConfig::default()
    };
    Stage::Model { from, trains, config }
}

fn block_stage(from: StageStart, trains: Trains) -> Stage {
    Stage::Block { from, trains, config: blocks(trains) }
}

fn window_stage(from: StageStart, trains: Trains) -> Stage {
    Stage::Window { from, trains, layers: 2, stride: 1, config: blocks(trains) }
}

/// Norms learn nothing there.
fn linear_stage(from: StageStart, trains: Trains) -> Stage {
    let trains = Trains { norms: false, ..trains };
    Stage::Linear { from, trains, config: blocks(trains) }
}

const SCOPES: [fn(StageStart, Trains) -> Stage; 4] =
    [block_stage, model_stage, window_stage, linear_stage];

fn recipe(site: WeightSite, stages: Vec<Stage>) -> Recipe {
    let (id, target, data) = ("custom".into(), TargetId::Halfstep, RecipeData::default());
    let rules = vec![Rule::weights(site), Rule::activations(ActivationSpec::token(8))];
    Recipe { id, target, rules, data, stages }
}

fn run_with(recipe: &Recipe, change: impl FnOnce(&mut RunConfig)) -> Result<Model> {
    let mut run = RunConfig { data: Some(TEXT.clone()), threads: 2, ..RunConfig::default() };
    change(&mut run);
    Ok(quantize_as(&DEMO, recipe, &run, &mut |_| {}, &Cancel::default())?.0)
}

fn run(recipe: &Recipe) -> Result<Model> {
    run_with(recipe, |_| {})
}

fn codes(model: &Model, name: &str) -> blake3::Hash {
    match &model.tensors[name].data {
        TensorData::Packed(packed) => blake3::hash(&packed.codes),
        other => panic!("{name} is not packed: {other:?}"),
    }
}

fn scales(model: &Model, name: &str) -> Vec<f32> {
    match &model.tensors[name].data {
        TensorData::Packed(packed) => packed.scales.clone(),
        other => panic!("{name} is not packed: {other:?}"),
    }
}

/// Saves a model through the parity gate, which re-opens the file.
fn saved(model: &Model, folder: &Path, what: &str) -> u64 {
    let path = folder.join("model.safetensors");
    let report = save(model, &path.display().to_string());
    assert!(report.unwrap_or_else(|e| panic!("{what}: {e}")).parity, "{what}");
    std::fs::metadata(path).expect("a file").len()
}

fn logits(model: &Model, arithmetic: Arithmetic) -> Vec<f32> {
    let network = Network::new(model, arithmetic, Pool::new(2)).expect("a network");
    let tokens: Vec<u32> = (0..24).map(|i| i * 37 % 2048).collect();
    network.forward(&tokens, &mut Cache::new(&network), Logits::All).expect("logits")
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = a.iter().fold(0.0f32, |most, a| most.max(a.abs()));
    a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn every_transform_keeps_what_the_model_computes() {
    let exact = logits(&DEMO, Arithmetic::Float);
    for transform in [HADAMARD, SCALES] {
        let (transform, precise) = (Some(transform), WeightSite::absmax(spec(8)));
        // A scale that learns is a stage's; one that is refused a change stays 1.
        let trains = Trains { transforms: transform == Some(SCALES), norms: true, ..Trains::NONE };
        let mut recipe =
            recipe(WeightSite { transform, ..precise }, vec![block_stage(<_>::default(), trains)]);
        recipe.rules.truncate(1);
        let model = run(&recipe).expect("8 bits");
        assert!(!model.linear_parts.is_empty());
        let difference = largest_difference(&exact, &logits(&model, Arithmetic::Float));
        assert!(difference < 0.05, "{transform:?}: {difference}");
    }
}

#[test]
fn rounding_alone_stores_a_rotation_that_needs_no_stage() {
    let precise = WeightSite { transform: Some(HADAMARD), ..WeightSite::absmax(spec(8)) };
    let mut rounding = recipe(precise, vec![]);
    rounding.rules.truncate(1);
    let model = run(&rounding).expect("rounded");
    let plain = WeightSite { transform: None, ..precise };
    rounding.rules[0] = Rule::weights(plain);
    assert_ne!(codes(&model, DOWN), codes(&run(&rounding).expect("rounded"), DOWN));
    let exact = logits(&DEMO, Arithmetic::Float);
    let difference = largest_difference(&exact, &logits(&model, Arithmetic::Float));
    assert!(difference < 0.02, "{difference}");
    let parts = &model.linear_parts;
    // What q, k and v read is mixed alike; another site has signs of its own.
    let [q, k, down] = [Q, "model.layers.0.self_attn.k_proj.weight", DOWN].map(|n| &parts[n]);
    assert!(q == k && q != down, "{parts:?}");
    assert!(matches!(q.online_map, Some(OnlineMap::BlockHadamard { size: 64, signs: Some(_) })));
    saved(&model, &scratch("rounding"), "rounded");
}

#[test]
fn every_transform_and_factor_trains_in_every_scope_and_is_exported_exactly() {
    let (folder, mut walked) = (scratch("walk"), 0);
    let factors = [None, Some(LowRankConfig::outside(4, 8.0)), Some(inside(4))];
    for transform in [None, Some(HADAMARD), Some(SCALES)] {
        for low_rank in factors.iter().copied().filter(|f| f.is_some() || transform.is_some()) {
            for &range in RangeConfig::ALL {
                let site = WeightSite { transform, low_rank, ..site(range) };
                let traits = range.traits();
                let learns = transform.is_some_and(|t| t.traits().learns);
                let changes = low_rank.is_some_and(|l| l.position.traits().changes_weight);
                let trains = Trains {
                    scales: traits.learns,
                    low_rank: low_rank.is_some(),
                    transforms: learns,
                    norms: true,
                    ..Trains::NONE
                };
                // The scope decides nothing about a range: one of them meets all.
                let scopes =
                    if range == RangeConfig::ScaleZero { &SCOPES[..] } else { &SCOPES[..1] };
                for scope in scopes {
                    let recipe = recipe(site, vec![scope(StageStart::Original, trains)]);
                    let what = format!("{:?}", recipe.rules[0]);
                    if (learns || changes) && !traits.weights_may_learn {
                        assert!(matches!(run(&recipe), Err(Error::Config { .. })), "{what}");
                        continue;
                    }
                    let model = run(&recipe).unwrap_or_else(|e| panic!("{what}: {e}"));
                    saved(&model, &folder, &what);
                    let stored = low_rank.is_some_and(|l| l.position.traits().is_stored);
                    assert_eq!(model.low_rank.contains_key(Q), stored, "{what}");
                    let parts = model.linear_parts.get(Q);
                    assert_eq!(parts.is_some(), transform.is_some(), "{what}");
                    let vector = parts.and_then(|parts| parts.input_vector.as_ref());
                    let learned = |h: &[half::f16]| h.iter().any(|h| h.to_f32() != 1.0);
                    assert_eq!(vector.is_some_and(|h| learned(h)), learns, "{what}");
                    walked += 1;
                }
            }
        }
    }
    println!("{walked} combinations trained, saved and re-opened");
}

#[test]
fn factors_inside_change_codes_and_store_nothing() {
    let folder = scratch("inside");
    let rounded = run(&recipe(site(RangeConfig::Frozen), vec![])).expect("rounded");
    let size = saved(&rounded, &folder, "rounded");
    for scope in SCOPES {
        let site = WeightSite { low_rank: Some(inside(4)), ..site(RangeConfig::Frozen) };
        let trains = Trains { low_rank: true, ..Trains::NONE };
        let model = run(&recipe(site, vec![scope(StageStart::Original, trains)])).expect("trained");
        assert_ne!(codes(&model, Q), codes(&rounded, Q));
        assert!(model.low_rank.is_empty() && model.linear_parts.is_empty());
        // The recipe in the file's metadata is longer; the tensors are not.
        assert!(saved(&model, &folder, "trained").abs_diff(size) < 2000);
    }
}

#[test]
fn a_later_stage_keeps_the_transform_and_goes_on_from_its_codes() {
    for transform in [HADAMARD, SCALES] {
        let site = WeightSite { transform: Some(transform), ..site(RangeConfig::Scale) };
        let learns = transform.traits().learns;
        let all = Trains { weights: true, norms: true, transforms: learns, ..Trains::SCALES };
        let first = || block_stage(StageStart::Original, all);
        let one = run(&recipe(site, vec![first()])).expect("one stage");
        let parts = |model: &Model| -> LinearParts { model.linear_parts[Q].clone() };
        for scope in [block_stage, model_stage, window_stage] {
            let norms = Trains { norms: true, ..Trains::NONE };
            let stages = vec![first(), scope(StageStart::Previous, norms)];
            let two = run(&recipe(site, stages)).expect("two stages");
            assert_eq!((codes(&two, Q), parts(&two)), (codes(&one, Q), parts(&one)));
            let stages = vec![first(), scope(StageStart::Previous, all)];
            let two = run(&recipe(site, stages)).expect("two stages");
            assert_ne!(scales(&two, DOWN), scales(&one, DOWN), "the scales learned");
            assert_eq!(parts(&two) != parts(&one), learns);
            let difference = largest_difference(
                &logits(&one, Arithmetic::Integer),
                &logits(&two, Arithmetic::Integer),
            );
            assert!(difference < 0.5, "the second stage began where the first ended: {difference}");
        }
    }
}

#[test]
fn a_resumed_run_ends_in_the_same_bytes() {
    let folder = scratch("resume");
    for (i, transform) in [HADAMARD, SCALES].into_iter().enumerate() {
        let transforms = transform.traits().learns;
        let site = WeightSite { transform: Some(transform), ..site(RangeConfig::Scale) };
        let trains = Trains { weights: true, transforms, ..Trains::SCALES };
        let recipe = recipe(site, vec![block_stage(StageStart::Original, trains)]);
        let whole = run(&recipe).expect("in one go");
        let run_folder = folder.join(i.to_string()).display().to_string();
        let (cancel, mut blocks) = (Cancel::default(), 0);
        let config = RunConfig {
            data: Some(TEXT.clone()),
            threads: 2,
            run_folder: Some(run_folder.clone()),
            ..RunConfig::default()
        };
        let mut stop = |event| {
            if let halfstep::event::Event::Block { .. } = event {
                blocks += 1;
                if blocks == 2 {
                    cancel.cancel();
                }
            }
        };
        let ended = quantize_as(&DEMO, &recipe, &config, &mut stop, &cancel);
        assert!(matches!(ended, Err(Error::Cancelled { resume: Some(_) })));
        let resumed = run_with(&recipe, |run| {
            (run.run_folder, run.resume) = (Some(run_folder), true);
        });
        let resumed = resumed.expect("resumed");
        assert_eq!(resumed.linear_parts, whole.linear_parts);
        for name in whole.tensors.keys().filter(|name| name.contains("_proj")) {
            assert_eq!(codes(&resumed, name), codes(&whole, name), "{name}");
        }
    }
}

#[test]
fn integer_products_see_the_mapped_input() {
    for transform in [HADAMARD, SCALES] {
        let transforms = transform.traits().learns;
        let site = WeightSite { transform: Some(transform), ..site(RangeConfig::Scale) };
        let trains = Trains { weights: true, transforms, ..Trains::SCALES };
        let mut config = blocks(trains);
        config.arithmetic = Some(TrainArithmetic::Int8Forward);
        let stage = Stage::Block { from: StageStart::Original, trains, config };
        let model = run(&recipe(site, vec![stage])).expect("trained");
        saved(&model, &scratch("integer"), "integer products");
    }
}

#[test]
fn what_cannot_be_combined_is_refused_by_its_path() {
    let hadamard = |size| TransformConfig::BlockHadamard(BlockHadamardConfig { size, seed: 0 });
    let with = |transform| WeightSite { transform: Some(transform), ..site(RangeConfig::Frozen) };
    let weights = Trains { weights: true, ..Trains::NONE };
    let transforms = Trains { transforms: true, ..Trains::NONE };
    let stage = |change: &dyn Fn(&mut BlockConfig)| {
        let mut config = blocks(weights);
        change(&mut config);
        Stage::Block { from: StageStart::Original, trains: weights, config }
    };
    let solver = SolverConfig::Gptq(GptqConfig { damping: 0.01, act_order: true });
    let gptq = Stage::Block {
        from: StageStart::Original,
        trains: Trains::NONE,
        config: BlockConfig { solver: Some(solver), phases: vec![], ..blocks(Trains::NONE) },
    };
    let penalty = stage(&|config| {
        config.saliency = Some(SaliencyConfig {
            lambda: 1.0,
            scale: SaliencyScale::ScaleFree,
            difference: SaliencyDifference::BeforeLowRank,
            samples: 1,
            sequence_length: TOKENS,
        });
        config.phases[0].saliency = true;
    });
    let mut gguf = recipe(with(hadamard(32)), vec![]);
    gguf.target = TargetId::GgufQ4_0;
    gguf.rules = vec![Rule::weights(WeightSite { spec: QuantSpec::Q4_0, ..with(hadamard(32)) })];
    let mut fixed = recipe(with(hadamard(32)), vec![model_stage(StageStart::Original, weights)]);
    fixed.rules[1] = Rule::activations(ActivationSpec::of_site(8));
    let rounding = RoundingConfig::AdaRound;
    let ada = WeightSite { rounding, low_rank: Some(inside(4)), ..site(RangeConfig::Frozen) };
    let learn = |trains| vec![block_stage(StageStart::Original, trains)];
    let low_rank = Trains { low_rank: true, rounding: true, ..Trains::NONE };
    let cases = [
        (recipe(with(hadamard(48)), vec![]), "rules[0].quantizer.transform.size", "at most 256"),
        (recipe(with(hadamard(1024)), vec![]), "rules[0].quantizer.transform.size", "at most 256"),
        (recipe(with(hadamard(0)), vec![]), "rules[0].quantizer.transform.size", "power of two"),
        (recipe(with(SCALES), vec![]), "rules[0].quantizer.transform", "trains.transforms"),
        (recipe(with(SCALES), learn(weights)), "rules[0].quantizer.transform", "no stage trains"),
        (
            recipe(with(hadamard(32)), learn(transforms)),
            "stages[0].trains.transforms",
            "channelScale",
        ),
        (
            recipe(
                WeightSite { transform: Some(SCALES), ..site(RangeConfig::Clip) },
                learn(transforms),
            ),
            "rules[0].quantizer.transform",
            "another range",
        ),
        (recipe(ada, learn(low_rank)), "rules[0].quantizer.lowRank", "another rounding"),
        (recipe(with(hadamard(32)), vec![gptq]), "stages[0].config.solver", "rules[0]"),
        (recipe(with(hadamard(32)), vec![penalty]), "stages[0].config.saliency", "rules[0]"),
        (gguf, "rules[0].quantizer.transform", "cannot store"),
        (fixed, "rules[1].quantizer", "kind dynamic"),
    ];
    for (recipe, path, words) in cases {
        let (field, reason) = match run(&recipe) {
            Err(Error::Config { field, reason }) => (field, reason),
            Err(Error::Target { grid, reason, .. }) => (grid, reason),
            other => panic!("{path}: {:?}", other.err()),
        };
        assert_eq!(field, path, "{reason}");
        assert!(reason.contains(words), "{path}: {reason}");
    }
}
