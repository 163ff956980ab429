//! What a run gives before it is reported.

use crate::event::Evaluations;
use crate::record::StageRecord;
use halfstep_formats::Model;

/// What a recipe made.
pub(super) struct QuantizedModel {
    pub model: Model,
    pub evaluations: Evaluations,
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
    pub tokens_per_second: f64,
    pub final_loss: Option<f64>,
    /// Where the training text came from.
    pub data: Option<String>,
    pub stages: Vec<StageRecord>,
}
