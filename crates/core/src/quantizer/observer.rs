//! The scales and zero points that a matrix begins with, found from its values alone: the list of
//! rules is the kernels'.

use crate::{Error, Result};
use halfstep_kernels::quant::tensor::QuantTensor;

/// Refuses scales that are NaN or infinite: the weights are, or they are too large for the scale's
/// type.
pub fn check_scales(packed: &QuantTensor, name: &str) -> Result<()> {
    match packed.scales.iter().position(|s| !s.is_finite()) {
        Some(at) => Err(Error::Format(halfstep_formats::Error::Unencodable {
            format: name.into(),
            row: at * packed.rows / packed.scales.len(),
            reason: "its weights are not finite, or too large for the scale's type".into(),
        })),
        None => Ok(()),
    }
}
