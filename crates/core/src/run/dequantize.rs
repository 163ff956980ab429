//! A quantized model decoded to floats.

use crate::error::Result;
use halfstep_formats::{Model, Tensor, TensorData};
use halfstep_kernels::Pool;

/// The model's values as a full-precision f32 model: blocks and codes decoded, low-rank factors
/// merged, nothing quantized any more. Factors that fit no weight are left out; no file holds such.
///
/// Errors: other parts of a linear, which no float model has.
pub fn dequantize(model: &Model, threads: usize) -> Result<Model> {
    model.refuse_linear_parts(&model.name, "a float model cannot hold it")?;
    let pool = Pool::new(threads);
    let tensors = model.tensors.iter().map(|(name, t)| {
        let mut values = t.to_f32(&pool);
        if let Some(factors) =
            model.low_rank.get(name).filter(|factors| factors.check(t.rows(), t.cols()).is_ok())
        {
            factors.merge(&mut values);
        }
        (name.clone(), Tensor { shape: t.shape.clone(), data: TensorData::F32(values) })
    });
    Ok(Model { provenance: model.provenance.clone(), ..model.with(tensors.collect(), None) })
}
