//! The vocabulary of recipes: every combination of range, rounding, grid, scope and solver either
//! runs and is exported exactly, or is refused by the path of its field before any work; and the
//! words mean what they say.

use crate::narrow_demo::DEMO;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::block::{BlockPhase, BlockRates, SaliencyConfig};
use halfstep::recipe::{
    BlockConfig, GradientScale, Layers, LowRankConfig, Observer, RangeConfig, Recipe, RecipeData,
    RoundingConfig, Rule, Stage, StageStart, TrainArithmetic, TrainConfig, Trains, WeightSite,
};
use halfstep::run::{quantize_as, save};
use halfstep::solver::SolverConfig;
use halfstep::solver::awq::AwqConfig;
use halfstep::solver::gptq::GptqConfig;
use halfstep::target::TargetId;
use halfstep::{Error, Model, Result};
use halfstep_formats::TensorData;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{ActivationSpec, Granularity, Int, QuantSpec, ScaleCodec};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const TOKENS: usize = 16;
/// Bytes of the text, which is tokenized in every run: more than any run reads.
const TEXT_BYTES: usize = 4096;

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let text = std::fs::read_to_string(assets().join("demo-train.txt")).expect("a text");
    text[..TEXT_BYTES].to_owned()
});

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("parts-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

fn grid(grid: Int, granularity: Granularity, scale_codec: ScaleCodec) -> QuantSpec {
    QuantSpec::int(grid, granularity, scale_codec)
}

/// One of every kind of grid.
fn grids() -> [(&'static str, QuantSpec); 5] {
    [
        ("q4_0", QuantSpec::Q4_0),
        ("q8_0", QuantSpec::Q8_0),
        ("ternary", grid(Int::narrow(2), Granularity::Group(256), ScaleCodec::F16)),
        ("int3 per channel", grid(Int::symmetric(3), Granularity::Channel, ScaleCodec::F32)),
        ("affine int2", grid(Int::unsigned(2), Granularity::Group(64), ScaleCodec::F16)),
    ]
}

fn site(quantizer: QuantSpec, range: RangeConfig) -> WeightSite {
    WeightSite { range, ..WeightSite::absmax(quantizer) }
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

fn blocks(solver: Option<SolverConfig>) -> BlockConfig {
    let rates = BlockRates { ranges: 1e-2, low_rank: 1e-2, weights: 1e-2 };
    let usual = BlockConfig::usual(rates, 1.0);
    let phases = match solver {
        Some(_) => vec![],
        None => vec![BlockPhase { epochs: 1, ..usual.phases[0] }],
    };
    let arithmetic = Some(TrainArithmetic::F32);
    BlockConfig { samples: 2, sequence_length: TOKENS, phases, solver, arithmetic, ..usual }
}

/// Learning rates for what learns alone.
fn trained(trains: Trains) -> BlockConfig {
    let mut config = blocks(None);
    config.phases[0].rates = config.phases[0].rates.of(trains);
    config
}

fn block_stage(from: StageStart, trains: Trains) -> Stage {
    Stage::Block { from, trains, config: trained(trains) }
}

/// Two layers at a time, the second of them again with the third.
fn window_stage(from: StageStart, trains: Trains) -> Stage {
    Stage::Window { from, trains, layers: 2, stride: 1, config: trained(trains) }
}

/// One linear after the other; norms learn nothing there.
fn linear_stage(from: StageStart, trains: Trains) -> Stage {
    let trains = Trains { norms: false, ..trains };
    Stage::Linear { from, trains, config: trained(trains) }
}

type Scope = fn(StageStart, Trains) -> Stage;

const SCOPES: [Scope; 3] = [model_stage, block_stage, window_stage];

fn recipe(rules: Vec<Rule>, stages: Vec<Stage>) -> Recipe {
    let (id, target, data) = ("custom".into(), TargetId::Halfstep, RecipeData::default());
    Recipe { id, target, rules, data, stages }
}

fn run(recipe: &Recipe) -> Result<Model> {
    let run = RunConfig { text: Some(TEXT.clone()), threads: 2, ..RunConfig::default() };
    Ok(quantize_as(&DEMO, recipe, &run, &mut |_| {}, &Cancel::default())?.0)
}

/// Field and reason of a refusal.
fn refusal(recipe: &Recipe) -> (String, String) {
    match run(recipe) {
        Err(Error::Config { field, reason }) => (field, reason),
        Err(Error::Target { grid, reason, .. }) => (grid, reason),
        other => panic!("{other:?}"),
    }
}

/// Everything that a stage can train under these parts.
fn legal(range: RangeConfig, rounding: RoundingConfig) -> Trains {
    let (range, rounding) = (range.traits(), rounding.traits());
    Trains {
        weights: range.weights_may_learn && rounding.weights_may_learn,
        norms: true,
        scales: range.learns && rounding.ranges_may_learn,
        rounding: rounding.learns,
        ..Trains::NONE
    }
}

/// Hash of the values of a tensor.
fn values(model: &Model, name: &str) -> blake3::Hash {
    let values = model.tensors[name].to_f32(&halfstep_kernels::Pool::new(1));
    blake3::hash(bytemuck::cast_slice(&values))
}

/// Hash of the codes of a weight.
fn codes(model: &Model, name: &str) -> blake3::Hash {
    match &model.tensors[name].data {
        TensorData::Packed(packed) => blake3::hash(&packed.codes),
        other => panic!("{name} is not packed: {other:?}"),
    }
}

/// Hash of the scales of a weight.
fn scales(model: &Model, name: &str) -> blake3::Hash {
    match &model.tensors[name].data {
        TensorData::Packed(packed) => blake3::hash(bytemuck::cast_slice(&packed.scales)),
        other => panic!("{name} is not packed: {other:?}"),
    }
}

const Q: &str = "model.layers.0.self_attn.q_proj.weight";
const DOWN: &str = "model.layers.1.mlp.down_proj.weight";
const NORM: &str = "model.layers.0.input_layernorm.weight";

/// Every range, rounding and grid in one scope. Saving passes the parity gate, which re-opens the
/// file and compares codes, scales and logits.
fn walk(name: &str, scope: Scope) {
    let folder = scratch(name);
    let mut walked = 0;
    for &range in RangeConfig::ALL {
        for &rounding in RoundingConfig::ALL {
            for (name, quantizer) in grids() {
                let rule = Rule::weights(WeightSite { rounding, ..site(quantizer, range) });
                let stage = scope(StageStart::Original, legal(range, rounding));
                let recipe = recipe(vec![rule], vec![stage]);
                let what = format!("{range:?} {rounding:?} {name} {:?}", recipe.stages);
                let model = run(&recipe).unwrap_or_else(|e| panic!("{what}: {e}"));
                let path = folder.join("model.safetensors").display().to_string();
                let report = save(&model, &path).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(report.parity, "{what}");
                let norms = recipe.stages[0].trains().norms;
                let moved = values(&model, NORM) != values(&DEMO, NORM);
                assert_eq!(moved, norms, "{what}: norms learned");
                walked += 1;
            }
        }
    }
    println!("{walked} combinations trained, saved and re-opened");
}

// One test for each scope, so that they run at the same time.

#[test]
fn every_range_rounding_and_grid_trains_as_a_model_and_is_exported_exactly() {
    walk("walk-model", model_stage);
}

#[test]
fn every_range_rounding_and_grid_trains_in_blocks_and_is_exported_exactly() {
    walk("walk-blocks", block_stage);
}

#[test]
fn every_range_rounding_and_grid_trains_in_windows_and_is_exported_exactly() {
    walk("walk-windows", window_stage);
}

#[test]
fn every_range_rounding_and_grid_trains_in_linears_and_is_exported_exactly() {
    walk("walk-linears", linear_stage);
}

#[test]
fn every_solver_meets_every_grid() {
    let folder = scratch("solvers");
    let solvers = [
        SolverConfig::Gptq(GptqConfig { damping: 0.01, act_order: true }),
        SolverConfig::Awq(AwqConfig { clip: true }),
    ];
    for solver in solvers {
        for (name, quantizer) in grids() {
            let stage = Stage::Block {
                from: StageStart::Original,
                trains: Trains::NONE,
                config: blocks(Some(solver)),
            };
            let rule = Rule::weights(site(quantizer, RangeConfig::Frozen));
            let model = run(&recipe(vec![rule], vec![stage]))
                .unwrap_or_else(|e| panic!("{solver:?} on {name}: {e}"));
            let path = folder.join("model.safetensors").display().to_string();
            assert!(save(&model, &path).expect("parity").parity, "{solver:?} on {name}");
        }
    }
}

#[test]
fn a_frozen_range_keeps_its_scales_in_every_scope() {
    for scope in SCOPES {
        let rule = Rule::weights(site(QuantSpec::Q4_0, RangeConfig::Frozen));
        let rounded = run(&recipe(vec![rule.clone()], vec![])).expect("rounded");
        let trains = Trains { weights: true, ..Trains::NONE };
        let trained =
            run(&recipe(vec![rule], vec![scope(StageStart::Original, trains)])).expect("trained");
        assert_eq!(scales(&trained, Q), scales(&rounded, Q));
        assert_ne!(codes(&trained, Q), codes(&rounded, Q), "the weights learned");
        assert_eq!(values(&trained, NORM), values(&DEMO, NORM), "the norms did not");
    }
}

#[test]
fn a_step_keeps_its_zero_points_where_step_zero_moves_them() {
    let affine = grid(Int::unsigned(2), Granularity::Group(64), ScaleCodec::F16);
    let zero_points = |model: &Model| match &model.tensors[Q].data {
        TensorData::Packed(packed) => packed.zero_points.clone(),
        other => panic!("{other:?}"),
    };
    let rounded =
        run(&recipe(vec![Rule::weights(site(affine, RangeConfig::Frozen))], vec![])).unwrap();
    for (range, stays) in [(RangeConfig::Scale, true), (RangeConfig::ScaleZero, false)] {
        let mut config = trained(Trains::SCALES);
        config.phases[0].rates.ranges = 2.0;
        let stage = Stage::Block { from: StageStart::Original, trains: Trains::SCALES, config };
        let model = run(&recipe(vec![Rule::weights(site(affine, range))], vec![stage])).unwrap();
        assert_eq!(zero_points(&model) == zero_points(&rounded), stays, "{range:?}");
    }
}

#[test]
fn what_a_stage_trains_is_what_changes() {
    let rule = || Rule::weights(site(QuantSpec::Q4_0, RangeConfig::Scale));
    let frozen = Rule::weights(site(QuantSpec::Q4_0, RangeConfig::Frozen));
    let rounded = run(&recipe(vec![frozen], vec![])).expect("rounded");
    for scope in SCOPES {
        let norms = Trains { norms: true, ..Trains::NONE };
        let model = run(&recipe(vec![rule()], vec![scope(StageStart::Original, norms)])).unwrap();
        assert_eq!(
            (codes(&model, Q), scales(&model, Q)),
            (codes(&rounded, Q), scales(&rounded, Q))
        );
        assert_ne!(values(&model, NORM), values(&DEMO, NORM));
        let weights = Trains { weights: true, ..Trains::NONE };
        let model = run(&recipe(vec![rule()], vec![scope(StageStart::Original, weights)])).unwrap();
        assert_eq!(scales(&model, Q), scales(&rounded, Q));
        assert_ne!(codes(&model, Q), codes(&rounded, Q));
        assert_eq!(values(&model, NORM), values(&DEMO, NORM));
    }
}

#[test]
fn a_stage_goes_on_from_what_the_one_before_stored() {
    let affine = grid(Int::unsigned(3), Granularity::Group(64), ScaleCodec::F16);
    let rules = || vec![Rule::weights(site(affine, RangeConfig::ScaleZero))];
    let block = || {
        let trains = Trains { weights: true, norms: true, ..Trains::SCALES };
        block_stage(StageStart::Original, trains)
    };
    let first = run(&recipe(rules(), vec![block()])).expect("the first stage");
    // Nothing but norms learns: the codes and scales of the first stage stay.
    let norms = Trains { norms: true, ..Trains::NONE };
    for scope in SCOPES {
        let stages = vec![block(), scope(StageStart::Previous, norms)];
        let second = run(&recipe(rules(), stages)).expect("both stages");
        assert_eq!((codes(&second, Q), scales(&second, Q)), (codes(&first, Q), scales(&first, Q)));
        assert_ne!(values(&second, NORM), values(&first, NORM));
        // Scales alone: the codes stay.
        let stages = vec![block(), scope(StageStart::Previous, Trains::SCALES)];
        let second = run(&recipe(rules(), stages)).expect("both stages");
        assert_eq!(codes(&second, Q), codes(&first, Q));
        assert_ne!(scales(&second, Q), scales(&first, Q));
        // Weights too: they begin at the values of the codes.
        let all = Trains { weights: true, norms: true, ..Trains::SCALES };
        let stages = vec![block(), scope(StageStart::Previous, all)];
        let second = run(&recipe(rules(), stages)).expect("both stages");
        assert_ne!(values(&second, Q), values(&first, Q));
    }
    // From the original model, the first of two stages leaves no trace.
    let all = Trains { weights: true, norms: true, ..Trains::SCALES };
    let last = || model_stage(StageStart::Original, all);
    let alone = run(&recipe(rules(), vec![last()])).expect("one stage");
    let after = run(&recipe(rules(), vec![block(), last()])).expect("two stages");
    assert_eq!((codes(&alone, Q), scales(&alone, Q)), (codes(&after, Q), scales(&after, Q)));
}

#[test]
fn two_model_stages_differ_from_the_last_alone() {
    let rules = || vec![Rule::weights(site(QuantSpec::Q4_0, RangeConfig::Scale))];
    let stage = || {
        let trains = Trains { weights: true, norms: true, ..Trains::SCALES };
        model_stage(StageStart::Previous, trains)
    };
    let one = run(&recipe(rules(), vec![stage()])).expect("one");
    let two = run(&recipe(rules(), vec![stage(), stage()])).expect("two");
    assert_ne!(values(&one, NORM), values(&two, NORM));
    assert_ne!(scales(&one, Q), scales(&two, Q));
}

#[test]
fn factors_go_through_model_stages() {
    let affine = grid(Int::unsigned(2), Granularity::Group(64), ScaleCodec::F16);
    let low_rank = Some(LowRankConfig::outside(4, 8.0));
    let rules = || vec![Rule::weights(WeightSite { low_rank, ..site(affine, RangeConfig::Clip) })];
    let both = Trains { low_rank: true, ..Trains::SCALES };
    let block = || block_stage(StageStart::Original, both);
    let first = run(&recipe(rules(), vec![block()])).expect("the first stage");
    let factors = |model: &Model| model.low_rank[Q].b.clone();
    let path = scratch("factors").join("model.safetensors").display().to_string();
    // Scales learn, factors stay; then factors alone.
    let stages = vec![block(), model_stage(StageStart::Previous, Trains::SCALES)];
    let second = run(&recipe(rules(), stages)).expect("scales after factors");
    assert_eq!(factors(&second), factors(&first));
    assert_ne!(scales(&second, Q), scales(&first, Q));
    assert!(save(&second, &path).expect("parity").parity);
    let only = Trains { low_rank: true, ..Trains::NONE };
    let stages = vec![block(), model_stage(StageStart::Previous, only)];
    let second = run(&recipe(rules(), stages)).expect("factors end to end");
    assert_ne!(factors(&second), factors(&first));
    assert_eq!((codes(&second, Q), scales(&second, Q)), (codes(&first, Q), scales(&first, Q)));
    assert!(save(&second, &path).expect("parity").parity);
    // And end to end from the beginning.
    let alone =
        run(&recipe(rules(), vec![model_stage(StageStart::Original, both)])).expect("alone");
    assert!(alone.low_rank[Q].b.iter().any(|b| b.to_f32() != 0.0), "the factors learned");
    assert!(save(&alone, &path).expect("parity").parity);
}

/// What llama.cpp does at the sites that are no weights of layers.
fn others() -> [Rule; 4] {
    [
        Rule::Embedding { quantizer: QuantSpec::Q8_0 },
        Rule::activations(ActivationSpec::BLOCK_32),
        Rule::HeadActivation { quantizer: ActivationSpec::BLOCK_32 },
        Rule::cache(ActivationSpec::F16),
    ]
}

fn gptq_stage() -> Stage {
    let solver = SolverConfig::Gptq(GptqConfig { damping: 0.01, act_order: true });
    let config = blocks(Some(solver));
    Stage::Block { from: StageStart::Original, trains: Trains::NONE, config }
}

#[test]
fn a_weight_gets_the_quantizer_of_its_most_specific_rule() {
    let target = TargetId::GgufQ4_0;
    let all = Trains { weights: true, norms: true, ..Trains::SCALES };
    let weights = |layers: Option<Vec<i64>>, linears: Option<&str>, quantizer| Rule::Weight {
        layers: layers.map(|layers| layers.into_iter().map(Layers::from).collect()),
        linears: linears.map(|name| vec![name.to_owned()]),
        quantizer,
    };
    let rules = |range: RangeConfig| {
        let q8 = Some(site(QuantSpec::Q8_0, range));
        let q4 = Some(site(QuantSpec::Q4_0, range));
        let mut rules = vec![
            weights(None, None, q4),
            weights(None, Some("down_proj"), q8),
            weights(Some(vec![0, -1]), None, q4),
            weights(Some(vec![-1]), Some("q_proj"), None),
            weights(Some(vec![0, -1]), Some("down_proj"), q8),
        ];
        rules.extend(others());
        rules
    };
    for (range, stages) in [
        (RangeConfig::Frozen, vec![]),
        (RangeConfig::Scale, vec![model_stage(StageStart::Original, all)]),
        (RangeConfig::Scale, vec![block_stage(StageStart::Original, all)]),
        (RangeConfig::Scale, vec![window_stage(StageStart::Original, all)]),
        (RangeConfig::Frozen, vec![gptq_stage()]),
    ] {
        let recipe = Recipe { target, ..recipe(rules(range), stages) };
        let model = run(&recipe).expect("a mixed model");
        let quantizer = |name: &str| match &model.tensors[name].data {
            TensorData::Packed(packed) => Some(packed.spec),
            _ => None,
        };
        assert_eq!(quantizer(Q), Some(QuantSpec::Q4_0));
        assert_eq!(quantizer(DOWN), Some(QuantSpec::Q8_0));
        assert_eq!(quantizer("model.layers.2.self_attn.q_proj.weight"), None);
        let path = scratch("mixed").join("model.gguf").display().to_string();
        assert!(save(&model, &path).expect("a mixed file").parity);
    }
}

#[test]
fn what_cannot_be_combined_is_refused_by_its_path() {
    let q4 = |range| Rule::weights(site(QuantSpec::Q4_0, range));
    let affine_tensor = grid(Int::unsigned(4), Granularity::Tensor, ScaleCodec::F32);
    let all = Trains { weights: true, norms: true, ..Trains::SCALES };
    let original = StageStart::Original;
    let named = |linear: &str| Rule::Weight {
        layers: None,
        linears: Some(vec![linear.into()]),
        quantizer: Some(site(QuantSpec::Q4_0, RangeConfig::Scale)),
    };
    let layer = |layer: i64| Rule::Weight {
        layers: Some(vec![layer.into()]),
        linears: None,
        quantizer: Some(site(QuantSpec::Q8_0, RangeConfig::Scale)),
    };
    let gguf = |rules: Vec<Rule>| Recipe { target: TargetId::GgufQ4_0, ..recipe(rules, vec![]) };
    let affine = Rule::weights(site(
        grid(Int::unsigned(2), Granularity::Group(64), ScaleCodec::F16),
        RangeConfig::Frozen,
    ));
    let solver = Some(SolverConfig::Awq(AwqConfig { clip: true }));
    let cases = [
        (
            recipe(
                vec![Rule::weights(site(affine_tensor, RangeConfig::Scale))],
                vec![model_stage(original, all)],
            ),
            "rules[0].quantizer.spec.granularity",
            "channel or group",
        ),
        (
            recipe(vec![q4(RangeConfig::Clip)], vec![block_stage(original, all)]),
            "stages[0].trains.weights",
            "use scale",
        ),
        (
            recipe(vec![q4(RangeConfig::Frozen)], vec![model_stage(original, Trains::SCALES)]),
            "stages[0].trains.scales",
            "use scale",
        ),
        (
            recipe(vec![q4(RangeConfig::Scale)], vec![block_stage(original, Trains::NONE)]),
            "stages[0].trains",
            "nothing learns",
        ),
        (
            recipe(
                vec![q4(RangeConfig::Scale)],
                vec![model_stage(original, Trains { low_rank: true, ..Trains::NONE })],
            ),
            "stages[0].trains.lowRank",
            "lowRank: { rank, alpha }",
        ),
        (
            recipe(
                vec![q4(RangeConfig::Scale)],
                vec![model_stage(original, Trains { activation_scales: true, ..Trains::NONE })],
            ),
            "stages[0].trains.activationScales",
            "static",
        ),
        (
            recipe(
                vec![q4(RangeConfig::Scale)],
                vec![Stage::Block { from: original, trains: all, config: blocks(solver) }],
            ),
            "stages[0].trains",
            "solver trains nothing",
        ),
        (recipe(vec![named("down_prj")], vec![]), "rules[0].linears", "did you mean down_proj?"),
        (recipe(vec![layer(3)], vec![]), "rules[0].layers", "layers 0 to 2"),
        (recipe(vec![layer(-4)], vec![]), "rules[0].layers", "layers 0 to 2"),
        (recipe(vec![named("q_proj"), layer(0)], vec![]), "rules[1]", "equal right"),
        (gguf(vec![affine]), "rules[0]", "4 bit in blocks of 32"),
        (
            gguf(vec![Rule::Embedding { quantizer: QuantSpec::Q4_0 }]),
            "rules[0]",
            "8 bit in blocks of 32",
        ),
        (
            recipe(
                vec![Rule::cache(ActivationSpec::F16), Rule::cache(ActivationSpec::F32)],
                vec![],
            ),
            "rules[1]",
            "already gives the cache",
        ),
    ];
    for (recipe, path, words) in cases {
        let (field, reason) = refusal(&recipe);
        assert_eq!(field, path, "{reason}");
        assert!(reason.contains(words), "{path}: {reason}");
    }
}

/// What nothing reads is refused, not ignored.
#[test]
fn what_nothing_reads_is_refused_by_its_path() {
    let q4 = |range| site(QuantSpec::Q4_0, range);
    let ada = |range| WeightSite { rounding: RoundingConfig::AdaRound, ..q4(range) };
    let by = |observer, range| WeightSite { observer, ..q4(range) };
    let original = StageStart::Original;
    let weights = Trains { weights: true, ..Trains::NONE };
    let low_rank = Some(LowRankConfig::outside(4, 8.0));
    let of = |site: WeightSite, stages: Vec<Stage>| recipe(vec![Rule::weights(site)], stages);
    let model = |trains| vec![model_stage(original, trains)];
    let with = |change: fn(&mut BlockConfig)| {
        let mut stage = block_stage(original, Trains::SCALES);
        let Stage::Block { config, .. } = &mut stage else { panic!("a stage of blocks") };
        change(config);
        of(q4(RangeConfig::Scale), vec![stage])
    };
    let rated = |trains: Trains, change: fn(&mut TrainConfig)| {
        let mut stage = model_stage(original, trains);
        let Stage::Model { config, .. } = &mut stage else { panic!("a stage of the model") };
        change(config);
        of(q4(RangeConfig::Scale), vec![stage])
    };
    let solved = |change: fn(&mut BlockConfig)| {
        let mut stage = gptq_stage();
        let Stage::Block { config, .. } = &mut stage else { panic!("a stage of blocks") };
        change(config);
        of(q4(RangeConfig::Frozen), vec![stage])
    };
    let window = |layers, stride, solver| {
        let config = blocks(solver);
        let trains = if solver.is_some() { Trains::NONE } else { Trains::SCALES };
        let stage = Stage::Window { from: original, trains, layers, stride, config };
        of(q4(RangeConfig::Scale), vec![stage])
    };
    let awq = Some(SolverConfig::Awq(AwqConfig { clip: true }));
    let static_input = |stages: Vec<Stage>| {
        let rules = vec![
            Rule::weights(q4(if stages.is_empty() {
                RangeConfig::Frozen
            } else {
                RangeConfig::Scale
            })),
            Rule::activations(ActivationSpec::of_site(8)),
        ];
        recipe(rules, stages)
    };
    let saliency = || {
        let (scale, difference) = Default::default();
        Some(SaliencyConfig { lambda: 1.0, scale, difference, samples: 1, sequence_length: 8 })
    };
    let rule = "rules[0].quantizer";
    let cases = [
        (of(ada(RangeConfig::Frozen), vec![]), format!("{rule}.rounding"), "use nearest"),
        (of(ada(RangeConfig::Frozen), vec![gptq_stage()]), format!("{rule}.rounding"), "solvers"),
        (
            of(ada(RangeConfig::Frozen), model(Trains { norms: true, ..Trains::NONE })),
            format!("{rule}.rounding"),
            "trains.rounding",
        ),
        (of(q4(RangeConfig::Scale), vec![]), format!("{rule}.range"), "use frozen"),
        (of(q4(RangeConfig::Clip), vec![gptq_stage()]), format!("{rule}.range"), "use frozen"),
        (
            of(by(Observer::ErrorSearch, RangeConfig::Absmax), vec![]),
            format!("{rule}.range"),
            "the observer absmax",
        ),
        (
            of(by(Observer::ErrorSearch, RangeConfig::Absmax), model(weights)),
            format!("{rule}.observer"),
            "in every step",
        ),
        (
            of(by(Observer::Lsq, RangeConfig::Frozen), vec![gptq_stage()]),
            format!("{rule}.observer"),
            "solvers",
        ),
        (
            of(
                WeightSite { gradient_scale: GradientScale::Group, ..q4(RangeConfig::ScaleZero) },
                model(Trains::SCALES),
            ),
            format!("{rule}.gradientScale"),
            "the range scale",
        ),
        (
            of(WeightSite { edge: EdgeRule::Outside, ..q4(RangeConfig::Frozen) }, vec![]),
            format!("{rule}.edge"),
            "leave it out",
        ),
        (
            of(WeightSite { low_rank, ..q4(RangeConfig::Scale) }, model(Trains::SCALES)),
            format!("{rule}.lowRank"),
            "trains.lowRank",
        ),
        (
            of(WeightSite { low_rank, ..q4(RangeConfig::Frozen) }, vec![gptq_stage()]),
            format!("{rule}.lowRank"),
            "trains.lowRank",
        ),
        (static_input(vec![]), "rules[1].quantizer".into(), "scope model"),
        (
            static_input(vec![block_stage(original, Trains::SCALES)]),
            "stages[0].scope".into(),
            "rules[1].quantizer",
        ),
        (solved(|c| c.second_target = true), "stages[0].config.secondTarget".into(), "leave it"),
        (solved(|c| c.anchor = 1.0), "stages[0].config.anchor".into(), "leave it out"),
        (solved(|c| c.batch = 2), "stages[0].config.batch".into(), "must be 1"),
        (solved(|c| c.phases = blocks(None).phases), "stages[0].config.phases".into(), "leave it"),
        (with(|c| c.phases.clear()), "stages[0].config.phases".into(), "add one"),
        (with(|c| c.anchor = 1.0), "stages[0].config.anchor".into(), "trains.weights"),
        (
            with(|c| c.phases[0].saliency = true),
            "stages[0].config.phases[0].saliency".into(),
            "config.saliency",
        ),
        (
            with(|c| c.phases[0].rates.low_rank = 1e-3),
            "stages[0].config.phases[0].rates.lowRank".into(),
            "trains.lowRank",
        ),
        (
            with(|c| c.phases[0].rates.weights = 1e-3),
            "stages[0].config.phases[0].rates.weights".into(),
            "trains.weights",
        ),
        (
            rated(weights, |c| c.weight_scale_multiplier = 2.0),
            "stages[0].config.weightScaleMultiplier".into(),
            "no scale",
        ),
        (
            rated(Trains::SCALES, |c| c.norm_multiplier = 2.0),
            "stages[0].config.normMultiplier".into(),
            "no norm",
        ),
        (
            rated(Trains::SCALES, |c| c.activation_scale_multiplier = 2.0),
            "stages[0].config.activationScaleMultiplier".into(),
            "no stored scale",
        ),
        (
            rated(Trains::SCALES, |c| c.weight_decay = 0.1),
            "stages[0].config.weightDecay".into(),
            "no weight",
        ),
        (window(0, 1, None), "stages[0].layers".into(), "from 1 to 3"),
        (window(4, 1, None), "stages[0].layers".into(), "from 1 to 3"),
        (window(2, 3, None), "stages[0].stride".into(), "from 1 to 2"),
        (window(2, 0, None), "stages[0].stride".into(), "from 1 to 2"),
        (window(2, 1, awq), "stages[0].config.solver".into(), "scope block"),
    ];
    for (recipe, path, words) in cases {
        let (field, reason) = refusal(&recipe);
        assert_eq!(field, path, "{reason}");
        assert!(reason.contains(words), "{path}: {reason}");
    }
    let mut stage = block_stage(original, Trains::SCALES);
    if let Stage::Block { config, .. } = &mut stage {
        config.saliency = saliency();
    }
    let (field, reason) = refusal(&of(q4(RangeConfig::Scale), vec![stage]));
    assert_eq!(field, "stages[0].config.saliency", "{reason}");
}
