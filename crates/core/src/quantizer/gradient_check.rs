//! What the gradient checks of parts share.

use halfstep_formats::architecture::{Linear, Role, TensorSpec};
use halfstep_kernels::rng::Rng;

/// `[6, 8]`.
pub(crate) fn spec() -> TensorSpec {
    TensorSpec {
        name: "model.layers.0.self_attn.q_proj.weight".into(),
        shape: vec![6, 8],
        role: Role::Linear(Linear::Q),
        layer: Some(0),
    }
}

pub(crate) fn normal(stream: u64, count: usize) -> Vec<f64> {
    let mut rng = Rng::new(7, stream);
    (0..count).map(|_| rng.normal()).collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
