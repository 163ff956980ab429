//! Every family of test/golden/arch (or of HALFSTEP_GOLDEN_ARCH) through rounding, solving, training,
//! export and re-opening; crates/runtime/tests/golden_families.rs compares them with PyTorch.
//!
//! Families, sizes and lengths are read from the folder. A family that is refused by name is a
//! skip, printed.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::block::BlockOptions;
use halfstep::recipe::solver_options::SolverOptions;
use halfstep::recipe::{Common, TrainConfig};
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::awq::AwqRecipeConfig;
use halfstep::recipes::efficientqat::EfficientqatConfig;
use halfstep::recipes::gptq::GptqRecipeConfig;
use halfstep::recipes::rtn::RtnConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::{load, quantize, save};
use halfstep::target::TargetId;
use halfstep_formats::architecture::Linear;
use halfstep_formats::write::{self, FileFormat};
use halfstep_formats::{Error, Model, gguf};
use halfstep_golden::{Golden, arch_folder};
use halfstep_kernels::Pool;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::path::{Path, PathBuf};

/// Of the largest |logit|, in f32; twice PyTorch's own spread, if that is larger.
const TOLERANCE: f64 = 1e-5;

/// A family of the folder that is read.
struct Family {
    name: String,
    folder: PathBuf,
    model: Model,
    golden: Golden,
}

impl Family {
    fn ids(&self) -> Vec<u32> {
        self.golden.tensor("ids").i64.iter().map(|&id| id as u32).collect()
    }

    /// The file that llama.cpp's converter made, if there is one.
    fn gguf(&self) -> Option<PathBuf> {
        let path = arch_folder().join("gguf").join(format!("{}.gguf", self.name));
        path.exists().then_some(path)
    }

    /// How far a logit may be off.
    fn allowed(&self) -> f64 {
        let largest = largest(&self.golden.tensor("logits").f64);
        let spread = ["decode_against_prefill", "prefill_with_and_without_cache"]
            .map(|key| self.golden.json[key].as_f64().unwrap_or(0.0));
        (TOLERANCE * largest).max(2.0 * spread[0].max(spread[1]))
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
                families.push(Family { name, folder, model, golden });
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

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

fn network(model: &Model) -> Network {
    Network::new(model, Arithmetic::Auto, Pool::new(2)).expect("a network")
}

fn logits(network: &Network, ids: &[u32]) -> Vec<f32> {
    network.forward(ids, &mut Cache::new(network), Logits::All).expect("logits")
}

/// Largest difference of two rows of numbers.
fn off(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).fold(0.0, |m, (&got, want)| m.max((f64::from(got) - want).abs()))
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
                common: Common { weights: Some(4.0), ..grouped },
                train: blocks,
                end_tokens: 64,
                ..EfficientqatConfig::default()
            }),
        ),
    ]
}

#[test]
fn every_family_is_rounded_solved_trained_and_exported() {
    let text =
        "the king and his men; naïve 123 rings of fire, and a door that is open. ".repeat(40);
    for family in families() {
        let model = load(&family.folder.display().to_string()).expect("a model");
        for (name, config) in recipes(&model) {
            let run = RunConfig { text: Some(text.clone()), ..RunConfig::default() };
            let made = quantize(&model, &config, &run, &mut |_| {}, &Cancel::default());
            let (small, _) = made.unwrap_or_else(|e| panic!("{}: {name}: {e}", family.name));
            let gguf = config.resolve().expect("a recipe").target == TargetId::GgufQ4_0;
            let path = temporary(&format!("{}-{name}", family.name));
            let path = path.with_extension(if gguf { "gguf" } else { "safetensors" });
            let saved = save(&small, &path.display().to_string());
            let saved = saved.unwrap_or_else(|e| panic!("{}: {name}: {e}", family.name));
            assert!(saved.parity, "{}: {name}", family.name);
            let again = halfstep_formats::load::load(&path).expect("read");
            let ids = family.ids();
            let (got, want) = (logits(&network(&again), &ids), logits(&network(&small), &ids));
            assert!(got == want, "{}: {name}: the file answers otherwise", family.name);
            std::fs::remove_file(path).expect("removed");
        }
    }
}

/// Rows of q and k, and their biases, are in the file as the family has them.
#[test]
fn the_converters_rows_are_ours() {
    for family in families() {
        let Some(path) = family.gguf() else { continue };
        let (theirs, pool) = (std::fs::read(path).expect("readable"), Pool::serial());
        let theirs = gguf::read("theirs.gguf", &theirs).expect("a model");
        for layer in 0..theirs.architecture.layers.len() {
            for linear in Linear::USUAL {
                for name in [linear.weight_name(layer), linear.bias_name(layer)] {
                    let of = |model: &Model| model.tensors.get(&name).map(|t| t.to_f32(&pool));
                    assert_eq!(of(&theirs), of(&family.model), "{}: {name}", family.name);
                }
            }
        }
    }
}
