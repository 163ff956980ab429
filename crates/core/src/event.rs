//! Events of a run: one typed stream for API, command line and report.

use crate::Result;
use halfstep_formats::Model;
use halfstep_runtime::Evaluation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use ts_rs::TS;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// A part of the run begins: `generate`, `calibrate`, `train`, `evaluate`, `pack`.
    Phase {
        name: String,
        detail: String,
    },
    /// The unquantized model has generated `tokens` of the `total` tokens to train on;
    /// `tokensPerSecond` is the speed since the run started or was resumed.
    Generate {
        tokens: usize,
        total: usize,
        tokens_per_second: f64,
    },
    /// One optimizer step is done. The loss is that of its batch, before the update.
    Step {
        step: u64,
        steps: u64,
        loss: f64,
        learning_rate: f64,
        /// Norm of the gradient of all parameters, before clipping.
        gradient_norm: f64,
        tokens: u64,
        tokens_per_second: f64,
        /// Seconds to the end of training, from measured steps.
        eta_seconds: f64,
        /// Peak resident memory of the process in bytes; 0 where the system does not report it.
        memory_bytes: u64,
    },
    /// A layer is finished; `loss` is the mean squared difference of its outputs from those of the
    /// unquantized layer.
    Block {
        block: u64,
        blocks: u64,
        loss: f64,
    },
    /// A measurement: `subject` is `fp`, `rtn` or `result`, on the validation text.
    Eval {
        subject: String,
        evaluation: EvaluationRecord,
    },
    /// State was saved; the run can be resumed from `path`.
    Checkpoint {
        step: u64,
        path: String,
    },
    Warning {
        message: String,
    },
}

/// [`Evaluation`] as it crosses to TypeScript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationRecord {
    /// exp(meanNll).
    pub perplexity: f64,
    /// Mean negative log-likelihood in nats.
    pub mean_nll: f64,
    pub predictions: usize,
    /// Mean KL(against || model) in nats; null without `against`.
    pub kl: Option<f64>,
    /// Share of positions where both models give the same token the highest probability; null
    /// without `against`.
    pub top1_agreement: Option<f64>,
    pub tokens_per_second: f64,
}

/// By subject: `fp`, `rtn`, `result`.
pub type Evaluations = BTreeMap<String, EvaluationRecord>;

/// Measures the packed model, while the state of the trainer can still be saved.
pub type Measure<'a> = dyn FnMut(&Model, &mut dyn FnMut(Event)) -> Result<Evaluations> + 'a;

impl From<Evaluation> for EvaluationRecord {
    fn from(e: Evaluation) -> Self {
        Self {
            perplexity: e.perplexity,
            mean_nll: e.mean_nll,
            predictions: e.predictions,
            kl: e.kl,
            top1_agreement: e.top1_agreement,
            tokens_per_second: e.tokens_per_second,
        }
    }
}
