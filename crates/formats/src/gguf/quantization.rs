//! How a GGUF model is run: as a file of ours states under its own key, or as the client does
//! with the block types of another file.

use super::metadata::Metadata;
use super::{FORMAT, keys};
use crate::architecture::{Architecture, EMBEDDING, HEAD, Role};
use crate::blocks::packed;
use crate::error::{Error, Result};
use crate::model::{Tensor, TensorData};
use crate::quantization::Quantization;
use halfstep_kernels::{ActivationSpec, QuantSpec};
use std::collections::BTreeMap;

/// Most bytes of the JSON.
const MAX_BYTES: usize = 64 << 10;

/// What our own key says, if it is there. No tensor is read for it, so that a file is refused by it
/// before its weights are read.
pub fn read(metadata: &Metadata, architecture: &Architecture) -> Result<Option<Quantization>> {
    let Some(json) = metadata.string(keys::OWN_QUANTIZATION)? else { return Ok(None) };
    if json.len() > MAX_BYTES {
        return Err(metadata.error(
            keys::OWN_QUANTIZATION,
            format!("has {} bytes, more than {MAX_BYTES}", json.len()),
        ));
    }
    let quantization = serde_json::from_str(json)
        .map_err(|e| metadata.error(keys::OWN_QUANTIZATION, format!("is no quantization: {e}")))?;
    check(&quantization, architecture)
        .map_err(|reason| metadata.error(keys::OWN_QUANTIZATION, reason))?;
    Ok(Some(quantization))
}

/// The value of our own key.
pub fn write(quantization: &Quantization, architecture: &Architecture) -> Result<String> {
    let refuse = |reason| Error::Unsupported {
        file: FORMAT.into(),
        name: format!("quantization for {}", quantization.target),
        reason,
        offset: None,
    };
    check(quantization, architecture)
        .map_err(|reason| refuse(format!("it {reason}; the halfstep format holds it")))?;
    serde_json::to_string(quantization).map_err(|e| refuse(e.to_string()))
}

/// GGUF cannot store the scales of static quantizers, and the blocks of the cache must divide a
/// head.
fn check(q: &Quantization, architecture: &Architecture) -> std::result::Result<(), String> {
    q.check(architecture).map_err(|reason| format!("asks for {reason}"))?;
    for (layer, of) in architecture.layers.iter().enumerate() {
        for site in architecture.sites(layer) {
            let spec = q.at(layer, site);
            if spec.is_static() {
                let what = if site.is_cache() { "cache" } else { "activations" };
                return Err(format!("has a stored scale for its {what}, which GGUF cannot hold"));
            }
            let head_dim = of.attention().map_or(0, |a| a.head_dim);
            if site.is_cache() && spec == ActivationSpec::BLOCK_32 && !head_dim.is_multiple_of(32) {
                return Err(format!(
                    "has a Q8_0 cache, but heads of {head_dim} are not whole blocks of 32"
                ));
            }
        }
    }
    if q.static_scales.is_empty() {
        Ok(())
    } else {
        Err("has static steps, which GGUF cannot hold".into())
    }
}

/// How the client runs a file without our key whose block linears are all of one packed type: before
/// every packed matrix the blocks that it multiplies the type with, an f16 cache. None for any other
/// file: a float model, whatever its types.
pub fn of_client(
    architecture: &Architecture,
    tensors: &BTreeMap<String, Tensor>,
) -> Option<Quantization> {
    let quantizer = |tensor: &Tensor| {
        if let TensorData::Packed(m) = &tensor.data { Some(m.spec) } else { None }
    };
    let linears =
        architecture.tensors().into_iter().filter(|spec| matches!(spec.role, Role::Linear(_)));
    let mut types = linears.map(|spec| quantizer(&tensors[&spec.name]));
    let first = types.next()??;
    let target = format!("gguf:{}", packed::block_type(first)?.name().to_lowercase());
    let activation = |weights| match weights {
        QuantSpec::TQ2_0 => ActivationSpec::BLOCK_256,
        _ => ActivationSpec::BLOCK_32,
    };
    let head = tensors.get(HEAD).or_else(|| tensors.get(EMBEDDING))?;
    types.all(|t| t == Some(first)).then(|| Quantization {
        target,
        activation: activation(first),
        head_activation: quantizer(head).map_or(ActivationSpec::F32, activation),
        ..Quantization::default()
    })
}
