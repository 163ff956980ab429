//! Perplexity, KL to a reference model, top-1 agreement.
use crate::{Network, Result};
use serde::{Deserialize, Serialize};

/// One object, as `halfstep eval --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// exp(mean_nll).
    pub perplexity: f64,
    /// Mean negative log-likelihood in nats.
    pub mean_nll: f64,
    pub predictions: usize,
    /// Mean KL(against || model) in nats over the same predictions; None without `against`.
    pub kl: Option<f64>,
    /// Share of the same positions where both put the same token first.
    pub top1_agreement: Option<f64>,
    pub tokens_per_second: f64,
}

/// Cuts `tokens` into windows of `window` (a last window of fewer than 2 tokens is dropped), runs each alone from position 0, and scores ids 1.. of every window.
/// `progress(done_tokens, total_tokens)` returns false to cancel. Errors: fewer than 2 tokens; vocabularies of the two models differ.
pub fn evaluate(
    _network: &Network,
    _against: Option<&Network>,
    _tokens: &[u32],
    _window: usize,
    _progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Evaluation> {
    todo!()
}
