//! Memory of a block run does not grow with depth, but for what is finished: counted by the
//! allocator, alone in its process.

use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::block::BlockOptions;
use halfstep::recipe::solver_options::SolverOptions;
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::apiq::ApiqConfig;
use halfstep::recipes::awq::AwqRecipeConfig;
use halfstep::recipes::gptq::GptqRecipeConfig;
use halfstep::recipes::sapr::SaprConfig;
use halfstep::run::{load, quantize};
use halfstep_formats::Model;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const TEXT_BYTES: usize = 4096;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The demo model with its blocks repeated to `layers`.
fn deep(demo: &Model, layers: usize) -> Model {
    let mut model = demo.clone();
    model.architecture = model.architecture.resized(|sizes| sizes.layers = layers);
    let there = demo.architecture.layers.len();
    for layer in 0..layers {
        let (from, to) =
            (format!("model.layers.{}.", layer % there), format!("model.layers.{layer}."));
        let copies: Vec<_> = demo
            .tensors
            .iter()
            .filter(|(name, _)| name.starts_with(&from))
            .map(|(n, t)| (n.replace(&from, &to), t.clone()))
            .collect();
        model.tensors.extend(copies);
    }
    model.tensors.retain(|name, _| {
        layers >= there || !(layers..there).any(|l| name.contains(&format!("layers.{l}.")))
    });
    model
}

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

/// Largest number of bytes that a run adds, and bytes of what it gives. The text is short: to
/// tokenize a long one takes more memory than a layer.
fn peak(model: &Model, recipe: &RecipeConfig) -> (usize, usize) {
    let text = std::fs::read_to_string(assets().join("demo-train.txt")).expect("a text");
    let text = Some(text[..TEXT_BYTES].to_owned());
    let run = RunConfig { text, threads: 1, ..RunConfig::default() };
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let (small, _) = quantize(model, recipe, &run, &mut |_| {}, &Cancel::default()).expect("a run");
    let (peak, after) = (PEAK.load(Ordering::Relaxed), LIVE.load(Ordering::Relaxed));
    drop(small);
    (peak - before, after - before)
}

#[test]
fn memory_in_addition_to_the_result_does_not_grow_with_depth() {
    let demo = load(&assets().join("demo").display().to_string()).expect("the demo model");
    let train = BlockOptions {
        samples: Some(2),
        sequence_length: Some(64),
        epochs: Some(1),
        ..BlockOptions::default()
    };
    let apiq = RecipeConfig::Apiq(ApiqConfig { train: train.clone(), ..ApiqConfig::default() });
    let sapr =
        RecipeConfig::Sapr(SaprConfig { train, saliency_samples: 2, ..SaprConfig::default() });
    let solver =
        SolverOptions { samples: Some(2), sequence_length: Some(64), ..SolverOptions::default() };
    let gptq = RecipeConfig::Gptq(GptqRecipeConfig {
        train: solver.clone(),
        ..GptqRecipeConfig::default()
    });
    let awq = RecipeConfig::Awq(AwqRecipeConfig { train: solver, ..AwqRecipeConfig::default() });
    for (name, recipe) in [("apiq", apiq), ("sapr", sapr), ("gptq", gptq), ("awq", awq)] {
        let others = [2, 20]
            .map(|layers| peak(&deep(&demo, layers), &recipe))
            .map(|(peak, result)| peak - result.min(peak));
        let (least, most) =
            (others.iter().min().copied().unwrap_or(0), others.iter().max().copied().unwrap_or(0));
        assert!(
            least > 0 && most as f64 <= 1.1 * least as f64,
            "{name}: bytes other than the result at 2 and 20 blocks: {others:?}"
        );
    }
}
