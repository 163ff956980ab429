//! The scales and zero points that a matrix begins with, found from its values alone.

use super::builder::Beginning;
use crate::{Error, Result};
use halfstep_kernels::Pool;
use halfstep_kernels::quant::observer::quantize_by;
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

/// Scales and zero points that a matrix begins with: those of an earlier stage's codes, or found by
/// the site's start rule. A scale that divides is never 0.
pub fn first_ranges(pool: &Pool, beginning: &Beginning) -> (Vec<f32>, Vec<u8>) {
    let Beginning { rows, cols, values, site, .. } = *beginning;
    let found = match beginning.previous {
        Some(packed) => packed.clone(),
        None => quantize_by(pool, values, rows, cols, site.spec, site.observer),
    };
    let least = site.spec.scale.smallest();
    let away = |scale: f32| if scale.abs() < least { least.copysign(scale) } else { scale };
    (found.scales.into_iter().map(away).collect(), found.zero_points)
}
