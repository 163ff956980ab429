//! A loss over some of the positions: it is the mean over these alone, for every term, and so is
//! its gradient.

use crate::random_model::random_model;
use halfstep::data::Batch;
use halfstep::device::Cpu;
use halfstep::engine::Trainer;
use halfstep::host::Host;
use halfstep::recipe::{Recipe, RecipeData, Rule, TrainConfig, Trains};
use halfstep::target::TargetId;
use halfstep_formats::architecture::Sizes;
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Pool};

const SEQUENCES: usize = 3;
const TOKENS: usize = 8;
/// Of sums in f64 in another order.
const TOLERANCE: f64 = 1e-12;

/// Loss and gradients with the next tokens in `targets`; None: all positions.
fn loss(config: &TrainConfig, targets: Option<&[bool]>) -> (f64, Vec<f64>) {
    let sizes = Sizes {
        vocab_size: 13,
        hidden_size: 8,
        intermediate_size: 10,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        norm_eps: 1e-5,
        rope_theta: 100.0,
        rope_scaling: None,
        tied_head: true,
        max_positions: 64,
    };
    let teacher = random_model(sizes.decoder("llama"), Rng::new(3, 0), 0.5);
    // Another model, so that the divergence from the teacher is not zero.
    let student = random_model(sizes.decoder("llama"), Rng::new(4, 0), 0.5);
    let recipe = Recipe {
        id: "float".into(),
        target: TargetId::Halfstep,
        rules: vec![Rule::cache(ActivationSpec::F32)],
        data: RecipeData::default(),
        stages: vec![],
    };
    let mut rng = Rng::new(5, 0);
    let tokens: Vec<u32> = (0..SEQUENCES * TOKENS).map(|_| rng.below(13) as u32).collect();
    let device = Cpu::<f64>::new(&Pool::new(2));
    let mut trainer =
        Trainer::new(&teacher, None, &recipe, Trains::ALL, config, 1, &[], device).expect("built");
    for parameter in &mut trainer.parameters.list {
        let values = student.tensors[&parameter.name].to_f32(&Pool::new(1));
        parameter.value = values.into_iter().map(f64::from).collect();
    }
    let batch = Batch { tokens: &tokens, targets };
    let loss = trainer.gradients(batch, TOKENS, &Host::default()).expect("a loss");
    let gradients = trainer.parameters.list.iter();
    (loss, gradients.flat_map(|p| p.sink.with(|gradient| gradient.clone())).collect())
}

fn config(kl_weight: f64, ce_weight: f64) -> TrainConfig {
    TrainConfig { kl_weight, ce_weight, micro_batch: Some(1), ..TrainConfig::default() }
}

fn close(got: &[f64], want: &[f64], what: &str) {
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.0 && got.len() == want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= TOLERANCE * largest, "{what}, {i}: {got} {want}");
    }
}

#[test]
fn cross_entropy_of_all_targets_is_that_without_a_choice() {
    let config = config(0.0, 1.0);
    let ((all, all_gradients), (plain, gradients)) =
        (loss(&config, Some(&[true; SEQUENCES * TOKENS])), loss(&config, None));
    close(&[all], &[plain], "loss");
    close(&all_gradients, &gradients, "gradients");
}

#[test]
fn losses_of_two_halves_of_the_targets_add_up_to_the_whole() {
    // The second sequence is all in the one half.
    let chosen = |m: usize| (m / TOKENS == 1) || (m / TOKENS == 0 && m % 3 == 1);
    let one: Vec<bool> = (0..SEQUENCES * TOKENS).map(chosen).collect();
    let other: Vec<bool> = one.iter().map(|&target| !target).collect();
    let count = |targets: &[bool]| {
        targets.chunks(TOKENS).flat_map(|row| &row[1..]).filter(|t| **t).count() as f64
    };
    for (kl, ce) in [(1.0, 0.0), (0.0, 1.0), (0.7, 0.3)] {
        let config = config(kl, ce);
        let [(a, da), (b, db), (all, dall)] =
            [&one[..], &other, &[true; SEQUENCES * TOKENS]].map(|t| loss(&config, Some(t)));
        let (n, m) = (count(&one), count(&other));
        let share = |a: &f64, b: &f64| (a * n + b * m) / (n + m);
        close(&[share(&a, &b)], &[all], "loss");
        let sum: Vec<f64> = da.iter().zip(&db).map(|(a, b)| share(a, b)).collect();
        close(&sum, &dall, "gradients");
        assert!((a - b).abs() > 1e-6, "the halves differ");
    }
}

#[test]
fn no_target_gives_no_gradient() {
    let (loss, gradients) = loss(&config(1.0, 0.5), Some(&[false; SEQUENCES * TOKENS]));
    assert!(loss == 0.0 && gradients.iter().all(|&g| g == 0.0));
}
