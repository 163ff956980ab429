//! The state of a layer that keeps no rows: what all tokens before have left, in as many numbers
//! however many they were.
//!
//! Always f32. A number of it is read and written by every later token, so a rounding would be
//! taken once more with each of them; quantizers of the cache are for keys and values.

/// Zeros before the first token.
#[derive(Clone)]
pub(crate) struct State {
    /// The last rows that a convolution read, `[kernel - 1, channels]`.
    pub tail: Vec<f32>,
    /// What a delta rule remembers, `[value heads, key_dim, value_dim]`.
    pub memory: Vec<f32>,
}

impl State {
    pub fn new(tail: usize, memory: usize) -> Self {
        Self { tail: vec![0.0; tail], memory: vec![0.0; memory] }
    }

    /// Of a new sequence.
    pub fn clear(&mut self) {
        self.tail.fill(0.0);
        self.memory.fill(0.0);
    }

    pub fn bytes(&self) -> usize {
        size_of_val(self.tail.as_slice()) + size_of_val(self.memory.as_slice())
    }
}
