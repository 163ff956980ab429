//! Models both ways: halfstep's tensors by their Hugging Face names as candle's, and back.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use halfstep_formats::{Model, TensorData};
use halfstep_kernels::Pool;
use std::collections::{BTreeMap, HashMap};

/// A model that cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A fault of the model.
    #[error(transparent)]
    Format(#[from] halfstep_formats::Error),
    /// A tensor whose name the architecture does not have.
    #[error("tensor {name} is not part of this architecture")]
    Unknown {
        /// Name of the tensor.
        name: String,
    },
}

/// The tensors of a model: f32, f16 and bf16 as they are, quantized ones as the f32 values of
/// their codes. Low-rank factors are merged into their weights.
///
/// Errors: other parts of a linear, by name.
pub fn to_candle(model: &Model, device: &Device) -> Result<HashMap<String, Tensor>, Error> {
    model.refuse_linear_parts(&model.name, "a model of candle cannot hold it")?;
    let pool = Pool::new(0);
    let tensor = |(name, tensor): (&String, &halfstep_formats::Tensor)| {
        let shape = tensor.shape.as_slice();
        let factors = model.low_rank.get(name);
        let candle = match &tensor.data {
            TensorData::F16(values) if factors.is_none() => {
                Tensor::from_slice(values, shape, device)
            }
            TensorData::BF16(values) if factors.is_none() => {
                Tensor::from_slice(values, shape, device)
            }
            _ => {
                let mut values = tensor.to_f32(&pool);
                factors.into_iter().for_each(|factors| factors.merge(&mut values));
                Tensor::from_vec(values, shape, device)
            }
        };
        Ok((name.clone(), candle?))
    };
    model.tensors.iter().map(tensor).collect()
}

/// The model `like` with other tensors, in floating point: f16 and bf16 stay, other floats become f32.
/// Of a `VarMap` of candle-nn these are the tensors of its variables.
///
/// Errors: a tensor that is missing, has another shape than the architecture says, or is none of
/// its own, by name; a type that is no float.
pub fn from_candle(like: &Model, tensors: &HashMap<String, Tensor>) -> Result<Model, Error> {
    let specs = like.architecture.tensors();
    if let Some(name) = tensors.keys().find(|name| specs.iter().all(|spec| spec.name != **name)) {
        return Err(Error::Unknown { name: name.clone() });
    }
    let mut converted = BTreeMap::new();
    for spec in specs {
        let (file, name) = (like.name.clone(), spec.name);
        let Some(tensor) = tensors.get(&name) else {
            return Err(halfstep_formats::Error::MissingTensor {
                file,
                tensor: name,
                offset: None,
            }
            .into());
        };
        if tensor.dims() != spec.shape {
            let (expected, got) = (spec.shape, tensor.dims().to_vec());
            let error =
                halfstep_formats::Error::Shape { file, tensor: name, expected, got, offset: None };
            return Err(error.into());
        }
        let flat = tensor.flatten_all()?;
        let data = match tensor.dtype() {
            DType::F16 => TensorData::F16(flat.to_vec1::<f16>()?),
            DType::BF16 => TensorData::BF16(flat.to_vec1::<bf16>()?),
            DType::F32 | DType::F64 => {
                TensorData::F32(flat.to_dtype(DType::F32)?.to_vec1::<f32>()?)
            }
            dtype => {
                return Err(candle_core::Error::UnsupportedDTypeForOp(dtype, "from_candle").into());
            }
        };
        converted.insert(name, halfstep_formats::Tensor { shape: spec.shape, data });
    }
    Ok(like.with(converted, None))
}
