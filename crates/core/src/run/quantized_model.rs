//! The result of a run before it is reported.

use crate::event::Evaluations;
use crate::record::StageRecord;
use halfstep_formats::Model;
use std::collections::BTreeMap;

/// A model made by a recipe.
pub(super) struct QuantizedModel {
    pub(crate) model: Model,
    pub(crate) evaluations: Evaluations,
    pub(crate) steps: u64,
    pub(crate) tokens: u64,
    pub(crate) seconds: f64,
    pub(crate) tokens_per_second: f64,
    pub(crate) final_loss: Option<f64>,
    /// Where the training text came from.
    pub(crate) data: Option<String>,
    /// How it was read, for the metadata of the file; None: nothing was trained.
    pub(crate) reading: Option<BTreeMap<String, String>>,
    pub(crate) stages: Vec<StageRecord>,
}
