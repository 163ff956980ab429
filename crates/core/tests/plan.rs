//! What a plan says, against the run that it plans, on the demo model of assets/.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::host::Host;
use halfstep::recipe::block::BlockOptions;
use halfstep::recipe::solver_options::SolverOptions;
use halfstep::recipe::{Common, TrainConfig};
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::apiq::ApiqConfig;
use halfstep::recipes::awq::AwqRecipeConfig;
use halfstep::recipes::efficientqat::EfficientqatConfig;
use halfstep::recipes::gptq::GptqRecipeConfig;
use halfstep::recipes::llm_qat::LlmQatConfig;
use halfstep::recipes::omniquant::OmniquantConfig;
use halfstep::recipes::rtn::RtnConfig;
use halfstep::recipes::sapr::SaprConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::{Plan, load, plan, quantize, save};
use halfstep::target::TargetId;
use halfstep::{Error, Model};
use std::path::{Path, PathBuf};

fn assets(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name).display().to_string()
}

fn demo() -> Model {
    Model::clone(&load(&assets("demo")).expect("the demo model loads"))
}

/// A folder of this test's own, empty.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plan-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// Bytes of all files below.
fn bytes_below(folder: &Path) -> u64 {
    let entries =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|e| {
            if e.path().is_dir() {
                bytes_below(&e.path())
            } else {
                e.metadata().expect("metadata").len()
            }
        })
        .sum()
}

/// Of the saliency that a run has kept.
fn saliency_bytes(run: &Path) -> f64 {
    let Ok(entries) = std::fs::read_dir(run) else { return 0.0 };
    let of_saliency = entries.map(|e| e.expect("an entry").path()).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("saliency-"))
    });
    of_saliency.map(|path| bytes_below(&path)).sum::<u64>() as f64
}

fn blocks() -> BlockOptions {
    BlockOptions {
        samples: Some(9),
        sequence_length: Some(64),
        epochs: Some(2),
        ..BlockOptions::default()
    }
}

/// Name, recipe, steps between checkpoints, and how many checkpoints a plan counts of those that
/// are left.
fn recipes() -> Vec<(&'static str, RecipeConfig, Option<u64>, f64)> {
    let train =
        TrainConfig { tokens: 9 * 4 * 32, sequence_length: 32, batch: 4, ..TrainConfig::default() };
    let solver =
        SolverOptions { samples: Some(9), sequence_length: Some(64), ..SolverOptions::default() };
    vec![
        ("rtn", RecipeConfig::Rtn(RtnConfig::default()), None, 1.0),
        (
            "silq",
            RecipeConfig::Silq(SilqConfig {
                common: Common::of(TargetId::GgufQ4_0),
                train: train.clone(),
                ..SilqConfig::default()
            }),
            Some(1),
            1.5,
        ),
        (
            "llm-qat",
            RecipeConfig::LlmQat(LlmQatConfig { train: train.clone(), ..LlmQatConfig::default() }),
            Some(1),
            1.5,
        ),
        (
            "gptq",
            RecipeConfig::Gptq(GptqRecipeConfig {
                train: solver.clone(),
                ..GptqRecipeConfig::default()
            }),
            None,
            1.0,
        ),
        (
            "awq",
            RecipeConfig::Awq(AwqRecipeConfig { train: solver, ..AwqRecipeConfig::default() }),
            None,
            1.0,
        ),
        (
            "omniquant",
            RecipeConfig::Omniquant(OmniquantConfig {
                train: blocks(),
                ..OmniquantConfig::default()
            }),
            None,
            1.0,
        ),
        (
            "apiq",
            RecipeConfig::Apiq(ApiqConfig { train: blocks(), ..ApiqConfig::default() }),
            None,
            1.0,
        ),
        (
            "sapr",
            RecipeConfig::Sapr(SaprConfig {
                train: blocks(),
                saliency_samples: 3,
                penalty_epochs: 1,
                ..SaprConfig::default()
            }),
            None,
            1.0,
        ),
        (
            "efficientqat",
            RecipeConfig::Efficientqat(EfficientqatConfig {
                train: blocks(),
                end_tokens: 9 * 4 * 64,
                ..EfficientqatConfig::default()
            }),
            Some(3),
            1.0,
        ),
    ]
}

fn planned(model: &Model, recipe: &RecipeConfig, run: &RunConfig) -> Plan {
    let mut phases = vec![];
    let plan =
        plan(model, recipe, run, &mut |e| phases.push(e), &Cancel::default()).expect("a plan");
    assert!(!phases.is_empty());
    plan
}

/// One test: peak memory is that of the whole process, and a plan counts it anew.
#[test]
fn a_plan_says_what_the_run_takes_and_refuses_what_it_would() {
    steps_sizes_and_disk_are_those_of_the_run();
    what_a_run_would_refuse_a_plan_refuses();
}

fn steps_sizes_and_disk_are_those_of_the_run() {
    let model = demo();
    for (name, recipe, checkpoint_every, counted) in recipes() {
        let folder = scratch(name);
        let run = RunConfig {
            data: (name != "llm-qat").then(|| assets("demo-train.txt")),
            validation: Some(assets("demo-eval.txt")),
            validation_tokens: Some(512),
            run_folder: Some(folder.join("run").display().to_string()),
            checkpoint_every,
            ..RunConfig::default()
        };
        Host::default().memory.reset_peak();
        let plan = planned(&model, &recipe, &run);
        assert_eq!(
            std::fs::read_dir(&folder).expect("the folder").count(),
            0,
            "{name}: a plan writes nothing"
        );
        let started = std::time::Instant::now();
        let (small, report) =
            quantize(&model, &recipe, &run, &mut |_| {}, &Cancel::default()).expect("a run");
        let seconds = started.elapsed().as_secs_f64();
        let ending = if plan.target == "halfstep" { "safetensors" } else { "gguf" };
        let file = save(&small, &folder.join(format!("small.{ending}")).display().to_string())
            .expect("a file");
        assert_eq!(
            (plan.bits_per_weight, plan.steps, plan.tokens),
            (report.bits_per_weight, report.steps, report.tokens),
            "{name}"
        );
        assert_eq!(plan.client_flags, report.client_flags, "{name}");
        // The figures of the metrics in the metadata have other digits.
        assert!(
            plan.output_bytes.abs_diff(file.bytes) < 256,
            "{name}: {} planned, {} written",
            plan.output_bytes,
            file.bytes
        );
        let on_disk =
            if folder.join("run").exists() { bytes_below(&folder.join("run")) as f64 } else { 0.0 };
        let disk = plan.disk_bytes as f64;
        let all = on_disk + saliency_bytes(&folder.join("run"));
        let most = all * counted.max(1.5);
        assert!(
            disk >= on_disk * 0.99 && disk <= most * 1.01 + 4096.0,
            "{name}: {disk} planned, {on_disk} left in the folder"
        );
        if checkpoint_every.is_none() {
            // All that was planned is there in the end: finished blocks, and saliency, which needs
            // as much once more while it is summed.
            assert!((disk - all).abs() <= all * 0.02, "{name}: {disk} planned, {all} needed");
        }
        println!(
            "{name}: {:.2} s planned, {seconds:.2} s taken; {} MB planned, {} MB taken",
            plan.seconds,
            plan.peak_memory_bytes >> 20,
            report.memory_bytes >> 20
        );
        assert!(
            plan.seconds > 0.0
                && plan.stages.iter().all(|s| s.seconds >= 0.0 && s.peak_memory_bytes > 0)
        );
        if report.memory_bytes > 0 {
            let ratio = plan.peak_memory_bytes as f64 / report.memory_bytes as f64;
            assert!((0.85..1.15).contains(&ratio), "{name}: {ratio} of the memory that was taken");
            assert_eq!(plan.fits, Some(true), "{name}");
            assert_eq!(plan.advice, None);
        }
    }
}

fn what_a_run_would_refuse_a_plan_refuses() {
    let model = demo();
    let refuse = |recipe: RecipeConfig, run: RunConfig| match plan(
        &model,
        &recipe,
        &run,
        &mut |_| {},
        &Cancel::default(),
    ) {
        Err(e) => (e.code(), e.to_string()),
        Ok(_) => panic!("it was planned"),
    };
    let data = || RunConfig { data: Some(assets("demo-train.txt")), ..RunConfig::default() };
    let silq = |weights| {
        RecipeConfig::Silq(SilqConfig {
            common: Common { weights: Some(weights), ..Common::default() },
            ..SilqConfig::default()
        })
    };
    assert_eq!(refuse(silq(3.0), data()).0, "ERR_TARGET");
    assert_eq!(refuse(silq(4.0), RunConfig::default()).0, "ERR_CONFIG");
    let apiq = |samples| {
        RecipeConfig::Apiq(ApiqConfig {
            train: BlockOptions { samples: Some(samples), ..blocks() },
            ..ApiqConfig::default()
        })
    };
    let (code, text) = refuse(apiq(10_000_000), data());
    assert!(code == "ERR_DATA" && text.contains("samples"), "{text}");
    let wrong = RunConfig { output: Some("small.gguf".into()), ..data() };
    assert_eq!(refuse(apiq(4), wrong).0, "ERR_CONFIG");
    let cancel = Cancel::default();
    cancel.cancel();
    assert!(matches!(
        plan(&model, &apiq(4), &data(), &mut |_| {}, &cancel),
        Err(Error::Cancelled { resume: None })
    ));
}
