//! The engine as a machine: a run by its steps alone, on a host without a disk or a clock, gives
//! the bytes of a run on the machine; one dropped between two steps goes on from what the host
//! holds.

use crate::strict_device::Strict;
use halfstep::cancel::Cancel;
use halfstep::config::options::{RunConfig, Switch};
use halfstep::data::Text;
use halfstep::data::self_generated::{Generation, Settings, generate};
use halfstep::engine::Progress;
use halfstep::engine::stages::{Training, TrainingInputs};
use halfstep::event::Evaluations;
use halfstep::host::Host;
use halfstep::recipe::block::BlockOptions;
use halfstep::recipe::solver_options::SolverOptions;
use halfstep::recipe::{Common, TrainConfig};
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::efficientqat::EfficientqatConfig;
use halfstep::recipes::gptq::GptqRecipeConfig;
use halfstep::recipes::sapr::SaprConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::{load, quantize, quantize_on};
use halfstep::{Error, Event, Model};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_kernels::Pool;
use std::path::Path;
use std::sync::LazyLock;

/// On every host a path without a folder on the disk.
const FOLDER: &str = "run-of-the-steps-test";

static DEMO: LazyLock<Model> =
    LazyLock::new(|| Model::clone(&load(&assets("demo")).expect("the demo model loads")));

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn text() -> String {
    std::fs::read_to_string(assets("demo-train.txt")).expect("a text")
}

fn run(folder: bool, resume: bool) -> RunConfig {
    RunConfig {
        text: Some(text()),
        run_folder: folder.then(|| FOLDER.into()),
        checkpoint_every: folder.then_some(1),
        resume,
        threads: 2,
        ..RunConfig::default()
    }
}

fn blocks() -> BlockOptions {
    BlockOptions {
        samples: Some(4),
        sequence_length: Some(32),
        batch: Some(2),
        epochs: Some(2),
        seed: 5,
        ..BlockOptions::default()
    }
}

/// A block stage, and a model stage that goes on from it.
fn two_stages() -> RecipeConfig {
    RecipeConfig::Efficientqat(EfficientqatConfig {
        train: blocks(),
        end_tokens: 3 * 32,
        ..EfficientqatConfig::default()
    })
}

/// With whether there is a run folder.
fn recipes() -> [(&'static str, RecipeConfig, bool); 4] {
    let train = TrainConfig {
        tokens: 3 * 2 * 32,
        sequence_length: 32,
        batch: 2,
        micro_batch: Some(1),
        ..TrainConfig::default()
    };
    let solver =
        SolverOptions { samples: Some(3), sequence_length: Some(32), ..SolverOptions::default() };
    let sapr = SaprConfig { train: blocks(), saliency_samples: 2, ..SaprConfig::default() };
    let two_bits = Common { weights: Some(2.0), ..Common::default() };
    [
        ("two stages", two_stages(), true),
        ("model", RecipeConfig::Silq(SilqConfig { train, ..SilqConfig::default() }), false),
        ("squared gradients", RecipeConfig::Sapr(sapr), false),
        (
            "solver",
            RecipeConfig::Gptq(GptqRecipeConfig {
                common: two_bits,
                train: solver,
                ..GptqRecipeConfig::default()
            }),
            true,
        ),
    ]
}

/// The file, without what says how it was made.
fn bytes(model: &Model) -> Vec<u8> {
    to_bytes(&Model { provenance: Default::default(), ..model.clone() }, FileFormat::Halfstep)
        .expect("bytes")
}

/// What `quantize` gives on the machine, without a run folder.
fn natively(recipe: &RecipeConfig) -> Vec<u8> {
    let made = quantize(&DEMO, recipe, &run(false, false), &mut |_| {}, &Cancel::default());
    bytes(&made.expect("a run").0)
}

fn in_memory() -> Host {
    Host::in_memory(|| 0.0, Cancel::default())
}

/// Calls `step` up to `most` times; the steps that it took, and the result if it was done then.
/// Every event is shown to `watch` with the number of its step.
fn stepped(
    recipe: &RecipeConfig,
    host: &Host,
    run: &RunConfig,
    most: usize,
    watch: &mut dyn FnMut(usize, Event),
) -> (usize, Option<Vec<u8>>) {
    let recipe = recipe.resolve().expect("a recipe");
    let text = Text::read(None, run.text.as_deref(), 0).expect("a text").expect("a text");
    let pool = Pool::new(run.threads);
    let inputs =
        TrainingInputs { model: &DEMO, recipe: &recipe, run, text: &text, host, pool: &pool };
    let mut measure = |_: &Model, _: &mut dyn FnMut(Event)| Ok(Evaluations::new());
    let mut training = Training::new(inputs, &mut measure);
    for number in 0..most {
        if let Progress::Done(made) =
            training.step(&mut |event| watch(number, event)).expect("a step")
        {
            let after = training.step(&mut |_| {});
            assert!(matches!(after, Err(Error::Internal { .. })), "no step follows the last");
            return (number + 1, Some(bytes(&made.model)));
        }
    }
    (most, None)
}

#[test]
fn by_steps_alone_and_without_a_disk_it_is_the_same_file() {
    for (name, recipe, folder) in recipes() {
        let native = natively(&recipe);
        let (host, mut of_step) = (in_memory(), vec![]);
        let mut watch = |number: usize, event: Event| {
            if matches!(event, Event::Step { .. } | Event::Checkpoint { .. }) {
                of_step.push(number);
            }
        };
        let run = run(folder, false);
        let (_, made) = stepped(&recipe, &host, &run, usize::MAX, &mut watch);
        assert!(made.expect("an end") == native, "{name}: the file differs");
        let all = of_step.len();
        of_step.dedup();
        assert_eq!(of_step.len(), all, "{name}: a step did two pieces of work");
        assert_eq!(host.store.exists(Path::new(FOLDER)), folder, "{name}");
        if name == "solver" {
            // The loop that the bindings call gives the same there.
            let recipe = recipe.resolve().expect("a recipe");
            let made = quantize_on(&DEMO, &recipe, &run, &mut |_| {}, &in_memory());
            assert!(bytes(&made.expect("a run").0) == native, "{name}: quantize in memory");
        }
    }
    assert!(!Path::new(FOLDER).exists(), "nothing was written to the disk");
}

#[test]
fn dropped_after_any_number_of_steps_it_goes_on_from_what_the_host_holds() {
    let recipe = two_stages();
    let native = natively(&recipe);
    let mut trained = 0;
    let mut count = |event: &Event| trained += u64::from(matches!(event, Event::Step { .. }));
    let (all, _) =
        stepped(&recipe, &in_memory(), &run(true, false), usize::MAX, &mut |_, e| count(&e));
    let steps = trained;
    for stop in [all / 4, all / 2, all - 4, all - 1] {
        let (host, mut trained) = (in_memory(), 0);
        let (_, made) = stepped(&recipe, &host, &run(true, false), stop, &mut |_, _| {});
        assert!(made.is_none(), "stopped after {stop} of {all} steps");
        let mut watch = |_, event| trained += u64::from(matches!(event, Event::Step { .. }));
        let (_, made) = stepped(&recipe, &host, &run(true, true), usize::MAX, &mut watch);
        assert!(made.expect("an end") == native, "stopped after {stop} of {all} steps");
        assert!(stop < all / 2 || trained < steps, "{stop}: nothing is trained twice");
    }
    // Stopped over and over: each part gets a little further.
    let (host, mut resume) = (in_memory(), false);
    let parts = (0..2 * all).find_map(|_| {
        let (_, made) = stepped(&recipe, &host, &run(true, resume), 3 * all / 4, &mut |_, _| {});
        resume = true;
        made
    });
    assert!(parts.expect("an end") == native, "stopped many times");
}

/// Calls of one operation tell how many sequences went through a layer.
#[test]
fn a_step_that_is_no_optimizer_step_does_not_see_more_than_one_sequence() {
    let sapr = SaprConfig { train: blocks(), saliency_samples: 3, ..SaprConfig::default() };
    // The squared gradients of the stage, and those of a report.
    for (recipe, record) in [(RecipeConfig::Sapr(sapr), false), (two_stages(), true)] {
        let (recipe, host, device) =
            (recipe.resolve().expect("a recipe"), in_memory(), Strict::new(2));
        let run = RunConfig { record, ..run(true, false) };
        let text = Text::read(None, run.text.as_deref(), 0).expect("a text").expect("a text");
        let (run, text, host, pool) = (&run, &text, &host, &Pool::new(2));
        let inputs = TrainingInputs { model: &DEMO, recipe: &recipe, run, text, host, pool };
        let mut measure = |_: &Model, _: &mut dyn FnMut(Event)| Ok(Evaluations::new());
        let mut training = Training::on(device.clone(), inputs, &mut measure);
        let calls = || device.calls().get("attention").copied().unwrap_or(0);
        let (mut most, mut whole) = (0, 0);
        loop {
            let (before, mut is_update) = (calls(), false);
            let mut watch = |event: Event| is_update |= matches!(event, Event::Step { .. });
            let done = training.step(&mut watch).expect("a step");
            if !is_update {
                most = most.max(calls() - before);
                whole += usize::from(calls() > before);
            }
            if matches!(done, Progress::Done(_)) {
                break;
            }
        }
        // Forward without a tape, and once more layer by layer for the backward.
        assert_eq!(most, 2 * DEMO.architecture.layers.len(), "{}", recipe.id);
        assert!(whole > 3, "{}: {whole} steps", recipe.id);
    }
}

#[test]
fn texts_that_the_model_generates_are_kept_where_the_host_keeps_files() {
    let settings =
        Settings { tokens: 300, sequence_length: 24, seed: 3, batch: 4, bos: Switch::Auto };
    let (host, folder) = (in_memory(), Path::new(FOLDER));
    let made = |folder: Option<&Path>, host: &Host| {
        let mut anew = false;
        let mut watch = |event: Event| anew |= matches!(event, Event::Generate { .. });
        let text = generate(&DEMO, settings, folder, &mut watch, host, &Pool::new(2));
        (text.and_then(|text| text.tokens(&DEMO, 0)).expect("a text"), anew)
    };
    let (first, anew) = made(Some(folder), &host);
    assert!(anew && first == made(None, &Host::default()).0);
    assert_eq!(made(Some(folder), &host), (first, false), "they are read");
}

#[test]
fn texts_are_generated_token_by_token_and_go_on_from_those_that_are_whole() {
    let settings =
        Settings { tokens: 300, sequence_length: 24, seed: 3, batch: 4, bos: Switch::Auto };
    let (host, folder, pool) = (in_memory(), Path::new(FOLDER), Pool::new(2));
    let stepped = |folder: Option<&Path>, most: usize| {
        let generation = Generation::new(&DEMO, settings, folder, &host, &pool);
        let mut generation = generation.expect("a generation");
        let mut step = || generation.step(&mut |_| {}).expect("a step");
        let done = (1..=most).find_map(|number| match step() {
            Progress::Done(text) => Some((number, text.tokens(&DEMO, 0).expect("tokens"))),
            Progress::Going => None,
        });
        if done.is_some() {
            let after = generation.step(&mut |_| {});
            assert!(matches!(after, Err(Error::Internal { .. })), "no step follows the last");
        }
        done
    };
    let (all, tokens) = stepped(None, usize::MAX).expect("an end");
    assert!(tokens.len() == settings.tokens && all * settings.batch >= tokens.len());
    assert!(stepped(Some(folder), all / 2).is_none());
    let (rest, again) = stepped(Some(folder), usize::MAX).expect("an end");
    assert!(again == tokens && rest < all, "{rest} of {all} steps");
    let whole = generate(&DEMO, settings, None, &mut |_| {}, &Host::default(), &pool);
    assert_eq!(whole.and_then(|text| text.tokens(&DEMO, 0)).expect("a text"), tokens);
}
