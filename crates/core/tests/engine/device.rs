//! The seam for other devices (docs/decisions/0019-device.md): a device whose buffers nobody but
//! itself can open trains to the same bits as the CPU, every operation of the list is needed, and
//! one that fails ends the step and changes nothing, and so does a NaN or infinity. Whole stages are
//! in `device/stages.rs`.

use crate::every_field::delta_rule;
use crate::random_model::random_model;
use crate::strict_device::{Planted, Strict};
use halfstep::Error;
use halfstep::device::{Cpu, Device};
use halfstep::engine::student::{LayerPass, Student, StudentConfig};
use halfstep::engine::{Trainer, state};
use halfstep::host::Host;
use halfstep::layer::block::Context;
use halfstep::layer::finished::Finished;
use halfstep::objective::TermConfig;
use halfstep::objective::block_output::BlockOutputConfig;
use halfstep::objective::channel_moments::ChannelMomentsConfig;
use halfstep::objective::saliency::{Penalty, SaliencyConfig, SaliencyDifference, SaliencyScale};
use halfstep::optimizer::adamw::AdamWConfig;
use halfstep::optimizer::lion::LionConfig;
use halfstep::optimizer::{GroupConfig, Optimizer, OptimizerConfig, Schedule};
use halfstep::quantizer::transform::block_hadamard::BlockHadamardConfig;
use halfstep::quantizer::transform::channel_scale::ChannelScaleConfig;
use halfstep::recipe::{
    LowRankConfig, LowRankPosition, RangeConfig, Recipe, RecipeData, RoundingConfig, Rule, Sites,
    TrainArithmetic, TrainConfig, Trains, TransformConfig, WeightSite,
};
use halfstep::target::TargetId;
use halfstep_formats::architecture::{
    Architecture, Decay, Dense, Experts, FeedForward, HeadOrder, Layer, QkNorm, Routing, Score,
    Sizes,
};
use halfstep_formats::safetensors::Dtype;
use halfstep_formats::{Model, Quantization};
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};
use std::sync::Arc;

mod stages;

const TOKENS: usize = 12;
const SEQUENCES: usize = 2;
const STEPS: u64 = 2;

fn model() -> Model {
    model_of(2)
}

/// A model with everything that a layer can have.
fn model_of(layers: usize) -> Model {
    let sizes = Sizes {
        vocab_size: 40,
        hidden_size: 32,
        intermediate_size: 64,
        layers,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        norm_eps: 1e-5,
        rope_theta: 100.0,
        rope_scaling: None,
        tied_head: true,
        max_positions: 64,
    };
    let mut architecture: Architecture = sizes.decoder("llama");
    architecture.layers[0].mixer = delta_rule(HeadOrder::Grouped, Decay::Logarithm);
    let attention = architecture.layers[1].attention_mut().expect("attention");
    (attention.qkv_bias, attention.gate) = (true, true);
    attention.qk_norm = Some(QkNorm::Head);
    let routing = Routing {
        score: Score::Softmax,
        bias: false,
        choice_bias: false,
        groups: None,
        normalise: true,
        scale: 1.0,
    };
    architecture.layers[1].feed_forward = FeedForward::Experts(Experts {
        count: 3,
        used: 2,
        expert: Dense::swiglu(32),
        routing,
        shared: Some(Dense::swiglu(16)),
        shared_gate: true,
    });
    random_model(architecture, Rng::new(7, 0), 0.3)
}

fn batch(step: u64) -> Vec<u32> {
    let mut rng = Rng::new(5, step);
    (0..SEQUENCES * TOKENS).map(|_| rng.below(40) as u32).collect()
}

/// A recipe without stages, and what trains it.
struct Case {
    name: &'static str,
    recipe: Recipe,
    trains: Trains,
    config: TrainConfig,
}

fn case(
    name: &'static str,
    site: WeightSite,
    activation: ActivationSpec,
    cache: ActivationSpec,
) -> Case {
    let rules = vec![Rule::weights(site), Rule::activations(activation), Rule::cache(cache)];
    let (id, data) = ("custom".into(), RecipeData::default());
    let recipe = Recipe { id, target: TargetId::Halfstep, rules, data, stages: vec![] };
    let (range, rounding) = (site.range.traits(), site.rounding.traits());
    let trains = Trains {
        weights: range.weights_may_learn && rounding.weights_may_learn,
        scales: range.learns && rounding.ranges_may_learn,
        rounding: rounding.learns,
        ..Trains::ALL
    };
    let config = TrainConfig {
        sequence_length: TOKENS,
        batch: SEQUENCES,
        learning_rate: Some(1e-2),
        arithmetic: Some(TrainArithmetic::F32),
        ..TrainConfig::default()
    };
    Case { name, recipe, trains, config }
}

fn cases() -> Vec<Case> {
    let grouped = |int| QuantSpec::int(int, Granularity::Group(16), ScaleCodec::F16);
    let (symmetric, affine) = (grouped(Int::symmetric(4)), grouped(Int::unsigned(3)));
    let (token, head, fixed) =
        (ActivationSpec::token(8), ActivationSpec::head(8), ActivationSpec::of_site(8));
    let site = |spec, range| WeightSite { range, ..WeightSite::absmax(spec) };

    let mut scales = case("learned scales", site(symmetric, RangeConfig::Scale), token, head);
    // Two passes over a batch, and several chunks of the head in each.
    scales.config.micro_batch = Some(1);
    scales.config.loss_bytes = 4 * 2 * 40 * 5;
    scales.config.ce_weight = 0.5;

    let low_rank = Some(LowRankConfig::outside(2, 4.0));
    let affine_site = WeightSite { low_rank, ..site(affine, RangeConfig::ScaleZero) };
    let zero_points = case("scales and zero points, factors", affine_site, fixed, fixed);

    let int8 = site(symmetric, RangeConfig::Absmax);
    let mut integer = case("integer products of absmax", int8, token, head);
    integer.config.arithmetic = Some(TrainArithmetic::Int8Forward);
    integer.config.optimizer = Some(OptimizerConfig::Lion(LionConfig::default()));

    let clips = case("clips", site(affine, RangeConfig::Clip), token, ActivationSpec::F32);
    let learned =
        WeightSite { rounding: RoundingConfig::AdaRound, ..site(symmetric, RangeConfig::Frozen) };
    let rounding = case("rounding", learned, ActivationSpec::F32, ActivationSpec::F32);

    let low_rank =
        Some(LowRankConfig { position: LowRankPosition::Inside, ..LowRankConfig::outside(2, 4.0) });
    let transform = Some(TransformConfig::ChannelScale(ChannelScaleConfig {}));
    let scaled = WeightSite { transform, low_rank, ..site(affine, RangeConfig::ScaleZero) };
    let channels = case("channel scales, factors inside", scaled, token, head);
    let transform = Some(TransformConfig::BlockHadamard(BlockHadamardConfig { size: 16, seed: 1 }));
    let rotated = WeightSite { transform, ..site(symmetric, RangeConfig::Scale) };
    let rotation = case("a rotation", rotated, token, head);
    vec![scales, zero_points, integer, clips, rounding, channels, rotation]
}

fn trainer<D: Device>(device: &D, case: &Case, previous: Option<&Model>) -> Trainer<D> {
    let trains = if previous.is_some() { Trains::SCALES } else { case.trains };
    let (calibration, device) = (batch(9), device.clone());
    Trainer::new(
        &model(),
        previous,
        &case.recipe,
        trains,
        &case.config,
        STEPS,
        &calibration,
        device,
    )
    .unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

/// What training gives, to the bit.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Loss and gradient norm of every step.
    steps: Vec<[u64; 2]>,
    /// Hash of parameters and optimizer state.
    state: blake3::Hash,
    /// Hash of the model as it is stored.
    packed: blake3::Hash,
}

fn hash(value: &impl std::fmt::Debug) -> blake3::Hash {
    blake3::hash(format!("{value:?}").as_bytes())
}

fn state_hash<D: Device<Number = f32>>(trainer: &Trainer<D>) -> blake3::Hash {
    let entries = state::entries(trainer).expect("the state is read");
    let parts = entries.iter().map(|entry| (&entry.name, &entry.data));
    hash(&parts.collect::<Vec<_>>())
}

fn trained<D: Device<Number = f32>>(
    device: &D,
    case: &Case,
    previous: Option<&Model>,
) -> (Outcome, Model) {
    let mut trainer = trainer(device, case, previous);
    let steps = (0..STEPS).map(|step| {
        let report = trainer.step(&batch(step), TOKENS, &Host::default());
        let report = report.unwrap_or_else(|e| panic!("{}, step {step}: {e}", case.name));
        [report.loss.to_bits(), report.gradient_norm.to_bits()]
    });
    let steps = steps.collect();
    trainer.settle().expect("settled");
    let state = state_hash(&trainer);
    let packed = trainer.packed(&model(), &case.recipe).expect("packed");
    let stored = hash(&(&packed.tensors, &packed.low_rank, &packed.linear_parts));
    let outcome = Outcome { steps, state, packed: stored };
    (outcome, packed)
}

/// One step of a layer that learns from the teacher's output: terms at the output, a penalty, a
/// pull, and the layer as it is stored.
fn layer<D: Device<Number = f32>>(device: &D) -> (Vec<u64>, Finished) {
    let (model, case) = (model(), &cases()[1]);
    let sites = Sites::new(&case.recipe.rules, &model.architecture).expect("sites");
    let config = StudentConfig {
        model: &model,
        previous: None,
        sites: &sites,
        trains: Trains { activation_scales: false, ..Trains::ALL },
        anchored: true,
        seed: 1,
        integer: None,
    };
    let mut student = Student::new(config, 1, device).expect("a student");
    let mut ropes = model.architecture.layers.iter().filter_map(Layer::attention);
    let rope = Arc::new(ropes.next_back().expect("attention").rope_table(TOKENS));
    let context = Context {
        device: device.clone(),
        architecture: Arc::new(model.architecture.clone()),
        ropes: vec![rope; model.architecture.layers.len()].into(),
        batch: 1,
        tokens: TOKENS,
        precision: Precision::F32,
        quantization: Arc::new(Quantization::float()),
        edge: EdgeRule::Inside,
    };
    let layers = [(student.weights().expect("weights"), student.sinks())];
    let terms = [
        (TermConfig::BlockOutput(BlockOutputConfig {}), 1.0),
        (TermConfig::ChannelMoments(ChannelMomentsConfig::default()), 0.5),
    ];
    let sequences = SEQUENCES;
    let pass =
        LayerPass { context: &context, layers: &layers, alone: None, terms: &terms, sequences };
    let mut rng = Rng::new(11, 0);
    let mut normal = || (0..TOKENS * 32).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
    let mut losses = vec![];
    for _ in 0..SEQUENCES {
        losses.extend(pass.gradients(normal(), &[], vec![normal()]).expect("gradients"));
    }
    let s = student.matrices.iter().map(|matrix| vec![0.5; matrix.rows * matrix.cols]).collect();
    let saliency = SaliencyConfig {
        lambda: 1.0,
        scale: SaliencyScale::PerMatrix,
        difference: SaliencyDifference::AfterLowRank,
        samples: 1,
        sequence_length: TOKENS,
    };
    let penalty = Penalty::new(s, &saliency);
    losses.push(
        penalty.add(1.0, &student.matrices, &student.parameters, &layers[0].0).expect("a penalty"),
    );
    student.backward().expect("gradients");
    let group = GroupConfig { rate_multiplier: 1.0, weight_decay: 0.1 };
    let mut optimizer = Optimizer {
        rule: OptimizerConfig::AdamW(AdamWConfig::default()),
        schedule: Schedule { steps: 1, warmup: 0, learning_rate: 1e-2, min_ratio: 1.0 },
        max_norm: 1.0,
        weights: group,
        weight_steps: group,
        activation_steps: group,
        norms: group,
        ranges: group,
        low_rank: group,
        anchor: 0.1,
        state: Default::default(),
    };
    losses.push(optimizer.gradient_norm(&student.parameters, 0).expect("a norm"));
    optimizer.update(&mut student.parameters, 0, losses[0]).expect("an update");
    student.settle().expect("settled");
    (losses.into_iter().map(f64::to_bits).collect(), student.finish().expect("a layer"))
}

/// Everything on both devices.
fn compare(cpu: &Cpu, strict: &Strict) {
    let cases = cases();
    for case in &cases {
        let (want, model) = trained(cpu, case, None);
        assert_eq!(trained(strict, case, None).0, want, "{}", case.name);
        if case.trains.weights {
            let (want, _) = trained(cpu, case, Some(&model));
            assert_eq!(trained(strict, case, Some(&model)).0, want, "{}: its codes", case.name);
        }
    }
    stages::compare(cpu, strict);
    let ((want_losses, want), (losses, finished)) = (layer(cpu), layer(strict));
    assert_eq!(losses, want_losses, "a layer");
    let stored = |of: &Finished| hash(&(&of.tensors, &of.low_rank));
    assert_eq!(stored(&finished), stored(&want), "a layer as it is stored");
    let weights = |device: &Strict, integer| {
        finished.weights(device, &model().architecture, 1, |_| integer).expect("its weights").layer
    };
    assert_eq!([weights(strict, true), weights(strict, false)], [1, 1]);
}

/// The operations of the list, from its source.
fn operations() -> Vec<&'static str> {
    let source = include_str!("../../src/device/operations.rs");
    let list = &source[source.find("pub trait Device:").expect("the list")..];
    let names = list.lines().filter_map(|line| line.strip_prefix("    fn "));
    names.filter_map(|line| line.split(['(', '<']).next()).collect()
}

#[test]
fn training_on_opaque_buffers_equals_the_cpu_bit_for_bit_and_needs_every_operation() {
    let (cpu, strict) = (Cpu::new(&Pool::new(2)), Strict::new(1));
    compare(&cpu, &strict);
    let (calls, operations) = (strict.calls(), operations());
    assert!(operations.contains(&"norm_backward") && operations.len() > 30);
    // Made of `read` and `upload` where a device has nothing better.
    let own = operations.iter().filter(|name| **name != "on_host");
    let unused: Vec<_> = own.filter(|name| !calls.contains_key(**name)).collect();
    assert!(unused.is_empty(), "no recipe calls {unused:?}");
}

/// Whether the device failed in an operation.
fn is_failure_of(operation: &str, error: &Error) -> bool {
    matches!(error, Error::Device { operation: failed, .. } if failed == operation)
        && error.code() == "ERR_DEVICE"
        && error.details()["operation"] == operation
}

#[test]
fn an_operation_that_fails_ends_the_step_with_its_error_and_nothing_was_updated() {
    let case = &cases()[0];
    let (cpu, strict) = (Cpu::new(&Pool::new(1)), Strict::new(1));
    let mut healthy = trainer(&cpu, case, None);
    let step = |trainer: &mut Trainer<Strict>| trainer.step(&batch(0), TOKENS, &Host::default());
    let mut tried = trainer(&strict, case, None);
    let mut other = trainer(&strict, case, None);
    let before = strict.calls();
    step(&mut other).expect("a step");
    let called = strict.calls().into_iter().filter(|(name, n)| before.get(name) != Some(n));
    let called: Vec<&str> = called.map(|(name, _)| name).collect();
    // These tell no error, or change parameters themselves.
    let exempt = ["pool", "free_memory", "adamw", "keep_scale_signs"];
    let (state, mut failed) = (state_hash(&tried), 0);
    for operation in called.into_iter().filter(|name| !exempt.contains(name)) {
        strict.fail(Some(operation));
        let error = step(&mut tried).expect_err(operation);
        assert!(is_failure_of(operation, &error), "{operation}: {error}");
        strict.fail(None);
        assert_eq!(state_hash(&tried), state, "{operation}");
        failed += 1;
    }
    assert!(failed > 20, "{failed} operations of a step");
    let want = healthy.step(&batch(0), TOKENS, &Host::default()).expect("a step");
    let got = step(&mut tried).expect("a step after the failures");
    assert_eq!(got.loss.to_bits(), want.loss.to_bits());
    assert_eq!(state_hash(&tried), state_hash(&healthy));
}

/// Whether all numbers of parameters and optimizer state are finite.
fn is_finite(trainer: &Trainer<Strict>) -> bool {
    let entries = state::entries(trainer).expect("the state is read");
    entries.iter().filter(|entry| entry.dtype == Dtype::F32).all(|entry| {
        let numbers = entry.data.as_chunks::<4>().0.iter();
        numbers.map(|bytes| f32::from_le_bytes(*bytes)).all(f32::is_finite)
    })
}

/// Whatever operation gives a NaN or an infinity, in the first or the last of its calls: the step
/// ends before anything is updated; or the number is read by nothing; or it is an infinity where a
/// sigmoid, a softmax or the edge of a grid makes a finite number of it.
#[test]
fn a_number_that_is_not_finite_ends_the_step_before_the_update() {
    let strict = Strict::new(1);
    let (mut caught, mut unread, mut saturated) = (0, 0, 0);
    for case in &cases() {
        let new = || trainer(&strict, case, None);
        let step =
            |trainer: &mut Trainer<Strict>| trainer.step(&batch(0), TOKENS, &Host::default());
        let (mut healthy, before) = (new(), strict.calls());
        let want = step(&mut healthy).expect("a step");
        let want = (want.loss.to_bits(), state_hash(&healthy));
        let calls = strict.calls().into_iter();
        let calls = calls.map(|(name, n)| (name, n - before.get(name).unwrap_or(&0)));
        // What keeps the signs of scales reads only those of what the first two give last, and a rule
        // of update that computes on the host uploads what it made.
        let last = ["store_scales", "store_zero_points", "upload"];
        let calls = calls.map(|(name, n)| (name, if last.contains(&name) { n.min(1) } else { n }));
        let called: Vec<_> = calls.filter(|(_, n)| *n > 0).collect();
        let mut tried = new();
        let state = state_hash(&tried);
        let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let places = called.iter().flat_map(|&(operation, n)| {
            let calls = if n == 1 { vec![0] } else { vec![0, n - 1] };
            calls.into_iter().flat_map(move |after| values.map(|value| (operation, after, value)))
        });
        for (operation, after, value) in places {
            let place = format!("{}: {value} in call {after} of {operation}", case.name);
            strict.plant(Some(Planted { operation: operation.into(), after, value }));
            let result = step(&mut tried);
            // An operation that gives no such numbers, or changes those of the state itself.
            let planted = !strict.is_planted();
            strict.plant(None);
            match result {
                Err(error) => {
                    assert!(matches!(error, Error::NonFinite { .. }), "{place}: {error}");
                    assert_eq!(state_hash(&tried), state, "{place}: something was updated");
                    caught += 1;
                    continue;
                }
                Ok(report) if (report.loss.to_bits(), state_hash(&tried)) == want => {
                    unread += usize::from(planted);
                }
                Ok(report) => {
                    assert!(!value.is_nan(), "{place}: the step went on");
                    assert!(report.loss.is_finite() && is_finite(&tried), "{place}: it spread");
                    saturated += 1;
                }
            }
            tried = new();
        }
    }
    println!(
        "{caught} planted numbers were caught before the update, {saturated} infinities became \
         finite, {unread} numbers are read by nothing"
    );
    assert!(caught > 1000 && 20 * saturated < caught, "{caught} {saturated} {unread}");
}

/// None of many steps in order is refused. `HALFSTEP_STEPS`: how many.
#[test]
fn no_step_in_order_is_refused() {
    let steps = std::env::var("HALFSTEP_STEPS").map_or(500, |n| n.parse().expect("a number"));
    let (cpu, case, calibration) = (Cpu::<f32>::new(&Pool::new(1)), &cases()[0], batch(9));
    let (trains, config) = (case.trains, &case.config);
    let trained =
        Trainer::new(&model(), None, &case.recipe, trains, config, steps, &calibration, cpu);
    let mut trainer = trained.expect("a trainer");
    for number in 0..steps {
        let report = trainer.step(&batch(number), TOKENS, &Host::default());
        report.unwrap_or_else(|e| panic!("step {number}: {e}"));
    }
    println!("{steps} steps, none refused");
}
