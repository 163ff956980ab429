//! What the optimizer changes: an ordered list of named parameters, each with its value and gradient.

use crate::autograd::ops::Sink;
use crate::device::Device;
use crate::{Error, Result};
use halfstep_kernels::Real;
use std::collections::BTreeMap;

/// Optimizer groups; each has its own rate multiplier and weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Weights of linears, of the embedding and of the head.
    Weights,
    /// Learned scales of weights without zero points.
    WeightScales,
    /// Scales of static activation and cache quantizers.
    ActivationScales,
    /// Weights of the norms, and biases.
    Norms,
    /// Clips, or steps and zero points, of affine grids.
    Ranges,
    /// Low-rank factors.
    LowRank,
}

/// A named tensor that the optimizer may change, with its gradient.
pub struct Parameter<D: Device> {
    /// Hugging Face name; a step is named after what it steps: `<linear>.step`,
    /// `model.layers.<i>.<site>.step`.
    pub name: String,
    /// The optimizer group, which decides its rate multiplier and weight decay.
    pub group: Group,
    /// The values of the current step.
    pub value: D::Buffer,
    /// Unit of its group's learning rate: 1, or the root mean square of the values it began with.
    pub unit: f64,
    /// Values that it is pulled towards; None without such a term.
    pub anchor: Option<D::Buffer>,
    /// dL/d(value as the forward uses it) while a step runs, dL/d(value) when the optimizer reads
    /// it.
    pub sink: Sink<D>,
    /// Whether it is never updated. The other parts of a frozen weight may still learn from the
    /// gradient in its sink.
    pub frozen: bool,
}

impl<D: Device> Parameter<D> {
    /// Where its gradient goes; None if it is frozen.
    pub(crate) fn learned_sink(&self) -> Option<&Sink<D>> {
        (!self.frozen).then_some(&self.sink)
    }
}

/// Parameters in the order of the forward: the order of every sum over them.
pub struct Parameters<D: Device> {
    /// The device that holds their values.
    pub(crate) device: D,
    /// The parameters; other code refers to them by their index in this list.
    pub list: Vec<Parameter<D>>,
    index: BTreeMap<String, usize>,
}

impl<D: Device> Parameters<D> {
    /// Returns an empty list of parameters on `device`.
    pub fn new(device: &D) -> Self {
        Self { device: device.clone(), list: vec![], index: BTreeMap::new() }
    }

    /// Adds a parameter and returns its index.
    pub(crate) fn add(&mut self, name: &str, group: Group, value: Vec<D::Number>) -> Result<usize> {
        let sink = value.len();
        let index = self.add_frozen(name, group, value, sink)?;
        self.list[index].frozen = false;
        Ok(index)
    }

    /// Adds a value that stays as it is, with memory for a gradient of `sink` numbers.
    pub(crate) fn add_frozen(
        &mut self,
        name: &str,
        group: Group,
        value: Vec<D::Number>,
        sink: usize,
    ) -> Result<usize> {
        self.index.insert(name.into(), self.list.len());
        self.list.push(Parameter {
            name: name.into(),
            group,
            value: self.device.upload(value)?,
            unit: 1.0,
            anchor: None,
            sink: Sink::new(&self.device, sink)?,
            frozen: true,
        });
        Ok(self.list.len() - 1)
    }

    /// As [`Self::add`], with a learning rate relative to the root mean square of `value`, so that
    /// the same rate suits small weights and large ones (docs/decisions/0009-relative-rates.md).
    pub(crate) fn add_relative(
        &mut self,
        name: &str,
        group: Group,
        value: Vec<D::Number>,
    ) -> Result<usize> {
        let squares: f64 = value.iter().map(|&v| Real::to_f64(v).powi(2)).sum();
        let unit = (squares / (value.len() as f64).max(1.0)).sqrt();
        let index = self.add(name, group, value)?;
        self.list[index].unit = if unit > 0.0 { unit } else { 1.0 };
        Ok(index)
    }

    /// The parameters that the optimizer changes.
    pub(crate) fn learned(&self) -> impl Iterator<Item = &Parameter<D>> {
        self.list.iter().filter(|p| !p.frozen)
    }

    /// The parameters that the optimizer changes, to be changed.
    pub(crate) fn learned_mut(&mut self) -> impl Iterator<Item = &mut Parameter<D>> {
        self.list.iter_mut().filter(|p| !p.frozen)
    }

    /// Returns the index of a parameter in [`Self::list`].
    ///
    /// Errors: `Internal`, there is no parameter of this name.
    pub fn index(&self, name: &str) -> Result<usize> {
        self.index
            .get(name)
            .copied()
            .ok_or_else(|| Error::Internal { reason: format!("no parameter {name}") })
    }

    /// Returns a parameter by its name.
    ///
    /// Errors: `Internal`, there is none of this name.
    pub(crate) fn get(&self, name: &str) -> Result<&Parameter<D>> {
        Ok(&self.list[self.index(name)?])
    }
}
