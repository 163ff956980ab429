//! Stages of scope linear: every linear learns its own output, from what it reads in the quantized
//! layers to what the unquantized one gives for what it reads in the unquantized layers.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::data::Text;
use halfstep::device::Cpu;
use halfstep::layer::block::{Block, BlockSinks, Context};
use halfstep::layer::tensors::{sites, teacher};
use halfstep::objective::channel_moments::ChannelMomentsConfig;
use halfstep::objective::kl::KlConfig;
use halfstep::objective::{TermConfig, Weight, WeightedTerm};
use halfstep::recipe::block::{BlockPhase, BlockRates, SaliencyConfig};
use halfstep::recipe::{
    BlockConfig, LowRankConfig, RangeConfig, Recipe, RecipeData, RoundingConfig, Rule, Stage,
    StageStart, TrainArithmetic, Trains, WeightSite,
};
use halfstep::run::{load, plan_as, quantize_as, save};
use halfstep::solver::SolverConfig;
use halfstep::solver::awq::AwqConfig;
use halfstep::target::TargetId;
use halfstep::{Error, Event, Model};
use halfstep_formats::architecture::{EMBEDDING, Linear};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Quantization, TensorData};
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{ActivationSpec, Granularity, Int, Pool, QuantSpec, ScaleCodec};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

static DEMO: LazyLock<Model> = LazyLock::new(|| Model::clone(&load(&assets("demo")).unwrap()));

const SAMPLES: usize = 3;
const TOKENS: usize = 16;
const LINEARS: usize = 7;

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("linears-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// Steps of all texts at once, so that the losses of two steps can be compared.
fn config(steps: usize) -> BlockConfig {
    let rates = BlockRates { ranges: 1e-2, low_rank: 1e-2, weights: 1e-2 };
    let usual = BlockConfig::usual(rates, 0.5);
    let phases = vec![BlockPhase { epochs: steps, ..usual.phases[0] }];
    BlockConfig {
        samples: SAMPLES,
        sequence_length: TOKENS,
        batch: SAMPLES,
        phases,
        arithmetic: Some(TrainArithmetic::F32),
        ..usual
    }
}

/// Learning rates for what learns alone.
fn rated(trains: Trains, mut config: BlockConfig) -> BlockConfig {
    config.phases.iter_mut().for_each(|phase| phase.rates = phase.rates.of(trains));
    config
}

fn linears(trains: Trains, config: BlockConfig) -> Stage {
    Stage::Linear { from: StageStart::Previous, trains, config: rated(trains, config) }
}

fn site(range: RangeConfig) -> WeightSite {
    let spec = QuantSpec::int(Int::unsigned(2), Granularity::Group(64), ScaleCodec::F16);
    WeightSite { range, ..WeightSite::absmax(spec) }
}

/// Scales, zero points, weights and factors.
fn all_parts() -> (WeightSite, Trains) {
    let low_rank = Some(LowRankConfig::outside(4, 8.0));
    let trains = Trains { weights: true, low_rank: true, ..Trains::SCALES };
    (WeightSite { low_rank, ..site(RangeConfig::ScaleZero) }, trains)
}

/// Steps of rounding between two codes.
fn rounding() -> (WeightSite, Trains) {
    let rounding = RoundingConfig::AdaRound;
    let trains = Trains { rounding: true, ..Trains::NONE };
    (WeightSite { rounding, ..site(RangeConfig::Frozen) }, trains)
}

fn recipe(rules: Vec<Rule>, stages: Vec<Stage>) -> Recipe {
    let (id, target, data) = ("custom".into(), TargetId::Halfstep, RecipeData::default());
    Recipe { id, target, rules, data, stages }
}

fn options(folder: Option<&Path>, resume: bool) -> RunConfig {
    RunConfig {
        data: Some(assets("demo-train.txt")),
        run_folder: folder.map(|folder| folder.display().to_string()),
        resume,
        threads: 2,
        ..RunConfig::default()
    }
}

/// The model, and loss and norm of the gradients of every step.
fn run(recipe: &Recipe) -> (Model, Vec<[f64; 2]>) {
    let mut heard = vec![];
    let mut hear = |event: Event| {
        if let Event::Step { loss, gradient_norm, step, steps, .. } = event {
            heard.push([loss, gradient_norm]);
            assert!(step <= steps);
        }
    };
    let (model, report) =
        quantize_as(&DEMO, recipe, &options(None, false), &mut hear, &Cancel::default())
            .expect("a run");
    assert_eq!(report.steps, heard.len() as u64);
    (model, heard)
}

/// The file, without what says how it was made.
fn bytes(model: &Model) -> blake3::Hash {
    let model = Model { provenance: Default::default(), ..model.clone() };
    blake3::hash(&to_bytes(&model, FileFormat::Halfstep).expect("bytes"))
}

/// Hash of a linear of the first layer as it is stored.
fn stored(model: &Model, linear: Linear) -> blake3::Hash {
    let name = linear.weight_name(0);
    let factors = model.low_rank.get(&name).map(|factors| (&factors.a, &factors.b));
    blake3::hash(format!("{:?} {factors:?}", model.tensors[&name].data).as_bytes())
}

/// Refuses a recipe before any work; field and reason.
fn refusal(recipe: &Recipe) -> (String, String) {
    match quantize_as(&DEMO, recipe, &options(None, false), &mut |_| {}, &Cancel::default()) {
        Err(Error::Config { field, reason }) => (field, reason),
        other => panic!("{other:?}"),
    }
}

/// What the linears of the first layer read from the first texts, with these weights, `[tokens, I]`
/// each.
fn read_by_linears(model: &Model) -> Vec<Vec<f32>> {
    let (device, architecture) =
        (Cpu::<f32>::new(&Pool::new(2)), Arc::new(DEMO.architecture.clone()));
    let text = Text::read(Some(&assets("demo-train.txt")), None, 0).expect("read").expect("a text");
    let tokens = text.sequences(&DEMO, SAMPLES, TOKENS).expect("tokens");
    let weights = teacher(&device, model, 0).expect("weights");
    let ropes = architecture
        .layers
        .iter()
        .map(|layer| Arc::new(layer.attention().expect("attention").rope_table(TOKENS)));
    let context = Context {
        device: device.clone(),
        ropes: ropes.collect(),
        architecture: architecture.clone(),
        batch: 1,
        tokens: TOKENS,
        precision: Precision::F32,
        quantization: Arc::new(model.quantization.clone().unwrap_or_else(Quantization::float)),
        edge: EdgeRule::Inside,
    };
    let (width, sites) = (architecture.hidden_size, sites(&architecture, 0));
    let mut read = vec![vec![]; LINEARS];
    for tokens in tokens.chunks(TOKENS) {
        let mut x = vec![0.0; TOKENS * width];
        for (row, &token) in x.chunks_exact_mut(width).zip(tokens) {
            model.tensors[EMBEDDING].read(token as usize, 0, row);
        }
        let mut see = |site, values: &[f32]| {
            for linear in sites.iter().filter(|(there, _)| *there == site).flat_map(|(_, of)| of) {
                read[number(*linear)].extend_from_slice(values);
            }
        };
        let x = halfstep::autograd::tensor::Tensor::new(x, &[TOKENS, width]).expect("a tensor");
        let (sinks, mut tape) = (BlockSinks::none(), halfstep::autograd::tape::Tape::off(&device));
        Block::new(&context, &weights, &sinks)
            .seen_by(&mut see)
            .forward(&mut tape, &x)
            .expect("a forward");
    }
    read
}

/// Place of a linear in the order of the forward.
fn number(linear: Linear) -> usize {
    Linear::USUAL.iter().position(|of| *of == linear).expect("a usual linear")
}

/// Loss and gradient norm of the first step of each linear are those of its own problem, computed in
/// f64 from what it reads: in the layer whose earlier linears are as they were stored.
#[test]
fn every_linear_learns_its_own_problem() {
    let spec = QuantSpec::int(Int::symmetric(4), Granularity::Group(64), ScaleCodec::F32);
    let rule = |layer: Option<i64>| Rule::Weight {
        layers: layer.map(|layer| vec![layer.into()]),
        linears: None,
        quantizer: Some(WeightSite { range: RangeConfig::Frozen, ..WeightSite::absmax(spec) }),
    };
    let (rounded, _) = run(&recipe(vec![rule(None)], vec![]));
    let trains = Trains { weights: true, ..Trains::NONE };
    let with = |second_target| {
        let config = BlockConfig { second_target, ..config(2) };
        run(&recipe(vec![rule(None)], vec![linears(trains, config)]))
    };
    let (one, both) = (with(false), with(true));
    for ((model, steps), second) in [(one, false), (both, true)] {
        let (plain, quantized) = (read_by_linears(&DEMO), read_by_linears(&model));
        for linear in Linear::USUAL {
            let (i, name) = (number(linear), linear.weight_name(0));
            let (pool, cols) = (Pool::new(1), DEMO.tensors[&name].cols());
            let [w, wq] = [&DEMO, &rounded].map(|model| model.tensors[&name].to_f32(&pool));
            let rows = w.len() / cols;
            let (mut loss, mut gradient) = (0.0, vec![0.0; w.len()]);
            let share = 1.0 / (SAMPLES * TOKENS * rows) as f64;
            for (xp, xq) in plain[i].chunks(cols).zip(quantized[i].chunks(cols)) {
                let dot = |w: &[f32], x: &[f32]| {
                    w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>()
                };
                for row in 0..rows {
                    let of = row * cols..(row + 1) * cols;
                    let y = dot(&wq[of.clone()], xq);
                    let mut targets = vec![dot(&w[of.clone()], xp)];
                    if second {
                        targets.push(dot(&w[of.clone()], xq));
                    }
                    for target in targets {
                        loss += share * (y - target).powi(2);
                        let slope = 2.0 * share * (y - target);
                        let to = gradient[of.clone()].iter_mut().zip(xq);
                        to.for_each(|(to, &x)| *to += slope * f64::from(x));
                    }
                }
            }
            let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            // Each linear has two steps. No gradient reaches the largest weight of a group where its
            // quotient by the scale is rounded up.
            let [got, got_norm] = steps[2 * i];
            let close = |got: f64, want: f64, share: f64| (got - want).abs() < share * want;
            assert!(close(got, loss, 1e-4), "{}: loss {got} for {loss}", linear.name());
            assert!(close(got_norm, norm, 5e-3), "{}: {got_norm} for {norm}", linear.name());
        }
    }
}

#[test]
fn training_lowers_the_loss_of_every_linear() {
    let steps = 8;
    let (site, trains) = all_parts();
    let factors = Trains { low_rank: true, ..Trains::NONE };
    for (name, trains) in [("all", trains), ("factors", factors)] {
        let config = BlockConfig { second_target: true, ..config(steps) };
        let (_, heard) = run(&recipe(vec![Rule::weights(site)], vec![linears(trains, config)]));
        assert_eq!(heard.len(), 3 * LINEARS * steps);
        for (i, losses) in heard.chunks(steps).enumerate() {
            let [first, last] = [losses[0][0], losses[steps - 1][0]];
            assert!(last < first, "{name}, linear {i}: {losses:?}");
        }
    }
}

/// Of two linears that read the same, each is stored as if the other stayed in floating point; what
/// reads their outputs is not.
#[test]
fn linears_of_a_site_learn_by_themselves() {
    let (site, trains) = all_parts();
    let trains = Trains { weights: false, ..trains };
    let stage = || linears(trains, config(3));
    let float = |name: &str| Rule::Weight {
        layers: None,
        linears: Some(vec![name.into()]),
        quantizer: None,
    };
    let (all, _) = run(&recipe(vec![Rule::weights(site)], vec![stage()]));
    for (left, alone, after) in [
        ("k_proj", [Linear::Q, Linear::V], Linear::O),
        ("up_proj", [Linear::Gate, Linear::O], Linear::Down),
    ] {
        let rules = vec![Rule::weights(site), float(left)];
        let (some, heard) = run(&recipe(rules, vec![stage()]));
        assert_eq!(heard.len(), 3 * (LINEARS - 1) * 3, "what stays as it is takes no steps");
        for linear in alone {
            assert_eq!(stored(&some, linear), stored(&all, linear), "{left}, {linear:?}");
        }
        assert_ne!(stored(&some, after), stored(&all, after), "{left}");
    }
}

#[test]
fn a_run_that_is_stopped_goes_on_with_the_same_bytes() {
    for (name, (site, trains)) in [("all", all_parts()), ("rounding", rounding())] {
        let config = BlockConfig { batch: 2, second_target: true, ..config(1) };
        let recipe = recipe(vec![Rule::weights(site)], vec![linears(trains, config)]);
        let (whole, heard) = run(&recipe);
        let layer = 2 * LINEARS;
        for stop in [3, layer + 5] {
            let (folder, cancel, mut count) =
                (scratch(&format!("{name}-{stop}")), Cancel::default(), 0);
            let mut hear = |event: Event| {
                count += usize::from(matches!(event, Event::Step { .. }));
                if count == stop {
                    cancel.cancel();
                }
            };
            let stopped =
                quantize_as(&DEMO, &recipe, &options(Some(&folder), false), &mut hear, &cancel);
            assert!(matches!(stopped, Err(Error::Cancelled { .. })), "{name} at {stop}");
            let mut numbers = vec![];
            let mut hear = |event: Event| {
                if let Event::Step { step, loss, .. } = event {
                    numbers.push((step, loss));
                }
            };
            let options = options(Some(&folder), true);
            let (resumed, _) = quantize_as(&DEMO, &recipe, &options, &mut hear, &Cancel::default())
                .expect("the resumed run");
            assert_eq!(bytes(&resumed), bytes(&whole), "{name} at {stop}");
            // A finished layer is not trained again.
            let kept = stop / layer * layer;
            let rest = heard.iter().enumerate().skip(kept);
            let rest: Vec<_> = rest.map(|(i, [loss, _])| (i as u64 + 1, *loss)).collect();
            assert_eq!(numbers, rest, "{name} at {stop}");
        }
    }
}

#[test]
fn a_saved_model_opens_again_as_it_was_trained() {
    for (name, (site, trains)) in [("all", all_parts()), ("rounding", rounding())] {
        let (model, _) = run(&recipe(vec![Rule::weights(site)], vec![linears(trains, config(1))]));
        let path = scratch(&format!("save-{name}")).join("model.safetensors");
        let report = save(&model, &path.display().to_string()).expect("saved");
        assert!(report.parity, "{name}");
        let again = load(&path.display().to_string()).expect("opened");
        assert_eq!(bytes(&again), bytes(&model), "{name}");
    }
}

/// Linears read what an integer product reads, and go on from the codes that a stage before stored.
#[test]
fn a_stage_goes_on_from_codes_in_integer_products() {
    let rules = vec![
        Rule::weights(site(RangeConfig::ScaleZero)),
        Rule::activations(ActivationSpec::BLOCK_32),
    ];
    let config = || BlockConfig { arithmetic: Some(TrainArithmetic::Int8Forward), ..config(2) };
    let first = Stage::Block {
        from: StageStart::Original,
        trains: Trains::SCALES,
        config: rated(Trains::SCALES, config()),
    };
    let (before, _) = run(&recipe(rules.clone(), vec![first.clone()]));
    let second = linears(Trains::SCALES, config());
    let (after, heard) = run(&recipe(rules, vec![first, second]));
    let packed = |model: &Model, linear: Linear| match &model.tensors[&linear.weight_name(0)].data {
        TensorData::Packed(packed) => packed.clone(),
        other => panic!("{other:?}"),
    };
    for linear in Linear::USUAL {
        let (before, after) = (packed(&before, linear), packed(&after, linear));
        assert!(before.codes == after.codes, "{linear:?}: the codes stay");
        assert!(before.scales != after.scales, "{linear:?}: the scales learn");
    }
    let layers = DEMO.architecture.layers.len();
    assert!(heard[2 * layers..].iter().all(|[loss, _]| *loss > 0.0), "each reads something");
}

/// The penalty of a layer is the sum of those of its linears, whichever way they are trained.
#[test]
fn penalties_of_linears_sum_to_that_of_the_layer() {
    let saliency = SaliencyConfig {
        lambda: 3.0,
        scale: Default::default(),
        difference: Default::default(),
        samples: 1,
        sequence_length: TOKENS,
    };
    let usual = config(1);
    let phases = vec![BlockPhase { output: false, saliency: true, ..usual.phases[0] }];
    let config = BlockConfig { saliency: Some(saliency), phases, ..usual };
    let rules = || vec![Rule::weights(site(RangeConfig::ScaleZero))];
    let (from, trains) = (StageStart::Original, Trains::SCALES);
    let whole = Stage::Block { from, trains, config: rated(trains, config.clone()) };
    let (_, whole) = run(&recipe(rules(), vec![whole]));
    let (_, parts) = run(&recipe(rules(), vec![linears(trains, config)]));
    for (whole, parts) in whole.iter().zip(parts.chunks(LINEARS)) {
        let sum: f64 = parts.iter().map(|[loss, _]| loss).sum();
        assert!(whole[0] > 0.0 && (sum - whole[0]).abs() < 1e-6 * whole[0], "{sum} {whole:?}");
    }
}

/// Terms that look at an output look at that of the linear.
#[test]
fn terms_and_pulls_reach_a_linear() {
    let (site, trains) = all_parts();
    let with = |change: &dyn Fn(&mut BlockConfig)| {
        let mut config = config(2);
        change(&mut config);
        run(&recipe(vec![Rule::weights(site)], vec![linears(trains, config)]))
    };
    let (plain, losses) = with(&|_| {});
    let (pulled, _) = with(&|config| config.anchor = 0.5);
    assert_ne!(bytes(&pulled), bytes(&plain));
    let term = TermConfig::ChannelMoments(ChannelMomentsConfig::default());
    let term = WeightedTerm { term, weight: Weight::Constant(1.0) };
    let (_, more) = with(&|config| config.terms = vec![term]);
    assert!(more[0][0] > losses[0][0], "{} {}", more[0][0], losses[0][0]);
}

#[test]
fn what_a_linear_cannot_train_is_refused_by_its_path() {
    let (site, trains) = all_parts();
    let with = |trains: Trains, change: &dyn Fn(&mut BlockConfig)| {
        let mut config = config(1);
        change(&mut config);
        refusal(&recipe(vec![Rule::weights(site)], vec![linears(trains, config)]))
    };
    let kl = TermConfig::Kl(KlConfig { temperature: 1.0 });
    let kl = WeightedTerm { term: kl, weight: Weight::Constant(1.0) };
    let solved = |config: &mut BlockConfig| {
        config.solver = Some(SolverConfig::Awq(AwqConfig { clip: true }));
        config.phases.clear();
    };
    for ((field, reason), path, words) in [
        (with(Trains { norms: true, ..trains }, &|_| {}), "stages[0].trains.norms", "scope block"),
        (with(Trains::NONE, &solved), "stages[0].config.solver", "scope block"),
        (with(Trains::NONE, &|_| {}), "stages[0].trains", "nothing learns"),
        (
            with(trains, &|config| config.terms = vec![kl]),
            "stages[0].config.terms[0].term",
            "scope linear",
        ),
    ] {
        assert_eq!(field, path, "{reason}");
        assert!(reason.contains(words), "{path}: {reason}");
    }
}

#[test]
fn a_plan_knows_the_linears() {
    let (site, trains) = all_parts();
    let plan = |stage: Stage, folder: Option<&Path>| {
        let recipe = recipe(vec![Rule::weights(site)], vec![stage]);
        plan_as(&DEMO, &recipe, &options(folder, false), &mut |_| {}, &Cancel::default())
            .expect("a plan")
    };
    let folder = scratch("plan");
    let stage = linears(trains, config(5));
    let one = plan(stage.clone(), Some(&folder));
    assert_eq!(one.steps, (3 * LINEARS * 5) as u64);
    assert_eq!(one.tokens, one.steps * (SAMPLES * TOKENS) as u64);
    // The folder as the plan says.
    let recipe = recipe(vec![Rule::weights(site)], vec![stage]);
    quantize_as(&DEMO, &recipe, &options(Some(&folder), false), &mut |_| {}, &Cancel::default())
        .expect("a run");
    let bytes: u64 = walk(&folder);
    let (said, is) = (one.disk_bytes as f64, bytes as f64);
    assert!((said - is).abs() < 0.02 * is, "{said} bytes on disk for {is}");
}

/// Bytes of all files below.
fn walk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one"));
    let bytes = |entry: std::fs::DirEntry| match entry.metadata().expect("metadata") {
        data if data.is_dir() => walk(&entry.path()),
        data => data.len(),
    };
    entries.map(bytes).sum()
}
