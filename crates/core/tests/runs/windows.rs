//! Stages of scope window: layers that train together. A window of one layer is a stage of blocks;
//! wider ones learn from the outputs of their last layer, and a run that is stopped between two of
//! them goes on with the same bytes.

use crate::narrow_demo::DEMO;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::block::{BlockPhase, BlockRates};
use halfstep::recipe::{
    BlockConfig, LowRankConfig, RangeConfig, Recipe, RecipeData, RoundingConfig, Rule, Stage,
    StageStart, Trains, WeightSite, Window,
};
use halfstep::run::{plan_as, quantize_as};
use halfstep::target::TargetId;
use halfstep::{Error, Event, Model};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_kernels::{Granularity, Int, QuantSpec, ScaleCodec};
use std::path::{Path, PathBuf};

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("windows-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// Three layers; two epochs over three texts.
fn config(second_target: bool) -> BlockConfig {
    let rates = BlockRates { ranges: 1e-2, low_rank: 1e-2, weights: 1e-2 };
    let usual = BlockConfig::usual(rates, 0.5);
    let phases = vec![BlockPhase { epochs: 2, ..usual.phases[0] }];
    BlockConfig { samples: 3, sequence_length: 24, phases, second_target, ..usual }
}

/// Weights of 2 bits with factors, by one stage.
fn recipe(stage: Stage) -> Recipe {
    let spec = QuantSpec::int(Int::unsigned(2), Granularity::Group(64), ScaleCodec::F16);
    let low_rank = Some(LowRankConfig::outside(4, 8.0));
    let site = WeightSite { range: RangeConfig::ScaleZero, low_rank, ..WeightSite::absmax(spec) };
    let (id, target) = ("custom".into(), TargetId::Halfstep);
    Recipe {
        id,
        target,
        rules: vec![Rule::weights(site)],
        data: RecipeData::default(),
        stages: vec![stage],
    }
}

const ALL: Trains = Trains { weights: true, norms: true, low_rank: true, ..Trains::SCALES };

fn window(layers: usize, stride: usize) -> Recipe {
    let (from, config) = (StageStart::Original, config(true));
    recipe(Stage::Window { from, trains: ALL, layers, stride, config })
}

/// What was heard of a run.
#[derive(Default)]
struct Heard {
    losses: Vec<f64>,
    /// Number and loss of each finished layer.
    layers: Vec<(u64, f64)>,
    steps: u64,
}

impl Heard {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Step { loss, steps, .. } => {
                self.losses.push(*loss);
                self.steps = *steps;
            }
            Event::Block { block, loss, .. } => self.layers.push((*block, *loss)),
            _ => {}
        }
    }
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

fn run(recipe: &Recipe) -> (Model, Heard) {
    let mut heard = Heard::default();
    let mut hear = |event: Event| heard.hear(&event);
    let (model, report) =
        quantize_as(&DEMO, recipe, &options(None, false), &mut hear, &Cancel::default())
            .expect("a run");
    assert_eq!(report.steps, heard.steps);
    (model, heard)
}

/// The file, without what says how it was made.
fn bytes(model: &Model) -> blake3::Hash {
    let model = Model { provenance: Default::default(), ..model.clone() };
    blake3::hash(&to_bytes(&model, FileFormat::Halfstep).expect("bytes"))
}

#[test]
fn a_window_of_one_layer_is_a_stage_of_blocks() {
    let blocks = Stage::Block { from: StageStart::Original, trains: ALL, config: config(true) };
    let (blocks, alone) = (run(&recipe(blocks)), run(&window(1, 1)));
    assert_eq!(bytes(&blocks.0), bytes(&alone.0));
    assert_eq!(blocks.1.losses, alone.1.losses);
    assert_eq!(blocks.1.layers, alone.1.layers);
}

#[test]
fn windows_cover_every_layer_and_finish_it_once() {
    for layers in 1..8 {
        for (wide, stride) in (1..=layers).flat_map(|wide| (1..=wide).map(move |s| (wide, s))) {
            let window = Window { layers: wide, stride, ..Window::ONE };
            let (mut first, mut count) = (0, 0);
            while first < layers {
                let (all, finished) = (window.at(first, layers), window.finished(first, layers));
                assert!(finished.start == first && !finished.is_empty());
                assert!(all.end >= finished.end && all.end - all.start <= wide);
                (first, count) = (finished.end, count + 1);
            }
            assert_eq!((first, count), (layers, window.count(layers)), "{wide} by {stride}");
        }
    }
}

#[test]
fn layers_of_a_window_learn_from_the_outputs_of_the_last() {
    let steps = 6;
    // Every step sees all texts, so that the losses of two steps can be compared.
    let learned = |layers, stride| {
        let mut recipe = window(layers, stride);
        if let Stage::Window { config, .. } = &mut recipe.stages[0] {
            (config.batch, config.phases[0].epochs) = (config.samples, steps);
        }
        run(&recipe)
    };
    let alone = bytes(&learned(1, 1).0);
    for (layers, stride, windows) in [(2, 1, 2), (2, 2, 2), (3, 1, 1), (3, 3, 1)] {
        let (model, heard) = learned(layers, stride);
        assert_eq!((heard.losses.len(), heard.steps), (windows * steps, (windows * steps) as u64));
        let numbers: Vec<u64> = heard.layers.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2], "{layers} by {stride}");
        for losses in heard.losses.chunks(steps) {
            assert!(losses[steps - 1] < losses[0], "{layers} by {stride}: {losses:?}");
        }
        assert_ne!(bytes(&model), alone, "{layers} by {stride}: the layers learned together");
    }
}

#[test]
fn a_run_that_is_stopped_goes_on_with_the_same_bytes() {
    let mut rounding = window(2, 1);
    if let (Rule::Weight { quantizer: Some(site), .. }, Stage::Window { trains, config, .. }) =
        (&mut rounding.rules[0], &mut rounding.stages[0])
    {
        *site = WeightSite {
            range: RangeConfig::Frozen,
            rounding: RoundingConfig::AdaRound,
            low_rank: None,
            ..*site
        };
        *trains = Trains { norms: true, rounding: true, ..Trains::NONE };
        config.phases[0].rates = config.phases[0].rates.of(*trains);
    }
    for (name, recipe) in [("all", window(2, 1)), ("rounding", rounding)] {
        let (whole, heard) = run(&recipe);
        for stop in [2, 7, 9] {
            let folder = scratch(&format!("{name}-{stop}"));
            let (cancel, mut first) = (Cancel::default(), Heard::default());
            let mut hear = |event: Event| {
                first.hear(&event);
                if first.losses.len() == stop {
                    cancel.cancel();
                }
            };
            let stopped =
                quantize_as(&DEMO, &recipe, &options(Some(&folder), false), &mut hear, &cancel);
            assert!(matches!(stopped, Err(Error::Cancelled { .. })), "{name} at {stop}");
            let mut second = Heard::default();
            let mut hear = |event: Event| second.hear(&event);
            let (resumed, _) = quantize_as(
                &DEMO,
                &recipe,
                &options(Some(&folder), true),
                &mut hear,
                &Cancel::default(),
            )
            .expect("the resumed run");
            assert_eq!(bytes(&resumed), bytes(&whole), "{name} at {stop}");
            // The first window was not trained again where it was finished.
            let kept = if stop > 6 { 6 } else { 0 };
            assert_eq!(second.losses, heard.losses[kept..], "{name} at {stop}");
        }
    }
}

#[test]
fn what_is_open_is_needed_to_go_on() {
    let (recipe, folder) = (window(2, 1), scratch("open"));
    let (whole, heard) = run(&recipe);
    let run = |resume| {
        let mut heard = Heard::default();
        let mut hear = |event: Event| heard.hear(&event);
        let options = options(Some(&folder), resume);
        let made = quantize_as(&DEMO, &recipe, &options, &mut hear, &Cancel::default());
        (bytes(&made.expect("a run").0), heard.losses)
    };
    run(false);
    // Finished windows need no training.
    assert_eq!(run(true), (bytes(&whole), vec![]));
    // Without what the second layer had learned in the first window, that is trained again.
    std::fs::remove_dir_all(folder.join("window-00000001")).expect("it is there");
    let (resumed, losses) = run(true);
    assert_eq!(resumed, bytes(&whole));
    assert_eq!(losses, heard.losses[..6]);
}

#[test]
fn a_plan_knows_the_windows() {
    let plan = |recipe: &Recipe, folder: Option<&Path>| {
        plan_as(&DEMO, recipe, &options(folder, false), &mut |_| {}, &Cancel::default())
            .expect("a plan")
    };
    let folder = scratch("plan");
    let [two, one] = [window(2, 1), window(1, 1)].map(|recipe| plan(&recipe, Some(&folder)));
    assert_eq!((two.steps, one.steps), (12, 18));
    assert!(two.disk_bytes > one.disk_bytes, "open layers are saved too");
}
