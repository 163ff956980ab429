//! The cross-entropy of the next token of the text, as a mean over all positions that have one. The
//! head computes it chunk by chunk ([`super::head`]).

use super::{Tap, Term};
use crate::autograd::ops::Number;
use halfstep_kernels::ops::loss::cross_entropy;
use halfstep_kernels::{Pool, uninit_vec};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Cross-entropy of the next token. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct CrossEntropyConfig {}

impl Term for CrossEntropyConfig {
    const TAP: Tap = Tap::Logits;
}

/// The cross-entropy of some positions, over `normalizer`, and its gradient.
pub(super) fn entropy<T: Number>(
    pool: &Pool,
    logits: &[T],
    targets: &[i64],
    vocab: usize,
    normalizer: f64,
) -> (f64, Vec<T>) {
    let (mut per_row, mut gradient) = (vec![0.0; targets.len()], uninit_vec(logits.len()));
    let out = Some(&mut gradient[..]);
    let loss = cross_entropy(pool, logits, targets, vocab, normalizer, &mut per_row, out);
    (loss, gradient)
}
