//! The golden optimizer run: parameter groups, clipping by the global norm, warm-up and cosine,
//! step by step.

use halfstep_golden::{Golden, assert_close, load};
use halfstep_kernels::ops::adamw::{AdamW, sum_of_squares};
use halfstep_kernels::{Pool, Real};

struct Limits {
    norm: f64,
    after: f64,
    m: f64,
    v: f64,
}

struct Parameter<T> {
    name: String,
    lr_mult: f64,
    weight_decay: f64,
    x: Vec<T>,
    m: Vec<T>,
    v: Vec<T>,
    gradients: Vec<T>,
}

fn parameters<T: Real>(golden: &Golden) -> Vec<Parameter<T>> {
    let numbers = |name: String| -> Vec<T> {
        golden.tensor(&name).f64.iter().map(|&v| T::from_f64(v)).collect()
    };
    let about = golden.json["parameters"].as_object().expect("parameters");
    let parameter = |(name, about): (&String, &serde_json::Value)| {
        let x = numbers(format!("{name}/start"));
        let (lr_mult, weight_decay) = (
            about["lr_mult"].as_f64().expect("lr_mult"),
            about["weight_decay"].as_f64().expect("weight_decay"),
        );
        let zeros = vec![T::ZERO; x.len()];
        Parameter {
            name: name.clone(),
            lr_mult,
            weight_decay,
            x,
            m: zeros.clone(),
            v: zeros,
            gradients: numbers(format!("{name}/gradients")),
        }
    };
    about.iter().map(parameter).collect()
}

fn replay<T: Real>(golden: &Golden, pool: &Pool, limits: &Limits) -> Vec<T> {
    let setting = |name: &str| golden.json[name].as_f64().unwrap_or_else(|| panic!("{name}"));
    let list = |name: &str| -> Vec<f64> {
        golden.json[name]
            .as_array()
            .expect("list")
            .iter()
            .map(|v| v.as_f64().expect("number"))
            .collect()
    };
    let (rates, norms) = (list("rates"), list("gradient_norms"));
    let betas = list("betas");
    let mut parameters = parameters::<T>(golden);
    for (t, (&rate, &want_norm)) in rates.iter().zip(&norms).enumerate() {
        let gradient = |p: &Parameter<T>| p.gradients[t * p.x.len()..(t + 1) * p.x.len()].to_vec();
        let norm =
            parameters.iter().map(|p| sum_of_squares(pool, &gradient(p))).sum::<f64>().sqrt();
        assert_close("gradient norm", &[norm], &[want_norm], limits.norm);
        for p in &mut parameters {
            let step = AdamW {
                learning_rate: rate * p.lr_mult,
                beta1: betas[0],
                beta2: betas[1],
                eps: setting("eps"),
                weight_decay: p.weight_decay,
                step: t as u64 + 1,
                gradient_scale: (setting("max_norm") / (norm + 1e-6)).min(1.0),
            };
            let gradient = gradient(p);
            step.update(pool, &mut p.x, &gradient, &mut p.m, &mut p.v);
            let after = golden.tensor(&format!("{}/after", p.name)).f64;
            for (i, (got, want)) in p.x.iter().zip(&after[t * p.x.len()..]).enumerate() {
                assert!(
                    (got.to_f64() - want).abs() <= limits.after,
                    "{}[{i}] after step {t}: {got:?}, want {want}",
                    p.name
                );
            }
        }
    }
    for p in &parameters {
        let wide = |x: &[T]| -> Vec<f64> { x.iter().map(|v| v.to_f64()).collect() };
        assert_close(&p.name, &wide(&p.m), &golden.tensor(&format!("{}/m", p.name)).f64, limits.m);
        assert_close(&p.name, &wide(&p.v), &golden.tensor(&format!("{}/v", p.name)).f64, limits.v);
    }
    parameters.into_iter().flat_map(|p| p.x).collect()
}

#[test]
fn a_run_of_steps() {
    let Some(golden) = load("adamw") else { return };
    let beta2 = golden.json["betas"][1].as_f64().expect("beta2");
    // 1 - beta2 keeps fewer bits in f32 as beta2 nears 1.
    let v = if beta2 >= 0.99 { 5e-5 } else { 2e-6 };
    let one =
        replay::<f32>(&golden, &Pool::new(1), &Limits { norm: 1e-6, after: 2e-6, m: 2e-6, v });
    let three =
        replay::<f32>(&golden, &Pool::new(3), &Limits { norm: 1e-6, after: 2e-6, m: 2e-6, v });
    assert_eq!(one, three);
    replay::<f64>(
        &golden,
        &Pool::new(2),
        &Limits { norm: 1e-12, after: 1e-12, m: 1e-12, v: 1e-12 },
    );
}
