//! What is refused of the scales that an observer found. The observers themselves are those of
//! [`halfstep_kernels::quant::observer`].

use crate::{Error, Result};
use halfstep_kernels::quant::tensor::QuantTensor;

/// Refuses scales that are NaN or infinite: the weights are, or they are too large for the scale's
/// type.
pub(crate) fn check_scales(packed: &QuantTensor, name: &str) -> Result<()> {
    match packed.scales.iter().position(|s| !s.is_finite()) {
        Some(at) => Err(Error::Format(halfstep_formats::Error::Unencodable {
            format: name.into(),
            row: at * packed.rows / packed.scales.len(),
            reason: "its weights are not finite, or too large for the scale's type".into(),
        })),
        None => Ok(()),
    }
}
