//! What a stage is made from.

use crate::config::options::RunConfig;
use crate::data::Text;
use crate::host::Host;
use crate::recipe::{Recipe, Trains};
use halfstep_formats::Model;
use halfstep_kernels::Pool;
use std::sync::Arc;

/// What both kinds of stages are made from; their own options come in addition.
pub(crate) struct StageInputs<'a> {
    pub model: &'a Model,
    /// What an earlier stage stored, if this stage continues from it.
    pub previous: Option<Arc<Model>>,
    /// With the stages up to this one.
    pub recipe: Recipe,
    pub trains: Trains,
    /// With the run folder of this stage.
    pub run: RunConfig,
    pub text: &'a Text,
    pub host: &'a Host,
    pub pool: &'a Pool,
}

impl StageInputs<'_> {
    /// What the stage begins from.
    pub(crate) fn start(&self) -> &Model {
        self.previous.as_deref().unwrap_or(self.model)
    }
}
