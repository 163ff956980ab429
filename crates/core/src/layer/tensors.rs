//! The tensors of a model, and of one of its layers, by name.

use crate::device::{Device, Number};
use crate::layer::weights::BlockWeights;
use crate::{Error, Result};
use halfstep_formats::architecture::{ActivationSite, Linear, Role, TensorSpec};
use halfstep_formats::{Architecture, Model, Tensor};
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
            offset: None,
        })
    })
}

/// A tensor's values in f32.
pub fn tensor_values(model: &Model, name: &str, pool: &Pool) -> Result<Vec<f32>> {
    Ok(find(model, name)?.to_f32(pool))
}

/// A tensor's values on a device.
pub fn uploaded<D: Device>(device: &D, model: &Model, name: &str) -> Result<D::Buffer> {
    device.upload(D::Number::from_f32s(tensor_values(model, name, device.pool())?))
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

/// The inputs of a layer's linears in the order of the forward, and the linears that read each.
pub fn sites(architecture: &Architecture, layer: usize) -> Vec<(ActivationSite, Vec<Linear>)> {
    let mut sites: Vec<(ActivationSite, Vec<Linear>)> = vec![];
    for linear in architecture.linears(layer) {
        let site = linear.kind.input();
        match sites.iter_mut().find(|(there, _)| *there == site) {
            Some((_, readers)) => readers.push(linear.kind),
            None => sites.push((site, vec![linear.kind])),
        }
    }
    sites
}

/// The weights of the teacher's layer.
pub fn teacher<D: Device>(device: &D, model: &Model, layer: usize) -> Result<BlockWeights<D>> {
    BlockWeights::collect(
        &model.architecture,
        layer,
        |spec| uploaded(device, model, &spec.name),
        |spec| device.stored_weight(find(model, &spec.name)?),
    )
}

/// Adds every tensor's name and values to a hash.
pub fn hash_weights(hasher: &mut blake3::Hasher, model: &Model, pool: &Pool) {
    for (name, tensor) in &model.tensors {
        hasher.update(name.as_bytes()).update(bytemuck::cast_slice(&tensor.to_f32(pool)));
    }
}
