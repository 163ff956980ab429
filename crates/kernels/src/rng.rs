//! Counter-based random numbers: the n-th number of a stream is a function of (seed, stream, n) alone.

use serde::{Deserialize, Serialize};

/// One stream of numbers. Its whole state is three integers, saved with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    pub seed: u64,
    pub stream: u64,
    pub counter: u64,
}
