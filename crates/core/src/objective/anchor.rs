//! L2-SP (Explicit Inductive Bias for Transfer Learning with Convolutional Networks, 2018, arXiv
//! 1802.01483): weights that learn are pulled back to where they began. The weight of the term is the
//! pull as a share of the learning rate; as with weight decay, it is decoupled from the gradient, and
//! the optimizer applies it.

use super::{Tap, Term};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// L2-SP (arXiv 1802.01483). It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct AnchorConfig {}

impl Term for AnchorConfig {
    const TAP: Tap = Tap::Weights;
}
