//! Events of a run: one typed stream for API, command line and report.

use crate::Result;
use crate::data::ReadingRecord;
use halfstep_formats::Model;
use halfstep_runtime::Evaluation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use ts_rs::TS;

/// What a run reports while it works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// A part of the run begins: `generate`, `calibrate`, `train`, `evaluate`, `pack`; or, as
    /// `data`, how the text is read.
    Phase {
        /// Name of the part.
        name: String,
        /// What it works on, for people.
        detail: String,
    },
    /// The unquantized model has generated `tokens` of the `total` tokens to train on;
    /// `tokensPerSecond` is the speed since the run started or was resumed.
    Generate {
        /// Tokens generated so far, by all parts of a resumed run.
        tokens: usize,
        /// Tokens that will be generated.
        total: usize,
        /// Generated tokens per second.
        tokens_per_second: f64,
    },
    /// One optimizer step is done. The loss is that of its batch, before the update.
    Step {
        /// Number of steps that are done, this one included.
        step: u64,
        /// Number of steps of the stage, those of all layers together.
        steps: u64,
        /// Loss of the batch, before the update.
        loss: f64,
        /// Learning rate of the step; in a stage of layers, the share of their rates that the
        /// schedule leaves.
        learning_rate: f64,
        /// Norm of the gradient of all parameters, before clipping.
        gradient_norm: f64,
        /// Tokens trained on so far.
        tokens: u64,
        /// Tokens trained on per second.
        tokens_per_second: f64,
        /// Seconds to the end of training, from measured steps.
        eta_seconds: f64,
        /// Peak resident memory of the process in bytes; 0 where the system does not report it.
        memory_bytes: u64,
    },
    /// A layer is finished; `loss` is the mean squared difference of its outputs from those of the
    /// unquantized layer.
    Block {
        /// Number of the layer, from 0.
        block: u64,
        /// Number of layers.
        blocks: u64,
        /// Mean squared difference of its outputs.
        loss: f64,
    },
    /// A measurement: `subject` is `fp`, `rtn` or `result`, on the validation text.
    Eval {
        /// What was measured: `fp` (full precision), `rtn` or `result`.
        subject: String,
        /// The measurement.
        evaluation: EvaluationRecord,
    },
    /// State was saved; the run can be resumed from `path`.
    Checkpoint {
        /// Number of steps that are done.
        step: u64,
        /// Folder of the checkpoint.
        path: String,
    },
    /// Something that the run could work around.
    Warning {
        /// What it was, in a sentence.
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
    /// Number of tokens that were predicted.
    pub predictions: usize,
    /// Mean KL(against || model) in nats; null without `against`.
    pub kl: Option<f64>,
    /// Share of positions where both models give the same token the highest probability; null
    /// without `against`.
    pub top1_agreement: Option<f64>,
    /// Predictions per second of the forward pass of the model itself; 0 where there is no clock.
    pub tokens_per_second: f64,
    /// How the text was read; absent where the measurement was made by a version that did not say
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub reading: Option<ReadingRecord>,
}

/// By subject: `fp`, `rtn`, `result`.
pub type Evaluations = BTreeMap<String, EvaluationRecord>;

/// Measures the packed model, while the state of the trainer can still be saved.
pub(crate) type Measure<'a> = dyn FnMut(&Model, &mut dyn FnMut(Event)) -> Result<Evaluations> + 'a;

impl From<Evaluation> for EvaluationRecord {
    fn from(e: Evaluation) -> Self {
        Self {
            perplexity: e.perplexity,
            mean_nll: e.mean_nll,
            predictions: e.predictions,
            kl: e.kl,
            top1_agreement: e.top1_agreement,
            tokens_per_second: e.tokens_per_second,
            reading: None,
        }
    }
}
