//! A handle on a model.

use crate::task::{TaskOutput, outcome};
use halfstep::run as session;
use halfstep::run::LoadedModel;
use halfstep::{Error, Result};
use std::cell::RefCell;
use std::sync::Arc;
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
pub struct WasmModel(RefCell<Option<Arc<LoadedModel>>>);

impl WasmModel {
    pub(crate) fn new(model: Arc<LoadedModel>) -> Self {
        Self(RefCell::new(Some(model)))
    }

    /// The model for a task, which keeps it alive by itself.
    pub(crate) fn arc(&self) -> Result<Arc<LoadedModel>> {
        self.0.borrow().clone().ok_or_else(|| Error::config("model", "the model was disposed"))
    }
}

#[wasm_bindgen]
impl WasmModel {
    /// JSON of the outcome.
    pub fn inspect(&self) -> String {
        outcome(&self.arc().and_then(|model| TaskOutput::value(&session::inspect(&model))))
    }

    /// Another handle on the same model; without one on a disposed model.
    pub fn share(&self) -> WasmModel {
        Self(self.0.clone())
    }

    pub fn dispose(&self) {
        self.0.take();
    }
}
