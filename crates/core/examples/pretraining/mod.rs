//! What the examples that make a model share: its first weights, and the training of all of them.

use halfstep::data::{Sequences, Text};
use halfstep::device::Cpu;
use halfstep::engine::Trainer;
use halfstep::host::Host;
use halfstep::recipe::{Recipe, RecipeData, Rule, Stage, StageStart, TrainConfig, Trains};
use halfstep::target::TargetId;
use halfstep_formats::architecture::{Architecture, Role};
use halfstep_formats::tokenizer::Tokenizer;
use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Pool};
use std::collections::BTreeMap;

/// Characters at the beginning of the text that no training sees.
pub const HELD_OUT: usize = 300_000;

/// Random weights: normal, with deviation 0.02 for tables and 1/sqrt(fan in) for linears.
pub fn first_model(
    name: &str,
    architecture: Architecture,
    seed: u64,
    tokenizer: Tokenizer,
) -> Model {
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
        name: name.into(),
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
pub fn pretrain(
    model: Model,
    text: &Text,
    tokens: usize,
    batch: usize,
    seed: u64,
) -> Result<Model, Box<dyn std::error::Error>> {
    let config = TrainConfig {
        tokens,
        sequence_length: 256,
        batch,
        learning_rate: Some(3e-3),
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
