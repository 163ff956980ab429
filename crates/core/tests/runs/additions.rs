//! What came by addition (docs/decisions/0017-proof-by-addition.md), in whole runs on the demo
//! model: COMQ, Lion, norm tweaking.

use crate::narrow_demo::DEMO;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::objective::channel_moments::ChannelMomentsConfig;
use halfstep::objective::{TermConfig, Weight, WeightedTerm};
use halfstep::optimizer::OptimizerConfig;
use halfstep::optimizer::lion::LionConfig;
use halfstep::recipe::block::{BlockPhase, BlockRates};
use halfstep::recipe::solver_options::SolverOptions;
use halfstep::recipe::{
    BlockConfig, BlockOptions, Common, Recipe, Stage, StageStart, TrainConfig, Trains,
};
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::comq::ComqRecipeConfig;
use halfstep::recipes::gptq::GptqRecipeConfig;
use halfstep::recipes::norm_tweaking::NormTweakingConfig;
use halfstep::recipes::rtn::RtnConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::quantize_as;
use halfstep::target::TargetId;
use halfstep::{Error, Event, Model};
use halfstep_formats::TensorData;
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_kernels::Pool;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::path::{Path, PathBuf};

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn run(folder: Option<&Path>, resume: bool) -> RunConfig {
    RunConfig {
        data: Some(assets("demo-train.txt")),
        run_folder: folder.map(|folder| folder.display().to_string()),
        resume,
        threads: 2,
        ..RunConfig::default()
    }
}

/// The result of a recipe, and the loss of each of its layers.
fn made(recipe: &Recipe) -> (Model, Vec<f64>) {
    let mut losses = vec![];
    let mut watch = |event: Event| {
        if let Event::Block { loss, .. } = event {
            losses.push(loss);
        }
    };
    let run = run(None, false);
    let (model, _) =
        quantize_as(&DEMO, recipe, &run, &mut watch, &Cancel::default()).expect("a run");
    (model, losses)
}

fn text() -> SolverOptions {
    SolverOptions { samples: Some(4), sequence_length: Some(48), ..SolverOptions::default() }
}

/// The file, without what says how it was made.
fn bytes(model: &Model) -> Vec<u8> {
    to_bytes(&Model { provenance: Default::default(), ..model.clone() }, FileFormat::Halfstep)
        .expect("bytes")
}

#[test]
fn comq_gives_outputs_that_are_nearer_than_those_of_nearest_codes() {
    let comq = |change: fn(&mut ComqRecipeConfig)| {
        let mut config = ComqRecipeConfig { train: text(), ..ComqRecipeConfig::default() };
        change(&mut config);
        made(&RecipeConfig::Comq(config).resolve().expect("a recipe"))
    };
    // With so much damping columns hardly make up for each other's errors.
    let nearest = GptqRecipeConfig { train: text(), damping: 10.0, ..GptqRecipeConfig::default() };
    let (_, nearest) = made(&RecipeConfig::Gptq(nearest).resolve().expect("a recipe"));
    let (model, losses) = comq(|_| {});
    assert!(!losses.is_empty() && losses.len() == nearest.len());
    for (layer, (comq, nearest)) in losses.iter().zip(&nearest).enumerate() {
        println!("layer {layer}: comq {comq:.3e}, nearest {nearest:.3e}");
        assert!(comq < nearest, "layer {layer}: {comq} against {nearest}");
    }
    let (two, _) = comq(|config| config.two_streams = true);
    let (left_to_right, _) = comq(|config| config.greedy = false);
    let three = [&model, &two, &left_to_right].map(bytes);
    assert!(three[0] != three[1] && three[0] != three[2], "options reach what they name");
}

/// `silq` by Lion; four steps.
fn by_lion() -> Recipe {
    let train = TrainConfig {
        tokens: 256,
        sequence_length: 32,
        batch: 2,
        learning_rate: Some(1e-5),
        optimizer: Some(OptimizerConfig::Lion(LionConfig::default())),
        ..TrainConfig::default()
    };
    RecipeConfig::Silq(SilqConfig { train, ..SilqConfig::default() }).resolve().expect("a recipe")
}

#[test]
fn a_run_by_lion_that_is_resumed_equals_the_unbroken_one_in_every_byte() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("additions-lion");
    let _ = std::fs::remove_dir_all(&folder);
    let whole = made(&by_lion()).0;
    let cancel = Cancel::default();
    let mut stop = |event: Event| {
        if matches!(event, Event::Step { step: 2, .. }) {
            cancel.cancel();
        }
    };
    match quantize_as(&DEMO, &by_lion(), &run(Some(&folder), false), &mut stop, &cancel) {
        Err(Error::Cancelled { resume: Some(_) }) => {}
        other => panic!("stopped after two steps: {:?}", other.map(|_| ())),
    }
    let mut first = None;
    let mut watch = |event: Event| {
        if let Event::Step { step, .. } = event {
            first.get_or_insert(step);
        }
    };
    let run = run(Some(&folder), true);
    let (resumed, _) =
        quantize_as(&DEMO, &by_lion(), &run, &mut watch, &Cancel::default()).expect("a run");
    assert_eq!(first, Some(3), "it goes on from the second step");
    assert!(bytes_of(&resumed) == bytes_of(&whole));
    let mut adamw = by_lion();
    let Stage::Model { config, .. } = &mut adamw.stages[0] else { panic!("one model stage") };
    config.optimizer = None;
    assert!(bytes_of(&made(&adamw).0) != bytes_of(&whole), "the rule reaches the run");
}

fn bytes_of(model: &Model) -> Vec<u8> {
    to_bytes(&Model { provenance: Default::default(), ..model.clone() }, FileFormat::Gguf)
        .expect("bytes")
}

/// `gptq`, and after it norms that learn by the distance of means and variances.
fn tweaked(rate: f64) -> Recipe {
    let gptq = GptqRecipeConfig { train: text(), ..GptqRecipeConfig::default() };
    let mut recipe = RecipeConfig::Gptq(gptq).resolve().expect("a recipe");
    let rates = BlockRates { weights: rate, ..BlockRates::default() };
    let usual = BlockConfig::usual(rates, 1.0);
    let phase = BlockPhase { epochs: 1, output: false, ..usual.phases[0] };
    let term = TermConfig::ChannelMoments(ChannelMomentsConfig::default());
    let config = BlockConfig {
        samples: 4,
        sequence_length: 48,
        phases: vec![phase],
        terms: vec![WeightedTerm { term, weight: Weight::Constant(1.0) }],
        ..usual
    };
    let trains = Trains { norms: true, ..Trains::NONE };
    recipe.stages.push(Stage::Block { from: StageStart::Previous, trains, config });
    recipe
}

#[test]
fn norm_tweaking_changes_norms_and_no_code() {
    let (still, _) = made(&tweaked(0.0));
    let (tweaked, _) = made(&tweaked(1e-3));
    let (mut norms, mut weights) = (0, 0);
    for (name, tensor) in &tweaked.tensors {
        match (&tensor.data, &still.tensors[name].data) {
            (TensorData::Packed(a), TensorData::Packed(b)) => {
                assert!(a == b, "{name} stays");
                weights += 1;
            }
            (TensorData::F32(a), TensorData::F32(b)) => {
                norms += usize::from(a != b);
                let moved = a.iter().zip(b).any(|(a, b)| (a - b).abs() > 0.1 * b.abs().max(1.0));
                assert!(!moved, "{name} moves a little");
            }
            _ => panic!("{name} is packed in one and not in the other"),
        }
    }
    assert!(weights > 0 && norms > 0, "{norms} norms moved, {weights} weights stayed");
}

/// The first step of AdamW moves by the rate.
#[test]
fn the_rate_of_norm_tweaking_grows_with_the_depth_of_the_layer() {
    let layers = DEMO.architecture.layers.len();
    let steps = |rate_growth| {
        let train = BlockOptions {
            samples: Some(1),
            sequence_length: Some(48),
            epochs: Some(1),
            ..BlockOptions::default()
        };
        let config = NormTweakingConfig { train, rate_growth, ..NormTweakingConfig::default() };
        let (made, _) = made(&config.recipe().expect("a recipe"));
        let step = |layer: usize| {
            let name = format!("model.layers.{layer}.input_layernorm.weight");
            let [before, after] =
                [&*DEMO, &made].map(|model| model.tensors[&name].to_f32(&Pool::new(1)));
            let moved = before.iter().zip(&after).map(|(a, b)| f64::from((a - b).abs()));
            moved.fold(0.0, f64::max)
        };
        (0..layers).map(step).collect::<Vec<_>>()
    };
    for (layer, (alike, grown)) in steps(0.0).into_iter().zip(steps(3.0)).enumerate() {
        let wanted = 1.0 + 3.0 * layer as f64 / layers as f64;
        let ratio = grown / alike;
        assert!((ratio / wanted - 1.0).abs() < 0.01, "layer {layer}: {ratio}, wanted {wanted}");
    }
    let refused = NormTweakingConfig { rate_growth: -1.0, ..NormTweakingConfig::default() };
    match refused.recipe() {
        Err(Error::Config { field, .. }) => assert_eq!(field, "rateGrowth"),
        other => panic!("{other:?}"),
    }
}

/// Distance of the means and variances of every channel of every layer's output from those of the
/// unquantized model, over a text; the first token does not count.
fn distances(model: &Model, tokens: &[u32]) -> Vec<f64> {
    let moments = |model: &Model, arithmetic| {
        let network = Network::new(model, arithmetic, Pool::new(2)).expect("a network");
        let mut layers = vec![];
        let width = model.architecture.hidden_size;
        let mut see = |_: usize, rows: &[f32]| {
            let rows = &rows[width..];
            let tokens = (rows.len() / width) as f64;
            let of =
                |channel: usize| rows.iter().skip(channel).step_by(width).map(|&x| f64::from(x));
            let moments = |channel: usize| {
                let mean = of(channel).sum::<f64>() / tokens;
                [mean, of(channel).map(|x| (x - mean).powi(2)).sum::<f64>() / tokens]
            };
            layers.push((0..width).map(moments).collect::<Vec<_>>());
        };
        let cache = &mut Cache::new(&network);
        network.forward_with(tokens, cache, Logits::None, &mut see).expect("a forward");
        layers
    };
    let wanted = moments(&DEMO, Arithmetic::Float);
    let distance = |(a, b): (&Vec<[f64; 2]>, &Vec<[f64; 2]>)| {
        let of = |(a, b): (&[f64; 2], &[f64; 2])| (a[0] - b[0]).abs() + (a[1] - b[1]).abs();
        a.iter().zip(b).map(of).sum::<f64>() / a.len() as f64
    };
    moments(model, Arithmetic::Integer).iter().zip(&wanted).map(distance).collect()
}

#[test]
fn tweaked_norms_give_means_and_variances_that_are_nearer_than_those_of_rtn() {
    let length = 128;
    let train = BlockOptions {
        samples: Some(16),
        sequence_length: Some(length),
        ..BlockOptions::default()
    };
    let tweaked = NormTweakingConfig { train, ..NormTweakingConfig::default() };
    let (tweaked, _) = made(&tweaked.recipe().expect("a recipe"));
    let common = Common { weights: Some(3.0), group_size: Some(64), ..Common::default() };
    let common = Common { target: Some(TargetId::Halfstep), ..common };
    let rtn = RtnConfig { common, zero_points: true, ..RtnConfig::default() };
    let (rtn, _) = made(&rtn.recipe().expect("a recipe"));
    let codes = |model: &Model| -> Vec<_> {
        let packed = |tensor: &halfstep_formats::Tensor| match &tensor.data {
            TensorData::Packed(packed) => Some(blake3::hash(&packed.codes)),
            _ => None,
        };
        model.tensors.values().filter_map(packed).collect()
    };
    assert_eq!(codes(&tweaked), codes(&rtn), "the codes are those of rtn");
    // A text that was not seen.
    let text = std::fs::read_to_string(assets("demo-eval.txt")).expect("a text");
    let tokenizer = DEMO.tokenizer.clone().expect("a tokenizer");
    let tokens = &tokenizer.encode(&text[..4000], false).expect("tokens")[..length];
    let [tweaked, rtn] = [&tweaked, &rtn].map(|model| distances(model, tokens));
    println!("means and variances: tweaked {tweaked:.4?}, rtn {rtn:.4?}");
    assert!(tweaked.iter().zip(&rtn).all(|(tweaked, rtn)| tweaked < rtn));
}
