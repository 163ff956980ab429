//! What a rule of update keeps of every parameter that learns.

use crate::autograd::ops::Number;
use crate::autograd::parameter::Parameters;
use halfstep_kernels::Real;

/// Named vectors for every parameter that learns, in the order of the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct State<T> {
    names: &'static [&'static str],
    of: Vec<Vec<Vec<T>>>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self { names: &[], of: vec![] }
    }
}

impl<T: Number> State<T> {
    /// Zeros for every parameter that learns, where there is nothing yet.
    pub(super) fn begin(&mut self, names: &'static [&'static str], parameters: &Parameters<T>) {
        if !self.of.is_empty() {
            return;
        }
        self.names = names;
        let zeros = |len: usize| names.iter().map(|_| vec![<T as Real>::ZERO; len]).collect();
        self.of = parameters.learned().map(|p| zeros(p.value.len())).collect();
    }

    /// The vectors of a parameter, by its number among those that learn.
    pub(super) fn of_mut(&mut self, number: usize) -> &mut [Vec<T>] {
        &mut self.of[number]
    }

    /// The names of the vectors of each parameter.
    pub fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// The vectors of every parameter that learns.
    pub fn vectors(&self) -> &[Vec<Vec<T>>] {
        &self.of
    }

    /// As [`Self::vectors`], to go on from those of a checkpoint.
    pub fn vectors_mut(&mut self) -> &mut [Vec<Vec<T>>] {
        &mut self.of
    }
}
