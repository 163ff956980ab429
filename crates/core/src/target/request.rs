//! The request of a recipe to a target, and the answer of the target: a quantizer for every site.

use crate::error::{Error, Result};
use halfstep_kernels::{ActivationSpec, QuantSpec};

/// The request of a recipe; None leaves the choice to the target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) weights: Option<f64>,
    pub(crate) group_size: Option<usize>,
    pub(crate) activations: Option<f64>,
    pub(crate) cache: Option<f64>,
    pub(crate) static_activations: bool,
    /// Whether the recipe calibrates and learns static scales.
    pub(crate) learned: bool,
    pub(crate) zero_points: ZeroPoints,
    /// Bits of the weights if neither `weights` nor the target decides them.
    pub(crate) default_weights: Option<u8>,
    /// Columns of a group if neither `group_size` nor the target decides them; 0 is the whole row.
    pub(crate) default_group_size: Option<usize>,
}

/// Whether a grid has a zero point per group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ZeroPoints {
    #[default]
    No,
    /// Where the target can hold them.
    Preferred,
    /// A target that cannot hold them is refused.
    Required,
}

/// The quantizer at every site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TargetSites {
    pub(crate) weights: QuantSpec,
    pub(crate) embedding: Option<QuantSpec>,
    pub(crate) head: Option<QuantSpec>,
    pub(crate) activation: ActivationSpec,
    pub(crate) head_activation: ActivationSpec,
    pub(crate) cache: ActivationSpec,
}

/// Checks a number of bits that the user wrote: a whole number from `low` to `high`.
pub(super) fn whole_bits(field: &str, bits: Option<f64>, low: u8, high: u8) -> Result<Option<u8>> {
    match bits {
        None => Ok(None),
        Some(b) if b.fract() == 0.0 && b >= f64::from(low) && b <= f64::from(high) => {
            Ok(Some(b as u8))
        }
        Some(b) => Err(Error::config(
            field,
            format!("must be a whole number of bits from {low} to {high}, got {b}"),
        )),
    }
}
