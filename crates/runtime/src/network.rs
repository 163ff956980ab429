//! The forward pass.
use crate::{Cache, Result};
use halfstep_formats::{Architecture, Model};
use halfstep_kernels::Pool;

/// How packed weights are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Integer if the model says how it is quantized (`Model::quantization`), else float.
    #[default]
    Auto,
    /// Weights decoded to f32, activations and cache in f32, whatever the file says.
    Float,
    /// The model's own integer arithmetic; an error if it has none.
    Integer,
}

/// Which rows of logits a forward returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    All,
    Last,
    None,
}

/// A model ready to run. Immutable and shareable; all changing state is in [`Cache`].
pub struct Network {}

impl Network {
    pub fn new(_model: &Model, _arithmetic: Arithmetic, _pool: Pool) -> Result<Self> {
        todo!()
    }
    pub fn architecture(&self) -> &Architecture {
        todo!()
    }
    /// Appends `tokens` to the sequence in `cache` and returns logits `[rows, V]`.
    pub fn forward(&self, _tokens: &[u32], _cache: &mut Cache, _logits: Logits) -> Result<Vec<f32>> {
        todo!()
    }
}
