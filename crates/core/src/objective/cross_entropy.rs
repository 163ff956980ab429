//! The cross-entropy of the next token of the text, as a mean over all positions that have one. The
//! head computes it chunk by chunk (`objective/head.rs`).

use super::{Tap, Term};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Cross-entropy of the next token. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct CrossEntropyConfig {}

impl Term for CrossEntropyConfig {
    const TAP: Tap = Tap::Logits;
}
