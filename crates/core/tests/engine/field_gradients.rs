//! Every field of an architecture: gradients of a whole model in f64 against finite differences of
//! its loss, and the trainer's forward against the runtime's.

use crate::every_field::{VOCAB, architectures};
use crate::random_model::random_model;
use halfstep::device::{Cpu, Device};
use halfstep::engine::Trainer;
use halfstep::host::Host;
use halfstep::recipe::{Recipe, RecipeData, Recompute, Rule, TrainConfig, Trains};
use halfstep::target::TargetId;
use halfstep_formats::Model;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Pool};
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};

const SEQUENCES: usize = 2;
const TOKENS: usize = 9;
const STEP: f64 = 1e-5;
/// Of the gradient's length.
const TOLERANCE: f64 = 1e-6;

fn batch(seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed, 0);
    (0..SEQUENCES * TOKENS).map(|_| rng.below(VOCAB as u64) as u32).collect()
}

fn trainer<D: Device>(model: &Model, recompute: Recompute, device: D) -> Trainer<D> {
    let config =
        TrainConfig { kl_weight: 0.0, ce_weight: 1.0, recompute, ..TrainConfig::default() };
    let recipe = Recipe {
        id: "float".into(),
        target: TargetId::Halfstep,
        rules: vec![Rule::cache(ActivationSpec::F32)],
        data: RecipeData::default(),
        stages: vec![],
    };
    Trainer::new(model, None, &recipe, Trains::ALL, &config, 1, &[], device).expect("built")
}

#[test]
fn every_field_has_the_gradients_of_finite_differences() {
    for (name, architecture) in architectures() {
        let model = random_model(architecture, Rng::new(3, 0), 0.5);
        let device = Cpu::<f64>::new(&Pool::new(2));
        let mut trainer = trainer(&model, Recompute::Never, device);
        let (batch, host, mut rng) = (batch(4), Host::default(), Rng::new(5, 0));
        trainer.gradients(&batch, TOKENS, &host).expect("gradients");
        let read = |p: &halfstep::autograd::parameter::Parameter<Cpu<f64>>| {
            p.sink.with(|gradient| gradient.clone())
        };
        let gradients: Vec<Vec<f64>> = trainer.parameters.list.iter().map(read).collect();
        let (mut flat, mut untouched) = (0, vec![]);
        for (index, gradient) in gradients.iter().enumerate() {
            let parameter = trainer.parameters.list[index].name.clone();
            let direction: Vec<f64> = gradient.iter().map(|_| rng.normal()).collect();
            let mut loss = |step: f64| {
                let mut move_by = |step: f64| {
                    let values = &mut trainer.parameters.list[index].value;
                    values.iter_mut().zip(&direction).for_each(|(v, d)| *v += step * d);
                };
                move_by(step);
                let loss = trainer.gradients(&batch, TOKENS, &host).expect("a loss");
                let values = &mut trainer.parameters.list[index].value;
                values.iter_mut().zip(&direction).for_each(|(v, d)| *v -= step * d);
                loss
            };
            let want = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
            let got: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!(
                (got - want).abs() <= TOLERANCE * length.max(1e-2),
                "{name}: {parameter}: {got}, finite differences say {want}"
            );
            if length < 1e-6 {
                flat += 1;
                untouched.push(parameter);
            }
        }
        // Numbers that only choose experts, and experts that no token chose.
        let expected =
            |name: &String| name.contains("correction_bias") || name.contains("experts.");
        assert!(untouched.iter().all(expected) && flat < gradients.len() / 3, "{untouched:?}");
    }
}

#[test]
fn recomputed_layers_have_the_same_gradients() {
    for (name, architecture) in architectures() {
        let model = random_model(architecture, Rng::new(6, 0), 0.5);
        let gradients = |recompute| {
            let mut trainer = trainer(&model, recompute, Cpu::<f32>::new(&Pool::new(2)));
            let loss = trainer.gradients(&batch(7), TOKENS, &Host::default()).expect("gradients");
            let parameters = trainer.parameters.list.iter();
            let bits = |g: &mut Vec<f32>| g.iter().map(|g| g.to_bits()).collect::<Vec<_>>();
            (loss.to_bits(), parameters.map(|p| p.sink.with(bits)).collect::<Vec<_>>())
        };
        assert!(gradients(Recompute::Always) == gradients(Recompute::Never), "{name}");
    }
}

/// The mean loss of the next token by the runtime's logits.
fn runtime_loss(model: &Model, batch: &[u32]) -> f64 {
    let network = Network::new(model, Arithmetic::Float, Pool::new(2)).expect("a network");
    let mut total = 0.0;
    for tokens in batch.chunks(TOKENS) {
        let mut cache = Cache::new(&network);
        let logits = network.forward(tokens, &mut cache, Logits::All).expect("logits");
        for (row, &next) in logits.chunks(VOCAB).zip(&tokens[1..]) {
            let sum: f64 = row.iter().map(|&z| f64::from(z).exp()).sum();
            total += sum.ln() - f64::from(row[next as usize]);
        }
    }
    total / (SEQUENCES * (TOKENS - 1)) as f64
}

#[test]
fn the_forward_of_the_trainer_is_that_of_the_runtime() {
    for (name, architecture) in architectures() {
        for seed in 0..4 {
            let model = random_model(architecture.clone(), Rng::new(seed, 1), 0.5);
            let batch = batch(seed);
            let mut trainer = trainer(&model, Recompute::Never, Cpu::<f32>::new(&Pool::new(2)));
            let got = trainer.gradients(&batch, TOKENS, &Host::default()).expect("a loss");
            let want = runtime_loss(&model, &batch);
            assert!((got - want).abs() <= 1e-5 * want, "{name}: {got} against {want}");
        }
    }
}
