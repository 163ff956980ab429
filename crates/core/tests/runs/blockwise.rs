//! Training block by block on a part of the demo model: what must be the same bytes, what stopping and
//! resuming gives, what bad input gets.

use crate::narrow_demo::DEMO;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::Common;
use halfstep::recipe::LowRankOptions;
use halfstep::recipe::block::{BlockOptions, SaliencyDifference, SaliencyScale};
use halfstep::recipe::solver_options::SolverOptions;
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::apiq::ApiqConfig;
use halfstep::recipes::awq::AwqRecipeConfig;
use halfstep::recipes::efficientqat::EfficientqatConfig;
use halfstep::recipes::gptq::GptqRecipeConfig;
use halfstep::recipes::omniquant::OmniquantConfig;
use halfstep::recipes::rtn::RtnConfig;
use halfstep::recipes::sapr::SaprConfig;
use halfstep::run::{Report, load, quantize, save};
use halfstep::target::TargetId;
use halfstep::{Error, Event, Model};
use halfstep_formats::TensorData;
use halfstep_formats::write::{FileFormat, to_bytes};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Bytes of the text, which is tokenized in every run: more than any run reads.
const TEXT_BYTES: usize = 20_000;

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let text = std::fs::read_to_string(assets("demo-train.txt")).expect("a text");
    text[..TEXT_BYTES].to_owned()
});

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

/// The demo model, with all its neurons.
fn whole() -> Model {
    Model::clone(&load(&assets("demo")).expect("the demo model loads"))
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("blockwise-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

fn options() -> BlockOptions {
    BlockOptions {
        samples: Some(4),
        sequence_length: Some(48),
        epochs: Some(2),
        seed: 5,
        ..BlockOptions::default()
    }
}

fn apiq() -> RecipeConfig {
    RecipeConfig::Apiq(ApiqConfig { train: options(), ..ApiqConfig::default() })
}

fn sapr(change: impl FnOnce(&mut SaprConfig)) -> RecipeConfig {
    let mut config = SaprConfig { train: options(), saliency_samples: 2, ..SaprConfig::default() };
    change(&mut config);
    RecipeConfig::Sapr(config)
}

fn run(folder: Option<&Path>, resume: bool) -> RunConfig {
    RunConfig {
        text: Some(TEXT.clone()),
        run_folder: folder.map(|f| f.display().to_string()),
        resume,
        threads: 2,
        ..RunConfig::default()
    }
}

fn made_on(model: &Model, recipe: &RecipeConfig, run: &RunConfig) -> (Model, Report) {
    quantize(model, recipe, run, &mut |_| {}, &Cancel::default()).expect("a run")
}

fn made(recipe: &RecipeConfig) -> Model {
    made_on(&DEMO, recipe, &run(None, false)).0
}

/// The file, without what says how it was made.
fn bytes(model: &Model) -> Vec<u8> {
    to_bytes(&Model { provenance: Default::default(), ..model.clone() }, FileFormat::Halfstep)
        .expect("bytes")
}

fn refusal(recipe: &RecipeConfig, run: &RunConfig) -> (&'static str, String) {
    match quantize(&DEMO, recipe, run, &mut |_| {}, &Cancel::default()) {
        Err(e) => (e.code(), e.to_string()),
        Ok(_) => panic!("it was not refused"),
    }
}

fn rank(rank: usize) -> LowRankOptions {
    LowRankOptions { rank: Some(rank), ..LowRankOptions::default() }
}

fn two_bits() -> Common {
    Common { weights: Some(2.0), ..Common::default() }
}

#[test]
fn without_lambda_sapr_is_apiq_and_without_rank_apiq_is_omniquant() {
    let plain = bytes(&made(&apiq()));
    assert!(bytes(&made(&sapr(|c| c.lambda = 0.0))) == plain);
    assert!(bytes(&made(&sapr(|_| {}))) != plain, "a penalty changes something");
    let omniquant =
        RecipeConfig::Omniquant(OmniquantConfig { train: options(), ..OmniquantConfig::default() });
    let train = BlockOptions {
        range_learning_rate: Some(0.2),
        weight_decay: Some(0.0),
        min_ratio: Some(1.0),
        second_target: Some(false),
        ..options()
    };
    let without_rank =
        made(&RecipeConfig::Apiq(ApiqConfig { low_rank: rank(0), train, ..ApiqConfig::default() }));
    assert!(without_rank.low_rank.is_empty() && bytes(&without_rank) == bytes(&made(&omniquant)));
}

#[test]
fn the_stages_of_sapr_and_the_rates_reach_what_they_name() {
    let outputs_alone = sapr(|c| {
        c.output_epochs = 2;
        c.train.epochs = Some(0);
    });
    assert!(
        bytes(&made(&outputs_alone)) == bytes(&made(&apiq())),
        "without the penalty's epochs it is apiq"
    );
    let with = |train: BlockOptions| {
        made(&RecipeConfig::Apiq(ApiqConfig { train, ..ApiqConfig::default() }))
    };
    let still_factors = with(BlockOptions { low_rank_learning_rate: Some(0.0), ..options() });
    let still_ranges = with(BlockOptions { range_learning_rate: Some(0.0), ..options() });
    let nothing =
        |model: &Model| model.low_rank.values().all(|f| f.b.iter().all(|b| b.to_f32() == 0.0));
    assert!(nothing(&still_factors) && !nothing(&still_ranges));
    let packed = |model: &Model| match &model.tensors["model.layers.0.mlp.up_proj.weight"].data {
        TensorData::Packed(p) => p.clone(),
        _ => panic!("packed"),
    };
    let longer =
        with(BlockOptions { range_learning_rate: Some(0.0), epochs: Some(4), ..options() });
    assert!(packed(&still_ranges) == packed(&longer) && packed(&still_factors) != packed(&longer));
}

#[test]
fn every_choice_of_saliency_trains_another_model_and_threads_change_nothing() {
    let scale_free = sapr(|c| c.lambda = 3.0);
    let (whole, _) = made_on(&DEMO, &scale_free, &run(None, false));
    let (single, _) = made_on(&DEMO, &scale_free, &RunConfig { threads: 1, ..run(None, false) });
    assert!(bytes(&whole) == bytes(&single), "the number of threads changed a byte");
    let places = [SaliencyDifference::BeforeLowRank, SaliencyDifference::AfterLowRank]
        .map(|place| bytes(&made(&sapr(|c| c.saliency_difference = place))));
    let scales = [SaliencyScale::PerMatrix, SaliencyScale::Raw]
        .map(|scale| bytes(&made(&sapr(|c| c.saliency_scale = scale))));
    let all = [&places[0], &places[1], &scales[0], &scales[1]];
    assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])), "each choice trains another model");
}

/// With the penalty alone the texts do not matter: as many steps on other sequences give the same
/// ranges, and nothing else moves.
#[test]
fn the_penalty_alone_is_blind_to_the_texts() {
    let alone = |samples, epochs| {
        made(&sapr(|c| {
            c.penalty_epochs = epochs;
            c.train = BlockOptions { samples: Some(samples), epochs: Some(0), ..options() };
        }))
    };
    let (first, second) = (alone(4, 3), alone(6, 2));
    assert!(bytes(&first) == bytes(&second));
    let linear = |model: &Model| match &model.tensors["model.layers.0.mlp.up_proj.weight"].data {
        TensorData::Packed(p) => p.clone(),
        _ => panic!("packed"),
    };
    assert!(linear(&first).scales != linear(&alone(4, 1)).scales, "ranges move with every step");
    assert!(
        first.low_rank.values().all(|f| f.b.iter().all(|b| b.to_f32() == 0.0)),
        "factors stay at nothing"
    );
}

#[test]
fn the_second_phase_of_efficientqat_leaves_every_code() {
    let config = |end_tokens| {
        let train = BlockOptions { batch: Some(2), ..options() };
        RecipeConfig::Efficientqat(EfficientqatConfig {
            train,
            end_tokens,
            end_learning_rate: 1e-4,
            ..EfficientqatConfig::default()
        })
    };
    let (first, second) = (made(&config(0)), made(&config(48 * 4 * 3)));
    let mut moved = 0;
    for (name, tensor) in &first.tensors {
        match (&tensor.data, &second.tensors[name].data) {
            (TensorData::Packed(a), TensorData::Packed(b)) => {
                assert!(a.codes == b.codes && a.zero_points == b.zero_points, "{name}");
                moved += usize::from(a.scales != b.scales);
            }
            (TensorData::F32(a), TensorData::F32(b)) => assert!(a == b, "{name}"),
            _ => panic!("{name}"),
        }
    }
    assert!(moved > 0, "no scale moved");

    // The first phase alone, then the second after its finished blocks: nothing of them is trained
    // again.
    let folder = scratch("phases");
    made_on(&DEMO, &config(0), &run(Some(&folder), false));
    let mut blocks = 0;
    let mut count = |event: Event| blocks += usize::from(matches!(event, Event::Block { .. }));
    let (later, _) = quantize(
        &DEMO,
        &config(48 * 4 * 3),
        &run(Some(&folder), true),
        &mut count,
        &Cancel::default(),
    )
    .expect("a run");
    assert!(blocks == 0 && bytes(&later) == bytes(&second));
}

#[test]
fn every_method_beats_what_it_starts_from() {
    let whole = whole();
    let measured = |recipe: &RecipeConfig| {
        let run = RunConfig {
            validation: Some(assets("demo-eval.txt")),
            validation_tokens: Some(512),
            ..run(None, false)
        };
        let (model, report) = made_on(&whole, recipe, &run);
        let path = scratch("methods").join("model.safetensors").display().to_string();
        assert!(save(&model, &path).expect("it passes its gate").parity);
        report.evaluations["result"].kl.expect("a KL")
    };
    let rtn = RtnConfig {
        common: Common {
            weights: Some(2.0),
            group_size: Some(64),
            ..Common::of(TargetId::Halfstep)
        },
        zero_points: true,
        ..RtnConfig::default()
    };
    let rtn = measured(&RecipeConfig::Rtn(RtnConfig {
        observer: halfstep::recipe::Observer::Absmax,
        ..rtn
    }));
    let train = BlockOptions {
        samples: Some(8),
        sequence_length: Some(64),
        epochs: Some(4),
        ..BlockOptions::default()
    };
    let solver =
        SolverOptions { samples: Some(16), sequence_length: Some(64), ..SolverOptions::default() };
    let omniquant = measured(&RecipeConfig::Omniquant(OmniquantConfig {
        train: train.clone(),
        ..OmniquantConfig::default()
    }));
    let apiq =
        measured(&RecipeConfig::Apiq(ApiqConfig { train: train.clone(), ..ApiqConfig::default() }));
    let block_ap = measured(&RecipeConfig::Efficientqat(EfficientqatConfig {
        train,
        end_tokens: 0,
        ..EfficientqatConfig::default()
    }));
    let gptq = measured(&RecipeConfig::Gptq(GptqRecipeConfig {
        common: two_bits(),
        train: solver.clone(),
        ..GptqRecipeConfig::default()
    }));
    let awq = measured(&RecipeConfig::Awq(AwqRecipeConfig {
        common: two_bits(),
        train: solver,
        ..AwqRecipeConfig::default()
    }));
    for (name, kl) in [
        ("omniquant", omniquant),
        ("apiq", apiq),
        ("efficientqat", block_ap),
        ("gptq", gptq),
        ("awq", awq),
    ] {
        assert!(kl < rtn, "{name}: {kl} against {rtn}");
    }
    assert!(apiq < omniquant, "adapters on: {apiq} against {omniquant}");
}

#[test]
fn stopped_after_any_block_and_resumed_it_is_the_same_file() {
    let (model, recipe) = (&*DEMO, sapr(|_| {}));
    let whole = bytes(&made(&recipe));
    for stop in 0..model.architecture.layers.len() as u64 {
        let (folder, cancel) = (scratch(&format!("resume-{stop}")), Cancel::default());
        let mut stopping = |event: Event| {
            if matches!(event, Event::Block { block, .. } if block == stop) {
                cancel.cancel();
            }
        };
        match quantize(model, &recipe, &run(Some(&folder), false), &mut stopping, &cancel) {
            Err(Error::Cancelled { resume: Some(_) }) => {}
            // The last block's end is the run's.
            Ok(_) if stop + 1 == model.architecture.layers.len() as u64 => {}
            other => panic!("a cancelled run gave {:?}", other.map(|(_, report)| report)),
        }
        if stop + 1 < model.architecture.layers.len() as u64 {
            let (code, text) = refusal(&recipe, &run(Some(&folder), false));
            assert!(
                code == "ERR_CHECKPOINT" && text.contains("resume to continue from them"),
                "{text}"
            );
        }
        let mut again = vec![];
        let mut watch = |event: Event| {
            if let Event::Block { block, .. } = event {
                again.push(block);
            }
        };
        let (resumed, _) =
            quantize(model, &recipe, &run(Some(&folder), true), &mut watch, &Cancel::default())
                .expect("the resumed run");
        assert_eq!(
            again.first().copied(),
            (stop + 1 < model.architecture.layers.len() as u64).then_some(stop + 1),
            "finished blocks are not trained again"
        );
        assert!(bytes(&resumed) == whole, "the file differs, stopped after block {stop}");
    }
}

/// What was stopped before its first block has nothing to go on from, and says so.
#[test]
fn stopped_in_the_first_block_it_promises_nothing() {
    let (folder, cancel) = (scratch("first"), Cancel::default());
    let mut stopping = |event: Event| {
        if matches!(event, Event::Step { .. }) {
            cancel.cancel();
        }
    };
    match quantize(&DEMO, &apiq(), &run(Some(&folder), false), &mut stopping, &cancel) {
        Err(Error::Cancelled { resume: None }) => {}
        other => panic!("{:?}", other.map(|(_, report)| report)),
    }
    let mut warnings = vec![];
    let mut watch = |event: Event| {
        if let Event::Warning { message } = event {
            warnings.push(message);
        }
    };
    quantize(&DEMO, &apiq(), &run(Some(&folder), true), &mut watch, &Cancel::default())
        .expect("anew");
    assert!(warnings.iter().any(|w| w.contains("no finished block")), "{warnings:?}");
}

#[test]
fn a_damaged_block_is_trained_again_and_another_run_s_is_refused() {
    let folder = scratch("damaged");
    let (whole, _) = made_on(&DEMO, &apiq(), &run(Some(&folder), false));
    let state = folder.join("block-00000001/state.safetensors");
    let mut damaged = std::fs::read(&state).expect("the block");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&state, damaged).expect("a damaged block");
    let (mut warnings, mut again) = (vec![], vec![]);
    let mut watch = |event: Event| match event {
        Event::Warning { message } => warnings.push(message),
        Event::Block { block, .. } => again.push(block),
        _ => {}
    };
    let (resumed, _) =
        quantize(&DEMO, &apiq(), &run(Some(&folder), true), &mut watch, &Cancel::default())
            .expect("resumed");
    assert!(
        warnings.iter().any(|w| w.contains("hash differs")) && again == [1],
        "{warnings:?} {again:?}"
    );
    assert!(bytes(&resumed) == bytes(&whole));
    let other = RecipeConfig::Apiq(ApiqConfig {
        low_rank: rank(4),
        train: options(),
        ..ApiqConfig::default()
    });
    let (code, text) = refusal(&other, &run(Some(&folder), true));
    assert!(code == "ERR_CHECKPOINT" && text.contains("another run"), "{text}");
}

#[test]
fn a_saliency_of_another_text_or_model_is_refused() {
    let folder = scratch("saliency");
    made_on(&DEMO, &sapr(|_| {}), &run(Some(&folder), false));
    let other_text = RunConfig { skip_characters: 5000, ..run(Some(&folder), false) };
    let other_model = broken(1, 0.25);
    for (model, run) in [(&*DEMO, other_text), (&other_model, run(Some(&folder), false))] {
        match quantize(model, &sapr(|_| {}), &run, &mut |_| {}, &Cancel::default()) {
            Err(e) => assert!(
                e.code() == "ERR_CHECKPOINT" && e.to_string().contains("another model or text"),
                "{e}"
            ),
            Ok(_) => panic!("it went through"),
        }
    }
}

/// What is read before a damaged part does not count twice.
#[test]
fn a_damaged_saliency_is_taken_again() {
    let raw = || sapr(|c| (c.saliency_scale, c.lambda) = (SaliencyScale::Raw, 1e4));
    let (folder, whole) = (scratch("damaged-saliency"), made(&raw()));
    assert!(
        bytes(&whole)
            != bytes(&made(&sapr(|c| (c.saliency_scale, c.lambda) = (SaliencyScale::Raw, 2e4)))),
        "twice the saliency is another model"
    );
    made_on(&DEMO, &raw(), &run(Some(&folder), false));
    let state = folder.join("saliency-00000001/state.safetensors");
    let mut damaged = std::fs::read(&state).expect("the saliency");
    *damaged.last_mut().expect("a byte") ^= 1;
    std::fs::write(&state, damaged).expect("a damaged saliency");
    assert!(bytes(&made_on(&DEMO, &raw(), &run(Some(&folder), false)).0) == bytes(&whole));
}

/// The demo model with one weight of a block changed.
fn broken(layer: usize, value: f32) -> Model {
    let mut model = DEMO.clone();
    let up = model
        .tensors
        .get_mut(&format!("model.layers.{layer}.mlp.up_proj.weight"))
        .expect("a linear");
    let mut values = up.to_f32(&halfstep_kernels::Pool::serial());
    values[77] = value;
    up.data = TensorData::F32(values);
    model
}

/// The demo model with a block whose numbers are finite, and what it computes is not.
fn overflowing(layer: usize) -> Model {
    let mut model = DEMO.clone();
    let name = format!("model.layers.{layer}.post_attention_layernorm.weight");
    let norm = model.tensors.get_mut(&name).expect("a norm");
    let values = norm.to_f32(&halfstep_kernels::Pool::serial());
    norm.data = TensorData::F32(values.into_iter().map(|x| x * 1e36).collect());
    model
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_trained() {
    let folder = scratch("refused");
    let cases = [
        (
            RecipeConfig::Apiq(ApiqConfig {
                low_rank: rank(4096),
                train: options(),
                ..ApiqConfig::default()
            }),
            "ERR_CONFIG",
            "rank: 4096",
        ),
        (
            RecipeConfig::Apiq(ApiqConfig {
                common: Common { group_size: Some(100), ..Common::default() },
                train: options(),
                ..ApiqConfig::default()
            }),
            "ERR_CONFIG",
            "100 does not divide",
        ),
        (
            RecipeConfig::Apiq(ApiqConfig {
                common: Common::of(TargetId::GgufQ4_0),
                low_rank: rank(8),
                train: options(),
                ..ApiqConfig::default()
            }),
            "ERR_TARGET",
            "cannot store low-rank factors",
        ),
        (
            RecipeConfig::Apiq(ApiqConfig {
                train: BlockOptions { samples: Some(1 << 20), ..options() },
                ..ApiqConfig::default()
            }),
            "ERR_DATA",
            "sequences of 48",
        ),
        (sapr(|c| c.lambda = f64::NAN), "ERR_CONFIG", "lambda"),
        (sapr(|c| c.train.epochs = Some(0)), "ERR_CONFIG", "nothing would be trained"),
        (
            RecipeConfig::Apiq(ApiqConfig {
                train: BlockOptions { epochs: Some(0), ..options() },
                ..ApiqConfig::default()
            }),
            "ERR_CONFIG",
            "must be at least 1, got 0",
        ),
        (
            RecipeConfig::Gptq(GptqRecipeConfig { damping: -1.0, ..GptqRecipeConfig::default() }),
            "ERR_CONFIG",
            "damping",
        ),
    ];
    for (recipe, code, words) in cases {
        let (found, text) = refusal(&recipe, &run(Some(&folder), false));
        assert!(found == code && text.contains(words), "{found}: {text}");
    }
    // The lock of the refused runs; the next one takes it over.
    let left =
        std::fs::read_dir(&folder).expect("the folder").map(|f| f.expect("a file").file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["run.lock"]);
}

#[test]
fn a_block_that_is_no_number_is_named_and_those_before_it_are_kept() {
    let gptq =
        RecipeConfig::Gptq(GptqRecipeConfig { train: solver(4), ..GptqRecipeConfig::default() });
    // Squared gradients, of sapr or for a report, are taken before the first block: then there is
    // none to keep.
    let cases = [
        ("apiq", apiq(), false, "ERR_NON_FINITE"),
        ("gptq", gptq, false, "ERR_DATA"),
        ("sapr", sapr(|_| {}), false, "ERR_NON_FINITE"),
        ("record", apiq(), true, "ERR_NON_FINITE"),
    ];
    for (name, recipe, record, code) in cases {
        let (folder, mut warnings) = (scratch(&format!("nan-{name}")), vec![]);
        let mut watch = |event: Event| {
            if let Event::Warning { message } = event {
                warnings.push(message);
            }
        };
        let run = RunConfig { record, ..run(Some(&folder), false) };
        match quantize(&overflowing(1), &recipe, &run, &mut watch, &Cancel::default()) {
            Err(e) => assert!(
                e.code() == code
                    && ["block 1", "layer 1", "layers.1"]
                        .iter()
                        .any(|at| e.to_string().contains(at)),
                "{name}: {} {e}",
                e.code()
            ),
            Ok(_) => panic!("it went through"),
        }
        let kept = name != "sapr" && !record;
        assert!(
            folder.join("block-00000000/manifest.json").exists() == kept
                && !folder.join("block-00000001").exists(),
            "{name}"
        );
        assert!(
            warnings.iter().any(|w| w.contains("finished blocks, kept in")
                && w.contains(": 1; the same run with resume"))
                == kept,
            "{name}: {warnings:?}"
        );
    }
}

/// The table of a report: rounding is given the bytes that the factors take.
#[test]
fn rounding_is_compared_at_equal_bytes() {
    let validated = RunConfig {
        record: true,
        validation: Some(assets("demo-eval.txt")),
        validation_tokens: Some(96),
        ..run(None, false)
    };
    let (_, report) = made_on(&whole(), &apiq(), &validated);
    let table = report.record.expect("a record").table;
    let bits: Vec<f64> = table.iter().map(|row| row.bits_per_weight).collect();
    assert_eq!(
        table.iter().map(|row| row.subject.as_str()).collect::<Vec<_>>(),
        ["fp", "rtn", "result"]
    );
    // Groups of 64 with factors of rank 8, and groups of 16 without.
    assert!(bits[2] > 3.0 && (bits[1] / bits[2] - 1.0).abs() < 0.05, "{bits:?}");
}

/// What a report shows of every linear, of recipes without gradients too.
#[test]
fn solvers_record_what_they_clip_and_the_saliency() {
    let gptq = RecipeConfig::Gptq(GptqRecipeConfig {
        common: two_bits(),
        train: solver(4),
        ..GptqRecipeConfig::default()
    });
    let awq = RecipeConfig::Awq(AwqRecipeConfig {
        common: two_bits(),
        train: solver(4),
        ..AwqRecipeConfig::default()
    });
    for recipe in [gptq, awq] {
        let (model, report) =
            made_on(&DEMO, &recipe, &RunConfig { record: true, ..run(None, false) });
        let matrices = report.record.expect("a record").matrices;
        let linears: Vec<_> = matrices.iter().map(|m| (m.block, m.linear.clone())).collect();
        let all: Vec<_> = (0..model.architecture.layers.len())
            .flat_map(|l| {
                halfstep_formats::architecture::Linear::USUAL
                    .map(|linear| (l, linear.name().into_owned()))
            })
            .collect();
        assert_eq!(linears, all);
        assert!(matrices.iter().all(|m| m.clip_fraction.is_some_and(|c| (0.0..1.0).contains(&c))
            && m.saliency.is_some_and(|s| s > 0.0)
            && m.scale_drift.is_none()));
    }
}

fn solver(samples: usize) -> SolverOptions {
    SolverOptions { samples: Some(samples), sequence_length: Some(16), ..SolverOptions::default() }
}

/// Fewer tokens than channels: the Hessian is singular without damping.
#[test]
fn a_singular_hessian_is_damped_with_a_warning_that_says_by_how_much() {
    let recipe = RecipeConfig::Gptq(GptqRecipeConfig {
        damping: 0.0,
        train: solver(2),
        ..GptqRecipeConfig::default()
    });
    let mut warnings = vec![];
    let mut watch = |event: Event| {
        if let Event::Warning { message } = event {
            warnings.push(message);
        }
    };
    quantize(&DEMO, &recipe, &run(None, false), &mut watch, &Cancel::default()).expect("solved");
    assert!(
        warnings.iter().any(|w| w.contains("q_proj") && w.contains("damping raised from 0 to")),
        "{warnings:?}"
    );
}
