//! A small model of random numbers.

use halfstep_formats::architecture::{Architecture, Parameter, Role};
use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_kernels::rng::Rng;
use std::collections::BTreeMap;

/// Norms around 1, everything else around 0 with the standard deviation `deviation`.
pub(crate) fn random_model(architecture: Architecture, mut rng: Rng, deviation: f64) -> Model {
    let tensors = architecture.tensors().into_iter().map(|spec| {
        let (mean, deviation) = match spec.role {
            role if role.is_norm() => (1.0 - architecture.norm.offset, 0.2),
            Role::Norm(_) | Role::Parameter(Parameter::OutputScale) => (1.0, 0.2),
            // In both forms a rate by which something is forgotten.
            Role::Parameter(Parameter::DeltaRate) => (-1.0, 0.2),
            _ => (0.0, deviation),
        };
        let count = spec.shape.iter().product();
        let values = (0..count).map(|_| (mean + deviation * rng.normal()) as f32).collect();
        (spec.name, Tensor { shape: spec.shape, data: TensorData::F32(values) })
    });
    Model {
        name: "random".into(),
        tensors: tensors.collect(),
        architecture,
        low_rank: BTreeMap::new(),
        linear_parts: BTreeMap::new(),
        tokenizer: None,
        chat_template: None,
        quantization: None,
        provenance: BTreeMap::new(),
        file_bytes: 0,
        warnings: vec![],
        carried: Default::default(),
    }
}
