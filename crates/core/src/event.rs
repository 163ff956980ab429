//! What a run tells while it runs: one typed stream for API, command line and report.

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
    /// The unquantized model has generated so many of the tokens that are to be trained on; how
    /// fast, of this part of the run.
    Generate {
        tokens: usize,
        total: usize,
        tokens_per_second: f64,
    },
    /// One optimizer step is done. Loss and KL are of its batch, before the update.
    Step {
        step: u64,
        steps: u64,
        loss: f64,
        learning_rate: f64,
        /// Global norm before clipping.
        gradient_norm: f64,
        tokens: u64,
        tokens_per_second: f64,
        /// Seconds to the end of training, from measured steps.
        eta_seconds: f64,
        /// Peak resident memory of the process in bytes; 0 where the system does not tell.
        memory_bytes: u64,
    },
    /// A block is finished: mean squared difference of its outputs from the unquantized block's.
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
    /// Share of positions where both models put the same token first; null without `against`.
    pub top1_agreement: Option<f64>,
    pub tokens_per_second: f64,
}

/// By subject: `fp`, `rtn`, `result`.
pub type Evaluations = BTreeMap<String, EvaluationRecord>;

/// What is measured on the packed model, while a trainer's state can still be saved.
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
