//! What a rule of update keeps of every parameter that learns.

use crate::Result;
use crate::autograd::parameter::Parameters;
use crate::device::{Device, DeviceBuffer};

/// Named vectors for every parameter that learns, in the order of the parameters.
#[derive(Debug)]
pub struct State<D: Device> {
    names: &'static [&'static str],
    of: Vec<Vec<D::Buffer>>,
}

impl<D: Device> Default for State<D> {
    fn default() -> Self {
        Self { names: &[], of: vec![] }
    }
}

impl<D: Device> State<D> {
    /// Zeros for every parameter that learns, where there is nothing yet.
    pub(super) fn begin(
        &mut self,
        names: &'static [&'static str],
        parameters: &Parameters<D>,
    ) -> Result<()> {
        if !self.of.is_empty() {
            return Ok(());
        }
        let zeros = |len: usize| names.iter().map(|_| parameters.device.zeros(len)).collect();
        let of = parameters.learned().map(|p| zeros(p.value.len())).collect::<Result<_>>()?;
        (self.names, self.of) = (names, of);
        Ok(())
    }

    /// The vectors of a parameter, by its index among those that learn.
    pub(super) fn of_mut(&mut self, number: usize) -> &mut [D::Buffer] {
        &mut self.of[number]
    }

    /// The names of the vectors of each parameter.
    pub(crate) fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// The vectors of every parameter that learns.
    pub(crate) fn vectors(&self) -> &[Vec<D::Buffer>] {
        &self.of
    }

    /// As [`Self::vectors`], to go on from those of a checkpoint.
    pub fn vectors_mut(&mut self) -> &mut [Vec<D::Buffer>] {
        &mut self.of
    }
}
