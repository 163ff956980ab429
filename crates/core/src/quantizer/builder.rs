//! Registering a matrix: what learns becomes a parameter, what does not is kept as it is.

use crate::autograd::ops::Number;
use crate::autograd::parameter::{Group, Parameters};
use crate::recipe::site::WeightSite;
use crate::recipe::stage::Trains;
use halfstep_kernels::Pool;
use halfstep_kernels::quant::tensor::QuantTensor;

/// `<linear>.scale` of `<linear>.weight`, and likewise for other parts.
pub fn part_name(weight: &str, part: &str) -> String {
    format!("{}.{part}", weight.trim_end_matches(".weight"))
}

/// Where the parts of a matrix register what learns of them.
pub struct Builder<'a, T> {
    pub parameters: &'a mut Parameters<T>,
    pub pool: &'a Pool,
    /// What the stage trains.
    pub trains: Trains,
    /// Whether learning rates of weights and scales count in the root mean square of each tensor
    /// (docs/decisions/0009-relative-rates.md).
    pub relative: bool,
}

impl<T: Number> Builder<'_, T> {
    /// Adds a parameter that learns where `learns` says so, and returns its index.
    pub fn add(&mut self, name: &str, group: Group, values: Vec<T>, learns: bool) -> usize {
        if self.relative {
            self.add_relative(name, group, values, learns)
        } else {
            self.add_absolute(name, group, values, learns)
        }
    }

    /// As [`Self::add`], with an absolute learning rate in every stage.
    pub fn add_absolute(
        &mut self,
        name: &str,
        group: Group,
        values: Vec<T>,
        learns: bool,
    ) -> usize {
        if learns {
            self.parameters.add(name, group, values)
        } else {
            self.parameters.add_frozen(name, group, values, 0)
        }
    }

    /// As [`Self::add`], with a relative learning rate in every stage.
    pub fn add_relative(
        &mut self,
        name: &str,
        group: Group,
        values: Vec<T>,
        learns: bool,
    ) -> usize {
        if learns {
            self.parameters.add_relative(name, group, values)
        } else {
            self.parameters.add_frozen(name, group, values, 0)
        }
    }
}

/// What the parts of a quantized matrix begin from: the values as they were read, and the codes
/// that an earlier stage stored, if there was one.
pub struct Beginning<'a> {
    /// Name of the weight, `<linear>.weight`.
    pub name: &'a str,
    pub rows: usize,
    pub cols: usize,
    pub values: &'a [f32],
    pub site: &'a WeightSite,
    pub previous: Option<&'a QuantTensor>,
}
