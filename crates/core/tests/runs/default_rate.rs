//! The learning rate that nobody gave: what suits the weights of the model; and what is said of one
//! that does not.

use crate::narrow_demo::DEMO;
use halfstep::cancel::Cancel;
use halfstep::config::options::RunConfig;
use halfstep::recipe::{Common, TrainConfig};
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::quantize_as;
use halfstep::target::TargetId;
use halfstep::{Event, Model};
use halfstep_formats::TensorData;
use halfstep_formats::architecture::Role;
use halfstep_kernels::Pool;
use std::path::Path;

const STEPS: usize = 20;

/// The highest learning rate of a run and its warnings.
fn run(model: &Model, learning_rate: Option<f64>) -> (f64, Vec<String>) {
    let train = TrainConfig {
        tokens: STEPS * 64,
        sequence_length: 64,
        batch: 1,
        learning_rate,
        ..TrainConfig::default()
    };
    let common = Common::of(TargetId::GgufQ4_0);
    let recipe = SilqConfig { common, train, ..SilqConfig::default() }.recipe().expect("a recipe");
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo-train.txt");
    let run = RunConfig { data: Some(text.display().to_string()), ..RunConfig::default() };
    let (mut rate, mut warnings) = (0.0f64, vec![]);
    let mut watch = |event: Event| match event {
        Event::Step { learning_rate, .. } => rate = rate.max(learning_rate),
        Event::Warning { message } => warnings.push(message),
        _ => {}
    };
    quantize_as(model, &recipe, &run, &mut watch, &Cancel::default()).expect("a run");
    (rate, warnings)
}

/// The model with all linears of its layers times so much, and the root mean square of those.
fn times(model: &Model, factor: f32) -> (Model, f64) {
    let (mut model, mut squares, mut count) = (model.clone(), 0.0, 0);
    for spec in model.architecture.tensors() {
        if !matches!(spec.role, Role::Linear(_)) {
            continue;
        }
        let tensor = model.tensors.get_mut(&spec.name).expect("a tensor");
        let mut values = tensor.to_f32(&Pool::serial());
        values.iter_mut().for_each(|x| *x *= factor);
        squares += values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        count += values.len();
        tensor.data = TensorData::F32(values);
    }
    (model, (squares / count as f64).sqrt())
}

#[test]
fn the_default_rate_follows_the_weights() {
    let (large, _) = times(&DEMO, 8.0);
    assert_eq!(run(&large, None).0, 2e-4);
    let (small, weights) = times(&DEMO, 0.25);
    let want = weights / 160.0 / (small.architecture.layers.len() as f64).sqrt();
    let (rate, _) = run(&small, None);
    assert!((rate / want - 1.0).abs() < 1e-9, "{rate} {want}");
}

#[test]
fn a_rate_that_undoes_the_model_is_told() {
    let worse = |w: &&String| w.contains("worse than it began");
    assert_eq!(run(&DEMO, Some(1e-6)).1.iter().find(worse), None);
    let (_, warnings) = run(&DEMO, Some(0.05));
    let told = warnings.iter().find(worse).expect("a warning");
    assert!(told.contains("lower learning rate than 5.0e-2"), "{told}");
}
