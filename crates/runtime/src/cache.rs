//! Keys and values of one sequence.
use crate::Network;

pub struct Cache {}

impl Cache {
    /// Room grows as needed up to the model's `max_positions`.
    pub fn new(_network: &Network) -> Self {
        todo!()
    }
    /// Tokens held.
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Forgets everything after the first `len` tokens.
    pub fn truncate(&mut self, _len: usize) {
        todo!()
    }
}
