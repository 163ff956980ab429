//! The result of a stage, and of all stages of a run.

use crate::event::Evaluations;
use crate::record::StageRecord;
use halfstep_formats::Model;

/// What training gave.
pub struct Trained {
    pub model: Model,
    pub evaluations: Evaluations,
    /// Of the whole run, before a resume too.
    pub steps: u64,
    pub tokens: u64,
    /// Of this part of the run.
    pub seconds: f64,
    pub tokens_per_second: f64,
    pub final_loss: f64,
    /// What the stages recorded, one after the other.
    pub stages: Vec<StageRecord>,
    /// Of a checkpoint of the last stage; 0 where finished blocks are saved instead.
    pub checkpoint_bytes: u64,
}
