//! Gradients of norms, of norms of queries and keys, and of biases, against finite differences of
//! the whole model's loss in f64.

use crate::random_model::random_model;
use halfstep::autograd::parameter::Group;
use halfstep::device::Cpu;
use halfstep::engine::Trainer;
use halfstep::host::Host;
use halfstep::recipe::{Recipe, RecipeData, Rule, TrainConfig, Trains};
use halfstep::target::TargetId;
use halfstep_formats::architecture::{Architecture, QkNorm, Sizes};
use halfstep_kernels::rng::Rng;
use halfstep_kernels::{ActivationSpec, Pool};

const SEQUENCES: usize = 2;
const TOKENS: usize = 7;
/// Half of the distance over which a difference is taken.
const STEP: f64 = 1e-5;
/// Of the largest gradient of the same tensor: rounding over a step of [`STEP`] leaves about 1e-10.
const TOLERANCE: f64 = 1e-7;

/// Layers with all, some and none of the vectors; several query heads share a key head.
fn architecture() -> Architecture {
    let sizes = Sizes {
        vocab_size: 13,
        hidden_size: 8,
        intermediate_size: 10,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        norm_eps: 1e-5,
        rope_theta: 100.0,
        rope_scaling: None,
        tied_head: true,
        max_positions: 64,
    };
    let mut architecture = sizes.decoder("llama");
    architecture.layers[0].attention_mut().expect("attention").qkv_bias = true;
    architecture.layers[0].attention_mut().expect("attention").qk_norm = Some(QkNorm::Head);
    architecture.layers[1].attention_mut().expect("attention").qkv_bias = true;
    architecture
}

#[test]
fn norms_and_biases_have_the_gradients_of_finite_differences() {
    let model = random_model(architecture(), Rng::new(3, 0), 0.5);
    let config = TrainConfig { kl_weight: 0.0, ce_weight: 1.0, ..TrainConfig::default() };
    let recipe = Recipe {
        id: "float".into(),
        target: TargetId::Halfstep,
        rules: vec![Rule::cache(ActivationSpec::F32)],
        data: RecipeData::default(),
        stages: vec![],
    };
    let (host, mut rng) = (Host::default(), Rng::new(4, 0));
    let batch: Vec<u32> = (0..SEQUENCES * TOKENS).map(|_| rng.below(13) as u32).collect();
    let device = Cpu::<f64>::new(&Pool::new(2));
    let mut trainer =
        Trainer::new(&model, None, &recipe, Trains::ALL, &config, 1, &[], device).expect("built");
    trainer.gradients(&batch, TOKENS, &host).expect("gradients");
    let vectors: Vec<(usize, Vec<f64>)> = trainer
        .parameters
        .list
        .iter()
        .enumerate()
        .filter(|(_, p)| p.group == Group::Norms)
        .map(|(index, p)| (index, p.sink.with(|gradient| gradient.clone())))
        .collect();
    let specs = model.architecture.tensors();
    assert_eq!(vectors.len(), specs.iter().filter(|spec| spec.role.is_vector()).count());
    for (index, gradient) in vectors {
        let name = trainer.parameters.list[index].name.clone();
        let largest = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        assert!(largest > 1e-4, "{name}: a gradient of {largest}");
        for (i, &got) in gradient.iter().enumerate() {
            let mut loss = |step: f64| {
                trainer.parameters.list[index].value[i] += step;
                let loss = trainer.gradients(&batch, TOKENS, &host).expect("a loss");
                trainer.parameters.list[index].value[i] -= step;
                loss
            };
            let want = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
            assert!(
                (got - want).abs() <= TOLERANCE * largest.max(1e-2),
                "{name}[{i}]: {got}, finite differences say {want}"
            );
        }
    }
}
