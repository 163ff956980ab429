//! Models to candle and back, and the example.

#[path = "../examples/train_candle.rs"]
mod train_candle;

use candle_core::{DType, Device, Tensor};
use halfstep_candle::{Error, from_candle, to_candle};
use halfstep_formats::architecture::{EMBEDDING, FINAL_NORM};
use halfstep_formats::{Model, TensorData};
use halfstep_kernels::Pool;
use std::path::{Path, PathBuf};

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name)
}

fn demo() -> Model {
    halfstep_formats::load::load(&asset("demo")).expect("the demo model")
}

#[test]
fn a_model_comes_back_as_it_was_and_keeps_its_types() {
    let model = demo();
    let mut tensors = to_candle(&model, &Device::Cpu).expect("tensors");
    let back = from_candle(&model, &tensors).expect("a model");
    let same = |back: &Model| {
        for (name, tensor) in &model.tensors {
            let (a, b, pool) = (tensor, &back.tensors[name], Pool::serial());
            assert_eq!((&a.shape, a.to_f32(&pool)), (&b.shape, b.to_f32(&pool)), "{name}");
        }
        assert_eq!(back.tensors.len(), model.tensors.len());
    };
    same(&back);
    for (name, tensor) in &model.tensors {
        let type_of = |data: &TensorData| std::mem::discriminant(data);
        assert_eq!(type_of(&tensor.data), type_of(&back.tensors[name].data), "{name}");
    }
    // In f64, and as a view.
    let norm = tensors[FINAL_NORM].to_dtype(DType::F64).expect("f64");
    tensors.insert(FINAL_NORM.into(), norm);
    let embedding = &tensors[EMBEDDING];
    let view = embedding.t().and_then(|t| t.contiguous()?.t()).expect("a view");
    tensors.insert(EMBEDDING.into(), view);
    same(&from_candle(&model, &tensors).expect("a model"));
}

#[test]
fn tensors_that_do_not_fit_the_architecture_are_named() {
    let model = demo();
    let tensors = to_candle(&model, &Device::Cpu).expect("tensors");
    let with = |change: &dyn Fn(&mut std::collections::HashMap<String, Tensor>)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        from_candle(&model, &tensors).expect_err("an error")
    };
    let missing = with(&|tensors| drop(tensors.remove(FINAL_NORM)));
    assert!(missing.to_string().contains(FINAL_NORM), "{missing}");
    let turned = with(&|tensors| {
        let embedding = tensors[EMBEDDING].t().expect("a view");
        tensors.insert(EMBEDDING.into(), embedding);
    });
    assert!(turned.to_string().contains(EMBEDDING), "{turned}");
    let unknown = with(&|tensors| {
        let norm = tensors[FINAL_NORM].clone();
        tensors.insert("model.norms.weight".into(), norm);
    });
    assert!(matches!(unknown, Error::Unknown { name } if name == "model.norms.weight"));
}

#[test]
fn a_candle_model_trained_on_the_grid_is_better_and_its_file_is_the_model() {
    let text = std::fs::read_to_string(asset("demo-train.txt")).expect("the text");
    let path = std::env::temp_dir().join(format!("halfstep-candle-{}.gguf", std::process::id()));
    let outcome = train_candle::run(&demo(), &text, &path).expect("a run");
    let removed = std::fs::remove_file(&path);
    assert!(outcome.after < 0.8 * outcome.before, "{} to {}", outcome.before, outcome.after);
    // Float order: the runtime sums in another one than candle.
    assert!(outcome.difference < 1e-4, "{}", outcome.difference);
    removed.expect("the file was there");
}
