//! Time of a training step and peak memory: with the quantizers of a target, and with none.
//!
//!     cargo run --release -p halfstep --example step_time -- \
//!         <model> <text> <gguf:q4_0 | halfstep | off | plain> \
//!         [steps] [threads] [batch] [arithmetic]
//!
//! Steps of `batch` (4) x 512 tokens; `halfstep` is 4 bit per channel with 8-bit activations and
//! cache, `off` has the teacher and no quantizer, `plain` is next-token cross-entropy without
//! either. The first two steps, which find their memory, are left out. One setting per process,
//! since the peak is the process's.

use halfstep::data::{Sequences, Text};
use halfstep::device::Cpu;
use halfstep::engine::{Trainer, arithmetic};
use halfstep::host::Host;
use halfstep::recipe::{Common, Recipe, Rule, Stage, TrainConfig, Trains};
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::load;
use halfstep::target::TargetId;
use halfstep_kernels::{ActivationSpec, Pool};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: halfstep_kernels::recycle::Recycling = halfstep_kernels::recycle::Recycling;

const WINDOW: usize = 512;
const WARM_UP: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, model, text, setting, rest @ ..] = args.as_slice() else {
        return Err("usage: step_time <model> <text> <setting> [steps] [threads]".into());
    };
    let steps: u64 = rest.first().map_or(Ok(10), |s| s.parse())?;
    let threads: usize = rest.get(1).map_or(Ok(0), |t| t.parse())?;
    let batch: usize = rest.get(2).map_or(Ok(4), |b| b.parse())?;
    let arithmetic = rest.get(3).map(|a| serde_json::from_value(a.as_str().into())).transpose()?;
    let (recipe, pool) = (recipe(setting)?, Pool::new(threads));
    let arithmetic = Some(arithmetic::choose(arithmetic, &recipe)?);
    let config = match recipe.stages.first() {
        Some(Stage::Model { config, .. }) => TrainConfig { arithmetic, ..config.clone() },
        _ => TrainConfig { arithmetic, ..TrainConfig::default() },
    };

    let model = load(model)?;
    let tokens = Text::read(Some(text), None, 0)?.ok_or("no text")?.tokens(&model, WINDOW)?;
    let mut windows = Sequences::new(tokens, WINDOW, config.seed);
    let mut trainer = Trainer::new(
        &model,
        None,
        &recipe,
        recipe.stages.first().map_or(Trains::ALL, Stage::trains),
        &config,
        steps + WARM_UP as u64,
        &windows.batch(0, batch),
        Cpu::<f32>::new(&pool),
    )?;
    let _kept = halfstep_kernels::recycle::MemoryGuard::new(usize::MAX);
    let mut seconds = vec![];
    for step in 0..steps + WARM_UP as u64 {
        let ids = windows.batch(step * batch as u64, batch);
        let start = Instant::now();
        trainer.step(&ids, WINDOW, &Host::default())?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.drain(..WARM_UP);
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let tokens_per_second = (batch * WINDOW) as f64 / median;
    println!(
        "{setting}, {batch} x {WINDOW} in {}: {median:.2} s per step ({:.2} to {:.2}), \
         {tokens_per_second:.0} tokens/s, peak memory {:.2} GB",
        trainer.arithmetic.name(),
        seconds[0],
        seconds[seconds.len() - 1],
        Host::default().memory.peak() as f64 / 1e9
    );
    Ok(())
}

fn recipe(setting: &str) -> Result<Recipe, Box<dyn std::error::Error>> {
    let (kl_weight, ce_weight) = if setting == "plain" { (0.0, 1.0) } else { (1.0, 0.0) };
    let train = TrainConfig { kl_weight, ce_weight, ..TrainConfig::default() };
    let target = if setting == "gguf:q4_0" { TargetId::GgufQ4_0 } else { TargetId::Halfstep };
    let bits = |n| if target == TargetId::Halfstep { Some(n) } else { None };
    let recipe = SilqConfig {
        common: Common {
            weights: bits(4.0),
            activations: bits(8.0),
            cache: bits(8.0),
            ..Common::of(target)
        },
        train,
        ..SilqConfig::default()
    }
    .recipe()?;
    match setting {
        "gguf:q4_0" | "halfstep" => Ok(recipe),
        "off" | "plain" => {
            Ok(Recipe { rules: vec![Rule::Cache { quantizer: ActivationSpec::F32 }], ..recipe })
        }
        other => Err(format!("{other}: gguf:q4_0, halfstep, off or plain").into()),
    }
}
