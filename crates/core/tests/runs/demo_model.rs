//! Whole runs on the demo model of assets/: resume, export with its parity gate, what bad input
//! gets.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::{Common, TrainArithmetic, TrainConfig};
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::rtn::RtnConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::{load, parse_config, quantize, save};
use halfstep::target::TargetId;
use halfstep::{Error, Event, Model};
use halfstep_formats::TensorData;
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_kernels::Pool;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn demo() -> Arc<Model> {
    Arc::new(Model::clone(&load(&assets("demo")).expect("the demo model loads")))
}

/// A folder of this test's own, empty.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

const STEPS: u64 = 6;

fn silq(target: TargetId) -> RecipeConfig {
    silq_of(target, STEPS)
}

fn silq_of(target: TargetId, steps: u64) -> RecipeConfig {
    let train = TrainConfig {
        tokens: steps as usize * 4 * 32,
        sequence_length: 32,
        batch: 4,
        micro_batch: Some(2),
        seed: 3,
        ..TrainConfig::default()
    };
    RecipeConfig::Silq(SilqConfig { common: Common::of(target), train, ..SilqConfig::default() })
}

fn run(folder: Option<&Path>, resume: bool) -> RunConfig {
    RunConfig {
        data: Some(assets("demo-train.txt")),
        run_folder: folder.map(|f| f.display().to_string()),
        checkpoint_every: folder.map(|_| 1),
        resume,
        ..RunConfig::default()
    }
}

#[test]
fn a_run_stopped_at_any_step_and_resumed_equals_the_unbroken_one_in_every_byte() {
    let model = demo();
    let recipe = silq(TargetId::GgufQ4_0);
    let mut losses = vec![];
    let (whole, _) = quantize(
        &model,
        &recipe,
        &run(None, false),
        &mut |e| keep_loss(&mut losses, e),
        &Cancel::default(),
    )
    .expect("the unbroken run");
    let whole = to_bytes(&whole, FileFormat::Gguf).expect("bytes");
    assert_eq!(losses.len() as u64, STEPS);
    for stop in [1, 3, STEPS - 1] {
        let folder = scratch(&format!("resume-{stop}"));
        let cancel = Cancel::default();
        let mut parts = vec![];
        let mut stopping = |event: Event| {
            if matches!(event, Event::Step { step, .. } if step == stop) {
                cancel.cancel();
            }
            keep_loss(&mut parts, event);
        };
        match quantize(&model, &recipe, &run(Some(&folder), false), &mut stopping, &cancel) {
            Err(Error::Cancelled { resume: Some(_) }) => {}
            other => panic!("a cancelled run gave {:?}", other.map(|(_, report)| report)),
        }
        let (resumed, _) = quantize(
            &model,
            &recipe,
            &run(Some(&folder), true),
            &mut |e| keep_loss(&mut parts, e),
            &Cancel::default(),
        )
        .expect("the resumed run");
        assert_eq!(parts, losses, "losses, stopped at step {stop}");
        assert!(
            to_bytes(&resumed, FileFormat::Gguf).expect("bytes") == whole,
            "the file differs, stopped at step {stop}"
        );
    }
}

/// A run stopped while the result is measured has lost nothing: the state after the last step is
/// saved, and the same command gives the same file.
#[test]
fn stopped_in_the_last_measurement_and_resumed_it_is_the_same_file() {
    let model = demo();
    let recipe = silq(TargetId::Halfstep);
    let measured = |folder: Option<&Path>, resume| RunConfig {
        validation: Some(assets("demo-eval.txt")),
        validation_tokens: Some(64),
        checkpoint_every: None,
        ..run(folder, resume)
    };
    let bytes = |model: &Model| to_bytes(model, FileFormat::Halfstep).expect("bytes");
    let mut phases = vec![];
    let mut watch = |event: Event| match event {
        Event::Phase { name, detail } if name == "evaluate" => phases.push(detail),
        _ => {}
    };
    let (whole, report) =
        quantize(&model, &recipe, &measured(None, false), &mut watch, &Cancel::default())
            .expect("the unbroken run");
    assert_eq!(phases, ["fp", "rtn", "result"]);
    for subject in ["rtn", "result"] {
        assert!(report.evaluations[subject].kl.is_some_and(|kl| kl > 0.0), "{subject}");
    }
    let (folder, cancel) = (scratch("measured"), Cancel::default());
    let mut stopping = |event: Event| {
        if matches!(&event, Event::Eval { subject, .. } if subject == "fp") {
            cancel.cancel();
        }
    };
    match quantize(&model, &recipe, &measured(Some(&folder), false), &mut stopping, &cancel) {
        Err(Error::Cancelled { resume: Some(_) }) => {}
        other => panic!("a cancelled run gave {:?}", other.map(|(_, report)| report)),
    }
    let (resumed, report) =
        quantize(&model, &recipe, &measured(Some(&folder), true), &mut |_| {}, &Cancel::default())
            .expect("the resumed run");
    assert_eq!((report.steps, report.tokens), (STEPS, STEPS * 4 * 32));
    assert!(bytes(&resumed) == bytes(&whole));
}

/// An old run's checkpoints in the folder: the new run's own are kept, and found again.
#[test]
fn checkpoints_of_an_earlier_run_are_not_in_the_way() {
    let (model, folder) = (demo(), scratch("earlier"));
    let stop_at = |target, at, resume| {
        let (cancel, mut first, mut warnings) = (Cancel::default(), None, vec![]);
        let mut stopping = |event: Event| match event {
            Event::Step { step, .. } => {
                first = first.or(Some(step));
                if step == at {
                    cancel.cancel();
                }
            }
            Event::Warning { message } => warnings.push(message),
            _ => {}
        };
        let stopped =
            quantize(&model, &silq(target), &run(Some(&folder), resume), &mut stopping, &cancel);
        assert!(matches!(stopped, Err(Error::Cancelled { resume: Some(_) })));
        (first, warnings)
    };
    stop_at(TargetId::GgufQ4_0, 5, false);
    let (first, warnings) = stop_at(TargetId::GgufQ8_0, 2, false);
    assert_eq!(first, Some(1));
    assert!(warnings.iter().any(|w| w.contains("earlier run")), "{warnings:?}");
    assert_eq!(stop_at(TargetId::GgufQ8_0, 3, true).0, Some(3), "it goes on from its own step 2");
}

fn keep_loss(losses: &mut Vec<u64>, event: Event) {
    if let Event::Step { loss, .. } = event {
        losses.push(loss.to_bits());
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_another_runs_is_refused() {
    let model = demo();
    let folder = scratch("damaged");
    let cancel = Cancel::default();
    let mut stopping = |event: Event| {
        if matches!(event, Event::Step { step: 3, .. }) {
            cancel.cancel();
        }
    };
    let stopped = quantize(
        &model,
        &silq(TargetId::GgufQ4_0),
        &run(Some(&folder), false),
        &mut stopping,
        &cancel,
    );
    assert!(matches!(stopped, Err(Error::Cancelled { .. })));
    let state = folder.join("step-00000003/state.safetensors");
    let mut bytes = std::fs::read(&state).expect("the state");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&state, bytes).expect("a damaged state");
    let (mut warnings, mut first_step) = (vec![], None);
    let mut watch = |event: Event| match event {
        Event::Warning { message } => warnings.push(message),
        Event::Step { step, .. } => first_step = first_step.or(Some(step)),
        _ => {}
    };
    quantize(
        &model,
        &silq(TargetId::GgufQ4_0),
        &run(Some(&folder), true),
        &mut watch,
        &Cancel::default(),
    )
    .expect("it goes on from the one before");
    assert!(warnings.iter().any(|w| w.contains("hash differs")), "{warnings:?}");
    assert_eq!(first_step, Some(3));
    match quantize(
        &model,
        &silq(TargetId::GgufQ8_0),
        &run(Some(&folder), true),
        &mut |_| {},
        &Cancel::default(),
    ) {
        Err(Error::Checkpoint { reason, .. }) => {
            assert!(reason.contains("another run"), "{reason}")
        }
        other => panic!("another run's checkpoint gave {:?}", other.map(|(_, report)| report)),
    }
}

#[test]
fn every_target_writes_what_was_trained_and_reads_it_back() {
    let model = demo();
    let folder = scratch("targets");
    for &target in TargetId::ALL {
        let trained = quantize(
            &model,
            &silq_of(target, 2),
            &run(None, false),
            &mut |_| {},
            &Cancel::default(),
        )
        .expect("a trained model")
        .0;
        let rtn = quantize(
            &model,
            &RecipeConfig::Rtn(RtnConfig { common: Common::of(target), ..RtnConfig::default() }),
            &run(None, false),
            &mut |_| {},
            &Cancel::default(),
        );
        for (name, model) in [("silq", trained), ("rtn", rtn.expect("rounded to nearest").0)] {
            let ending = if target == TargetId::Halfstep { "safetensors" } else { "gguf" };
            let path = folder.join(format!("{name}-{}.{ending}", target.name().replace(':', "-")));
            let report = save(&model, &path.display().to_string()).expect("it passes its own gate");
            assert!(report.parity && report.bytes > 0);
            let reopened = load(&path.display().to_string()).expect("it loads");
            halfstep::run::save::compare(&model, Model::clone(&reopened), &Pool::new(2))
                .expect("equal");
        }
    }
    assert_eq!(
        std::fs::read_dir(&folder).expect("the folder").count(),
        2 * TargetId::ALL.len(),
        "nothing but the files themselves is left"
    );
}

/// The widths and groups of partial retraining, with zero points: through the gate and back.
#[test]
fn two_and_three_bits_in_groups_pass_the_gate() {
    let (model, folder) = (demo(), scratch("few-bits"));
    for (weights, group_size) in [(2.0, 32), (2.0, 64), (3.0, 64), (3.0, 128)] {
        let config = RtnConfig {
            common: Common {
                weights: Some(weights),
                group_size: Some(group_size),
                ..Common::of(TargetId::Halfstep)
            },
            zero_points: true,
            ..RtnConfig::default()
        };
        let small = quantize(
            &model,
            &RecipeConfig::Rtn(config),
            &run(None, false),
            &mut |_| {},
            &Cancel::default(),
        )
        .expect("rounded")
        .0;
        let path =
            folder.join(format!("w{weights}g{group_size}.safetensors")).display().to_string();
        assert!(save(&small, &path).expect("it passes its own gate").parity);
        let reopened = load(&path).expect("it loads");
        halfstep::run::save::compare(&small, Model::clone(&reopened), &Pool::new(2))
            .expect("equal");
        let bits = halfstep::nearest::bits_per_weight(&reopened);
        let stated = weights + (16.0 + weights) / group_size as f64;
        assert!((stated..stated + 0.03).contains(&bits), "{bits} of {stated} bits");
    }
}

#[test]
fn the_gate_sees_one_wrong_code_and_one_wrong_scale() {
    let model = demo();
    let small = quantize(
        &model,
        &RecipeConfig::Rtn(RtnConfig::default()),
        &run(None, false),
        &mut |_| {},
        &Cancel::default(),
    )
    .expect("rounded")
    .0;
    let name = "model.layers.1.mlp.down_proj.weight";
    let tamper = |change: &dyn Fn(&mut halfstep_kernels::quant::tensor::QuantTensor)| {
        let mut other = small.clone();
        if let Some(TensorData::Packed(packed)) = other.tensors.get_mut(name).map(|t| &mut t.data) {
            change(packed);
        }
        halfstep::run::save::compare(&small, other, &Pool::new(2)).expect_err("a difference")
    };
    assert!(tamper(&|p| p.codes[77] ^= 1).contains(name));
    assert!(tamper(&|p| p.scales[5] *= 1.001).contains("scale"));
}

#[test]
fn bad_input_is_refused_before_long_work_naming_the_thing() {
    let model = demo();
    let refuse = |recipe: &RecipeConfig, run: &RunConfig| match quantize(
        &model,
        recipe,
        run,
        &mut |e| assert!(!matches!(e, Event::Step { .. })),
        &Cancel::default(),
    ) {
        Err(e) => (e.code(), e.to_string()),
        Ok(_) => panic!("it went through"),
    };
    let silq_with = |edit: &dyn Fn(&mut SilqConfig)| {
        let mut config = SilqConfig::default();
        edit(&mut config);
        RecipeConfig::Silq(config)
    };
    let (code, text) = refuse(&silq_with(&|c| c.common.weights = Some(4.5)), &run(None, false));
    assert!(code == "ERR_CONFIG" && text.contains("weights"), "{text}");
    let (code, text) = refuse(&silq_with(&|c| c.common.weights = Some(3.0)), &run(None, false));
    assert!(code == "ERR_TARGET" && text.contains("halfstep"), "{text}");
    let grouped = |c: &mut SilqConfig| {
        c.common = Common { group_size: Some(100), ..Common::of(TargetId::Halfstep) };
    };
    let (code, text) = refuse(&silq_with(&grouped), &run(None, false));
    assert!(code == "ERR_CONFIG" && text.contains("groupSize") && text.contains("128"), "{text}");
    let (code, text) = refuse(&silq_with(&|_| {}), &RunConfig::default());
    assert!(code == "ERR_CONFIG" && text.contains("data"), "{text}");
    let with_text = |text: &str| RunConfig { text: Some(text.into()), ..RunConfig::default() };
    assert_eq!(refuse(&silq_with(&|_| {}), &with_text("  \n")).0, "ERR_DATA");
    let (code, text) = refuse(&silq_with(&|_| {}), &with_text("to be or not to be"));
    assert!(code == "ERR_DATA" && text.contains("sequenceLength"), "{text}");
    let trains = |edit: &dyn Fn(&mut TrainConfig)| silq_with(&|c| edit(&mut c.train));
    for (recipe, field) in [
        (trains(&|t| t.batch = 1 << 55), "batch"),
        (trains(&|t| t.batch = 1_000_000), "batch"),
        (trains(&|t| (t.sequence_length, t.batch) = (2048, 1)), "sequenceLength"),
        (
            silq_with(&|c| {
                (c.common.target, c.static_activations, c.common.activations) =
                    (Some(TargetId::Halfstep), true, Some(16.0))
            }),
            "activations",
        ),
    ] {
        let (code, text) = refuse(&recipe, &run(None, false));
        assert!(code == "ERR_CONFIG" && text.contains(field), "{text}");
    }
    let without_folder = RunConfig { resume: true, ..run(None, false) };
    assert!(refuse(&silq_with(&|_| {}), &without_folder).1.contains("runFolder"));
    let output = |name: &str| RunConfig { output: Some(name.into()), ..run(None, false) };
    for name in ["small.safetensors", "small.bin", "small"] {
        assert_eq!(refuse(&silq_with(&|_| {}), &output(name)).0, "ERR_CONFIG", "{name}");
    }
    let data = |path: &str| RunConfig { data: Some(path.into()), ..RunConfig::default() };
    assert_eq!(refuse(&silq_with(&|_| {}), &data(&assets(""))).0, "ERR_IO");
    if cfg!(unix) {
        assert_eq!(refuse(&silq_with(&|_| {}), &data("/dev/zero")).0, "ERR_IO");
    }
    match parse_config::<RecipeConfig>(r#"{"kind": "silq", "wieghts": 4}"#) {
        Err(Error::Config { field, reason }) => {
            assert!(field == "wieghts" && reason.contains("weights"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

/// A target with one block length cannot be helped by another group size: what helps is another
/// target.
#[test]
fn blocks_that_do_not_divide_a_row_are_refused_by_target() {
    let architecture = demo().architecture.resized(|sizes| sizes.intermediate_size = 704);
    let recipe = |target| {
        RecipeConfig::Rtn(RtnConfig { common: Common::of(target), ..RtnConfig::default() })
            .resolve()
            .expect("a recipe")
    };
    halfstep::nearest::check_shapes(&architecture, &recipe(TargetId::GgufQ4_0))
        .expect("blocks of 32 divide 704");
    match halfstep::nearest::check_shapes(&architecture, &recipe(TargetId::GgufTQ2_0)) {
        Err(Error::Target { grid, reason, targets, .. }) => {
            assert_eq!((&*grid, &*targets), ("blocks of 256", "halfstep"));
            assert!(
                reason.contains("704 columns of model.layers.0.mlp.down_proj.weight"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// A ternary file reads back as what the gate compared, and an inspection names its type.
#[test]
fn the_demo_model_in_three_values() {
    let (model, folder) = (demo(), scratch("ternary"));
    let recipe = RecipeConfig::Rtn(RtnConfig {
        common: Common::of(TargetId::GgufTQ2_0),
        ..RtnConfig::default()
    });
    let small = quantize(&model, &recipe, &RunConfig::default(), &mut |_| {}, &Cancel::default())
        .expect("rounded")
        .0;
    let path = folder.join("small.gguf").display().to_string();
    assert!(save(&small, &path).expect("it passes its own gate").parity);
    let read = load(&path).expect("it loads");
    let seen = halfstep::run::inspect(&read);
    assert_eq!(
        (seen.target.as_deref(), seen.tensor_types["TQ2_0"]),
        (Some("gguf:tq2_0"), 7 * seen.layers)
    );
    assert_eq!(halfstep::nearest::bits_per_weight(&read), 2.0625);
    assert_eq!(read.quantization, small.quantization);
}

#[test]
fn rounding_alone_can_be_cancelled_and_refuses_weights_that_are_no_numbers() {
    let mut model = (*demo()).clone();
    let (rtn, cancel) = (RecipeConfig::Rtn(RtnConfig::default()), Cancel::default());
    cancel.cancel();
    assert!(matches!(
        quantize(&model, &rtn, &RunConfig::default(), &mut |_| {}, &cancel),
        Err(Error::Cancelled { .. })
    ));
    let name = "model.layers.1.mlp.up_proj.weight";
    for broken in [f32::NAN, f32::INFINITY, 1e30] {
        let tensor = model.tensors.get_mut(name).expect("the tensor");
        let mut values = tensor.to_f32(&Pool::serial());
        let cols = tensor.cols();
        values[3 * cols + 5] = broken;
        tensor.data = TensorData::F32(values);
        let error = quantize(&model, &rtn, &RunConfig::default(), &mut |_| {}, &Cancel::default())
            .expect_err("it cannot be rounded");
        assert!(
            error.code() == "ERR_UNENCODABLE"
                && error.to_string().contains(name)
                && error.to_string().contains('3'),
            "{broken}: {error}"
        );
    }
}

/// Embeddings are often padded to a round number of rows.
#[test]
fn an_embedding_with_more_rows_than_tokens_goes_through_gguf() {
    let mut model = (*demo()).clone();
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let mut vocabulary = (*tokenizer.vocabulary).clone();
    let rows = model.architecture.vocab_size;
    // The last tokens are whole words: nothing is built from them.
    for _ in 0..3 {
        let dropped = vocabulary.tokens.pop().expect("a token");
        vocabulary.kinds.pop();
        vocabulary.merges.retain(|m| m.replace(' ', "") != dropped);
    }
    model.tokenizer = Some(halfstep_formats::Tokenizer::new(vocabulary).expect("a tokenizer"));
    let small = quantize(
        &model,
        &RecipeConfig::Rtn(RtnConfig::default()),
        &RunConfig::default(),
        &mut |_| {},
        &Cancel::default(),
    )
    .expect("rounded")
    .0;
    let path = scratch("padded").join("padded.gguf");
    save(&small, &path.display().to_string()).expect("it passes its own gate");
    let read = load(&path.display().to_string()).expect("it loads");
    let tokens = &read.tokenizer.as_ref().expect("a tokenizer").vocabulary.tokens;
    assert_eq!(
        (tokens.len(), tokens[rows - 1].as_str()),
        (rows, format!("[PAD{}]", rows - 1).as_str())
    );
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing() {
    let small = quantize(
        &demo(),
        &RecipeConfig::Rtn(RtnConfig::default()),
        &run(None, false),
        &mut |_| {},
        &Cancel::default(),
    )
    .expect("rounded")
    .0;
    let folder = scratch("unwritable");
    let error = save(&small, &folder.join("no/such/folder/x.gguf").display().to_string())
        .expect_err("no folder");
    assert_eq!(error.code(), "ERR_IO");
    let error = save(&small, &folder.join("x.safetensors").display().to_string())
        .expect_err("the wrong ending");
    assert_eq!(error.code(), "ERR_CONFIG");
    assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 0);
}

/// Every arithmetic trains the same model: the first step's loss and gradient differ by rounding
/// alone.
#[test]
fn all_arithmetics_agree_and_the_phase_names_the_one_in_use() {
    let model = demo();
    let first_losses = |arithmetic, target| {
        let (mut losses, mut phase) = (vec![], String::new());
        let RecipeConfig::Silq(mut config) = silq_of(target, 1) else {
            unreachable!("a SiLQ recipe")
        };
        config.train.arithmetic = arithmetic;
        let mut watch = |event: Event| match event {
            Event::Step { loss, gradient_norm, .. } => losses.push((loss, gradient_norm)),
            Event::Phase { name, detail } if name == "train" => phase = detail,
            _ => {}
        };
        quantize(
            &model,
            &RecipeConfig::Silq(config),
            &run(None, false),
            &mut watch,
            &Cancel::default(),
        )
        .expect("a run");
        (losses, phase)
    };
    for target in [TargetId::GgufQ4_0, TargetId::Halfstep] {
        let (exact, phase) = first_losses(Some(TrainArithmetic::F32), target);
        assert!(phase.ends_with("tokens in f32"), "{phase}");
        let (_, phase) = first_losses(None, target);
        assert!(
            ["in f32", "in bf16", "in f16", "in int8-forward"]
                .iter()
                .any(|name| phase.contains(name)),
            "{phase}"
        );
        for arithmetic in
            [TrainArithmetic::Bf16, TrainArithmetic::F16, TrainArithmetic::Int8Forward]
        {
            let (losses, _) = first_losses(Some(arithmetic), target);
            // Of the first step, which is all: later ones go their own ways.
            let (loss, norm) = (losses[0].0 / exact[0].0 - 1.0, losses[0].1 / exact[0].1 - 1.0);
            println!("{arithmetic:?} on {target:?}: loss {loss:+.5}, gradient norm {norm:+.5}");
            assert!(
                loss.abs() < 0.05 && norm.abs() < 0.1,
                "{arithmetic:?} on {target:?}: loss {loss:+.4}, gradient norm {norm:+.4}"
            );
        }
    }
}

#[test]
fn an_integer_forward_of_float_activations_is_refused() {
    let RecipeConfig::Silq(mut config) = silq(TargetId::Halfstep) else {
        unreachable!("a SiLQ recipe")
    };
    config.common.activations = Some(16.0);
    config.train.arithmetic = Some(TrainArithmetic::Int8Forward);
    let refused = quantize(
        &demo(),
        &RecipeConfig::Silq(config),
        &run(None, false),
        &mut |_| {},
        &Cancel::default(),
    );
    match refused.map(|(_, report)| report) {
        Err(Error::Config { field, .. }) => assert!(field.ends_with("arithmetic"), "{field}"),
        other => panic!("{other:?}"),
    }
}
