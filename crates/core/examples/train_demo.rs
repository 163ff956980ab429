//! Makes the demo model: a byte-level BPE vocabulary and a small Llama, trained from nothing by
//! this project's own trainer, and the texts the demo needs.
//!
//!     cargo run --release -p halfstep --example train_demo -- \
//!         <text> <assets folder> [tokens] [seed]
//!
//! The first 300,000 characters of the text are never trained on: the demo's evaluation text comes
//! from them.

use halfstep::data::{Sequences, Text};
use halfstep::device::Cpu;
use halfstep::engine::Trainer;
use halfstep::host::Host;
use halfstep::recipe::{Recipe, RecipeData, Rule, Stage, StageStart, TrainConfig, Trains};
use halfstep::target::TargetId;
use halfstep_formats::architecture::{Role, Sizes};
use halfstep_formats::tokenizer::{Tokenizer, train};
use halfstep_formats::{Model, Tensor, TensorData, write};
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Pool};
use std::collections::BTreeMap;
use std::path::Path;

/// Characters at the beginning of the text that no training sees.
const HELD_OUT: usize = 300_000;
/// Characters of the demo's training text (QAT) and evaluation text.
const TRAIN_CHARACTERS: usize = 700_000;
const EVAL_CHARACTERS: usize = 60_000;

const SIZES: Sizes = Sizes {
    vocab_size: 2048,
    hidden_size: 256,
    intermediate_size: 768,
    layers: 3,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    rope_scaling: None,
    tied_head: true,
    max_positions: 1024,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, text, assets, rest @ ..] = args.as_slice() else {
        return Err("usage: train_demo <text> <assets folder> [tokens] [seed]".into());
    };
    let tokens: usize = rest.first().map_or(Ok(6_000_000), |t| t.parse())?;
    let seed: u64 = rest.get(1).map_or(Ok(1), |s| s.parse())?;
    let assets = Path::new(assets);

    let whole = std::fs::read_to_string(text)?;
    let held_out: String = whole.chars().take(EVAL_CHARACTERS).collect();
    let training: String = whole.chars().skip(HELD_OUT).collect();
    std::fs::create_dir_all(assets)?;
    std::fs::write(assets.join("demo-eval.txt"), held_out)?;
    std::fs::write(
        assets.join("demo-train.txt"),
        training.chars().take(TRAIN_CHARACTERS).collect::<String>(),
    )?;

    let tokenizer =
        Tokenizer::new(train::train(&training, SIZES.vocab_size, "gpt-2", &["<|endoftext|>"])?)?;
    let model = first_model(seed, tokenizer);
    let text = Text::read(None, Some(&training), 0)?.ok_or("no text")?;
    let model = pretrain(model, &text, tokens, seed)?;
    write::save_hugging_face(&model, &assets.join("demo"))?;
    Ok(())
}

/// Random weights: normal, with deviation 0.02 for tables and 1/sqrt(fan in) for linears.
fn first_model(seed: u64, tokenizer: Tokenizer) -> Model {
    let architecture = SIZES.decoder("llama");
    let tensors = architecture.tensors().into_iter().enumerate().map(|(index, spec)| {
        let mut rng = Rng { seed, stream: index as u64, counter: 0 };
        let n: usize = spec.shape.iter().product();
        let values = match spec.role {
            Role::FinalNorm | Role::Norm(_) => vec![1.0; n],
            Role::Linear(_) => {
                (0..n).map(|_| (rng.normal() / (spec.shape[1] as f64).sqrt()) as f32).collect()
            }
            _ => (0..n).map(|_| (rng.normal() * 0.02) as f32).collect(),
        };
        (spec.name, Tensor { shape: spec.shape, data: TensorData::F32(values) })
    });
    Model {
        name: "demo".into(),
        tensors: tensors.collect(),
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        architecture,
        tokenizer: Some(tokenizer),
        chat_template: None,
        quantization: None,
        provenance: BTreeMap::new(),
        file_bytes: 0,
        warnings: vec![],
        carried: Default::default(),
    }
}

/// Next-token training in full precision: the same trainer with no quantizer at any site. The
/// weights are rounded to bf16 at the end.
fn pretrain(
    model: Model,
    text: &Text,
    tokens: usize,
    seed: u64,
) -> Result<Model, Box<dyn std::error::Error>> {
    let config = TrainConfig {
        tokens,
        sequence_length: 256,
        batch: 16,
        learning_rate: 3e-3,
        warmup: 0.05,
        min_ratio: 0.02,
        weight_decay: 0.1,
        kl_weight: 0.0,
        ce_weight: 1.0,
        seed,
        ..TrainConfig::default()
    };
    let recipe = Recipe {
        id: "pretrain".into(),
        target: TargetId::Halfstep,
        rules: vec![Rule::cache(ActivationSpec::F32)],
        data: RecipeData::default(),
        stages: vec![Stage::Model {
            from: StageStart::Previous,
            trains: Trains::ALL,
            config: config.clone(),
        }],
    };
    let steps = (tokens as u64).div_ceil((config.batch * config.sequence_length) as u64);
    let mut windows =
        Sequences::new(text.tokens(&model, config.sequence_length)?, config.sequence_length, seed);
    println!(
        "{} parameters, {} windows a pass, {steps} steps",
        model.architecture.parameters(),
        windows.count()
    );
    let device = Cpu::<f32>::new(&Pool::new(0));
    let mut trainer =
        Trainer::new(&model, None, &recipe, Trains::ALL, &config, steps, &[], device)?;
    while trainer.step < steps {
        let batch = windows.batch(trainer.step * config.batch as u64, config.batch);
        let report = trainer.step(&batch, config.sequence_length, &Host::default())?;
        if trainer.step.is_multiple_of(50) || trainer.step == steps {
            println!(
                "step {}/{steps}: loss {:.4}, gradient norm {:.3}",
                trainer.step, report.loss, report.gradient_norm
            );
        }
    }
    let mut trained = trainer.packed(&model, &recipe)?;
    for tensor in trained.tensors.values_mut() {
        if let TensorData::F32(values) = &tensor.data {
            tensor.data =
                TensorData::BF16(values.iter().map(|&v| half::bf16::from_f32(v)).collect());
        }
    }
    Ok(trained)
}
