//! What the optimizer changes: an ordered list of named parameters, each with its value, gradient and moments.

use crate::ops::{Number, Sink};
use crate::{Error, Result};
use halfstep_kernels::Real;
use std::collections::BTreeMap;

/// Optimizer groups; each has its own rate multiplier and weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Weights,
    WeightSteps,
    ActivationSteps,
    Norms,
}

pub struct Parameter<T> {
    /// Hugging Face name; a step is named after what it steps: `<linear>.step`, `model.layers.<i>.<site>.step`.
    pub name: String,
    pub group: Group,
    pub value: Vec<T>,
    /// AdamW's first and second moment.
    pub m: Vec<T>,
    pub v: Vec<T>,
    /// dL/d(value as the forward uses it) while a step runs, dL/d(value) when the optimizer reads it.
    pub sink: Sink<T>,
}

/// Parameters in the order of the forward: the order of every sum over them.
#[derive(Default)]
pub struct Parameters<T> {
    pub list: Vec<Parameter<T>>,
    index: BTreeMap<String, usize>,
}

impl<T: Number> Parameters<T> {
    pub fn new() -> Self {
        Self { list: vec![], index: BTreeMap::new() }
    }

    /// Adds a parameter and returns its place.
    pub fn add(&mut self, name: &str, group: Group, value: Vec<T>) -> usize {
        let zeros = vec![<T as Real>::ZERO; value.len()];
        let parameter = Parameter { name: name.into(), group, m: zeros.clone(), v: zeros, sink: Sink::new(value.len()), value };
        self.index.insert(name.into(), self.list.len());
        self.list.push(parameter);
        self.list.len() - 1
    }

    pub fn place(&self, name: &str) -> Result<usize> {
        self.index.get(name).copied().ok_or_else(|| Error::Internal { reason: format!("no parameter {name}") })
    }

    pub fn get(&self, name: &str) -> Result<&Parameter<T>> {
        Ok(&self.list[self.place(name)?])
    }

    pub fn get_mut(&mut self, name: &str) -> Result<&mut Parameter<T>> {
        let place = self.place(name)?;
        Ok(&mut self.list[place])
    }
}
