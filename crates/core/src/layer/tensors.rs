//! The tensors of a model, and of one of its layers, by name.

use crate::autograd::ops::Number;
use crate::autograd::ops::weight::Weight;
use crate::layer::weights::BlockWeights;
use crate::{Error, Result};
use halfstep_formats::architecture::{Linear, Role, TensorSpec};
use halfstep_formats::{Model, Tensor};
use halfstep_kernels::Pool;

/// The tensor of that name.
///
/// Errors: `Format`, the model has none.
pub fn find<'a>(model: &'a Model, name: &str) -> Result<&'a Tensor> {
    let tensor = model.tensors.get(name);
    tensor.ok_or_else(|| {
        Error::Format(halfstep_formats::Error::MissingTensor {
            file: model.name.clone(),
            tensor: name.into(),
        })
    })
}

/// A tensor's values in f32.
pub fn tensor_values(model: &Model, name: &str, pool: &Pool) -> Result<Vec<f32>> {
    Ok(find(model, name)?.to_f32(pool))
}

/// Norms and biases of a layer, and its linears, in the order of the forward.
pub fn tensors(model: &Model, layer: usize) -> (Vec<TensorSpec>, Vec<(Linear, TensorSpec)>) {
    let (mut vectors, mut linears) = (vec![], vec![]);
    for spec in model.architecture.layer_tensors(layer) {
        match spec.role {
            Role::Linear(linear) => linears.push((linear, spec)),
            _ => vectors.push(spec),
        }
    }
    (vectors, linears)
}

/// The weights of the teacher's layer.
pub fn teacher<T: Number>(model: &Model, layer: usize, pool: &Pool) -> Result<BlockWeights<T>> {
    BlockWeights::collect(
        &model.architecture,
        layer,
        |spec| Ok(T::from_f32s(tensor_values(model, &spec.name, pool)?)),
        |spec| Ok(Weight::stored(find(model, &spec.name)?, pool)),
    )
}

/// Adds every tensor's name and values to a hash.
pub fn hash_weights(hasher: &mut blake3::Hasher, model: &Model, pool: &Pool) {
    for (name, tensor) in &model.tensors {
        hasher.update(name.as_bytes()).update(bytemuck::cast_slice(&tensor.to_f32(pool)));
    }
}
