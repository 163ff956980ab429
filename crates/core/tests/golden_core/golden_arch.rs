//! Every family of test/golden/arch (or of HALFSTEP_GOLDEN_ARCH) through rounding, solving, training,
//! export and re-opening; crates/runtime/tests/golden_runtime/golden_families.rs compares them with
//! PyTorch.
//!
//! Families, sizes and lengths are read from the folder. A family that is refused by name is a
//! skip, printed.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::block::BlockOptions;
use halfstep::recipe::solver_options::SolverOptions;
use halfstep::recipe::{Common, TrainConfig};
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::apiq::ApiqConfig;
use halfstep::recipes::awq::AwqRecipeConfig;
use halfstep::recipes::efficientqat::EfficientqatConfig;
use halfstep::recipes::gptq::GptqRecipeConfig;
use halfstep::recipes::llm_qat::LlmQatConfig;
use halfstep::recipes::rtn::RtnConfig;
use halfstep::recipes::sapr::SaprConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::{quantize, save};
use halfstep::target::TargetId;
use halfstep_formats::{Error, Model, Tensor, TensorData};
use halfstep_golden::{Golden, arch_folder};
use halfstep_kernels::Pool;
use halfstep_kernels::rng::Rng;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::path::{Path, PathBuf};

/// A family of the folder that is read.
struct Family {
    name: String,
    model: Model,
    golden: Golden,
}

impl Family {
    fn ids(&self) -> Vec<u32> {
        self.golden.tensor("ids").i64.iter().map(|&id| id as u32).collect()
    }
}

/// Every family of the folder that is not refused by name; at least one.
fn families() -> Vec<Family> {
    let entries = std::fs::read_dir(arch_folder()).expect("the golden folder");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|path| path.join("config.json").exists());
    folders.sort();
    let mut families = vec![];
    for folder in folders {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        match halfstep_formats::load::load(&folder) {
            Ok(model) => {
                let golden = halfstep_golden::load_from(&folder, "golden").expect("its numbers");
                families.push(Family { name, model, golden });
            }
            Err(Error::Unsupported { name: what, reason, .. }) => {
                println!("skipped: {name}: {what}: {reason}");
            }
            Err(e) => panic!("{name}: {e}"),
        }
    }
    assert!(!families.is_empty(), "{} has no family that is read", arch_folder().display());
    families
}

fn network(model: &Model) -> Network {
    Network::new(model, Arithmetic::Auto, Pool::new(2)).expect("a network")
}

fn logits(network: &Network, ids: &[u32]) -> Vec<f32> {
    network.forward(ids, &mut Cache::new(network), Logits::All).expect("logits")
}

fn temporary(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden_arch").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.parent().expect("a parent")).expect("a folder");
    folder
}

/// Each recipe with a small budget, in groups that divide every row.
fn recipes(model: &Model) -> Vec<(&'static str, RecipeConfig)> {
    let layers = 0..model.architecture.layers.len();
    let cols = layers.flat_map(|layer| model.architecture.linears(layer)).map(|l| l.shape[1]);
    let group = [64, 32, 16, 8].into_iter().find(|g| cols.clone().all(|cols| cols % g == 0));
    let target = if group >= Some(32) { TargetId::GgufQ4_0 } else { TargetId::Halfstep };
    let grouped = Common { group_size: Some(group.unwrap_or(0)), ..Common::default() };
    let samples =
        SolverOptions { samples: Some(4), sequence_length: Some(32), ..SolverOptions::default() };
    let train =
        TrainConfig { tokens: 256, sequence_length: 32, batch: 2, ..TrainConfig::default() };
    let whole = train.clone();
    let blocks = BlockOptions {
        samples: Some(4),
        sequence_length: Some(32),
        epochs: Some(1),
        ..BlockOptions::default()
    };
    vec![
        (
            "rtn",
            RecipeConfig::Rtn(RtnConfig { common: Common::of(target), ..RtnConfig::default() }),
        ),
        (
            "silq",
            RecipeConfig::Silq(SilqConfig {
                common: Common::of(target),
                train,
                ..SilqConfig::default()
            }),
        ),
        (
            "gptq",
            RecipeConfig::Gptq(GptqRecipeConfig {
                common: grouped.clone(),
                train: samples.clone(),
                ..GptqRecipeConfig::default()
            }),
        ),
        (
            "awq",
            RecipeConfig::Awq(AwqRecipeConfig {
                common: grouped.clone(),
                train: samples,
                ..AwqRecipeConfig::default()
            }),
        ),
        (
            "efficientqat",
            RecipeConfig::Efficientqat(EfficientqatConfig {
                common: Common { weights: Some(4.0), ..grouped.clone() },
                train: blocks.clone(),
                end_tokens: 64,
                ..EfficientqatConfig::default()
            }),
        ),
        (
            "apiq",
            RecipeConfig::Apiq(ApiqConfig {
                common: grouped.clone(),
                train: blocks.clone(),
                ..ApiqConfig::default()
            }),
        ),
        (
            "sapr",
            RecipeConfig::Sapr(SaprConfig {
                common: grouped,
                train: blocks,
                saliency_samples: 2,
                ..SaprConfig::default()
            }),
        ),
        ("llm-qat", RecipeConfig::LlmQat(LlmQatConfig { train: whole, ..LlmQatConfig::default() })),
    ]
}

/// What a cell of the matrix came to: the file answers as the model does, or it is refused by name.
fn cell(family: &Family, name: &str, config: &RecipeConfig) -> Result<(), String> {
    let text =
        "the king and his men; naïve 123 rings of fire, and a door that is open. ".repeat(40);
    let run = RunConfig { text: Some(text), ..RunConfig::default() };
    let refused = |error: halfstep::Error| match error {
        halfstep::Error::Config { .. }
        | halfstep::Error::Target { .. }
        | halfstep::Error::Format(Error::Unsupported { .. }) => error.to_string(),
        other => panic!("{}: {name}: {other}", family.name),
    };
    let made = quantize(&family.model, config, &run, &mut |_| {}, &Cancel::default());
    let (small, _) = made.map_err(refused)?;
    let gguf = config.resolve().expect("a recipe").target == TargetId::GgufQ4_0;
    let path = temporary(&format!("{}-{name}", family.name));
    let path = path.with_extension(if gguf { "gguf" } else { "safetensors" });
    let saved = save(&small, &path.display().to_string()).map_err(refused)?;
    assert!(saved.parity, "{}: {name}", family.name);
    let again = halfstep_formats::load::load(&path).expect("read");
    let ids = family.ids();
    let (got, want) = (logits(&network(&again), &ids), logits(&network(&small), &ids));
    assert!(got == want, "{}: {name}: the file answers otherwise", family.name);
    std::fs::remove_file(path).expect("removed");
    Ok(())
}

#[test]
fn every_family_is_rounded_solved_trained_and_exported() {
    let (mut done, mut refused) = (0, 0);
    for family in families() {
        for (name, config) in recipes(&family.model) {
            match cell(&family, name, &config) {
                Ok(()) => done += 1,
                Err(reason) => {
                    println!("refused: {}: {name}: {reason}", family.name);
                    refused += 1;
                }
            }
        }
    }
    println!("{done} pairs of family and recipe, {refused} refused by name");
    assert!(done > 0 && refused * 10 <= done);
}

/// The model with heads of delta rules so wide that blocks of 32 lie within one.
fn with_wide_heads(mut model: Model) -> Model {
    for delta in model.architecture.delta_rules_mut() {
        (delta.key_dim, delta.value_dim) = (32, 32);
    }
    let mut rng = Rng::new(1, 0);
    for spec in model.architecture.tensors() {
        let tensor = model.tensors.get_mut(&spec.name).expect("a tensor");
        if tensor.shape != spec.shape {
            let count = spec.shape.iter().product();
            let values = (0..count).map(|_| 0.2 * rng.normal() as f32).collect();
            *tensor = Tensor { shape: spec.shape, data: TensorData::F32(values) };
        }
    }
    model
}

#[test]
fn files_with_rates_and_heads_in_another_form_pass_the_gate_and_answer_alike() {
    for Family { name, model, golden } in families() {
        if model.architecture.delta_rules().next().is_none() {
            continue;
        }
        let model = with_wide_heads(model);
        let (common, run) = (Common::of(TargetId::GgufQ4_0), RunConfig::default());
        let config = RecipeConfig::Rtn(RtnConfig { common, ..RtnConfig::default() });
        let made = quantize(&model, &config, &run, &mut |_| {}, &Cancel::default());
        let (small, _) = made.unwrap_or_else(|e| panic!("{name}: {e}"));
        let path = temporary(&format!("{name}-heads")).with_extension("gguf");
        let saved = save(&small, &path.display().to_string());
        assert!(saved.unwrap_or_else(|e| panic!("{name}: {e}")).parity, "{name}");
        let again = halfstep_formats::load::load(&path).expect("read");
        let forms = |model: &Model| model.architecture.delta_rules().map(|d| d.decay).next();
        assert_ne!(forms(&again), forms(&small), "{name}");
        let ids: Vec<u32> = golden.tensor("ids").i64.iter().map(|&id| id as u32).collect();
        let (got, want) = (logits(&network(&again), &ids), logits(&network(&small), &ids));
        let largest = want.iter().fold(0.0f32, |most, z| most.max(z.abs()));
        let off = got.iter().zip(&want).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off <= 1e-4 * largest, "{name}: {off} of {largest}");
        std::fs::remove_file(path).expect("removed");
    }
}
