use crate::{Pool, Real};

/// Which two elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// (i, i + D/2): Hugging Face's Llama. What this library computes with.
    Half,
    /// (2i, 2i + 1): a Llama in GGUF.
    Interleaved,
}

/// llama3 frequency scaling (config.json `rope_scaling`, type `llama3`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position: usize,
}

/// Angles per position and pair; cos and sin computed in f64.
#[derive(Clone, Debug)]
pub struct RopeTable {
    pub head_dim: usize,
    /// Inverse frequency of each pair `[D/2]`.
    pub inverse_frequencies: Vec<f64>,
}

impl RopeTable {
    pub fn new(_head_dim: usize, _theta: f64, _scaling: Option<Llama3Scaling>) -> Self {
        todo!()
    }
    /// The factors ggml stores as `rope_freqs.weight` `[D/2]`: unscaled / scaled inverse frequency.
    pub fn factors(&self, _theta: f64) -> Vec<f32> {
        todo!()
    }
}

/// Row m of x `[M, H, D]` is rotated by position `first + m % period`; y may not alias x.
/// `inverse` rotates back, which is also the gradient of the forward rotation.
#[allow(clippy::too_many_arguments)]
pub fn rope<T: Real>(
    _pool: &Pool,
    _table: &RopeTable,
    _pairs: RopePairs,
    _x: &[T],
    _heads: usize,
    _first: usize,
    _period: usize,
    _inverse: bool,
    _y: &mut [T],
) {
    todo!()
}
