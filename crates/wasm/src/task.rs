//! Work in steps, with a queue of messages and one outcome.

use crate::model::WasmModel;
use halfstep::session::Cancel;
use halfstep::{Error, Model, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use wasm_bindgen::prelude::wasm_bindgen;

/// What a task made.
#[derive(Default)]
pub struct Done {
    pub value: Value,
    pub model: Option<Arc<Model>>,
    pub bytes: Option<Vec<u8>>,
}

impl Done {
    pub fn model(model: Arc<Model>) -> Self {
        Self { model: Some(model), ..Self::default() }
    }

    pub fn value(value: &impl Serialize) -> Result<Self> {
        let value = serde_json::to_value(value).map_err(|e| Error::Internal { reason: e.to_string() })?;
        Ok(Self { value, ..Self::default() })
    }
}

/// JSON of `Outcome<T>` in `ts/src/native.ts`.
pub fn outcome(result: &Result<Done>) -> String {
    match result {
        Ok(done) => json!({ "ok": done.value }),
        Err(e) => json!({ "error": { "code": e.code(), "message": e.to_string(), "details": e.details() } }),
    }
    .to_string()
}

/// What a task has told and nobody has read yet.
#[derive(Default)]
pub struct Messages(VecDeque<String>);

impl Messages {
    pub fn post(&mut self, message: &impl Serialize) {
        self.0.extend(serde_json::to_string(message));
    }
}

type Work = Box<dyn FnOnce(&mut Messages, &Cancel) -> Result<Done>>;

/// See `NativeTask` in `ts/src/native.ts`; `native-wasm.ts` makes one of it.
#[wasm_bindgen]
pub struct WasmTask {
    work: Option<Work>,
    messages: Messages,
    cancel: Cancel,
    outcome: Option<String>,
    model: Option<Arc<Model>>,
    bytes: Option<Vec<u8>>,
}

impl WasmTask {
    pub(crate) fn new(work: impl FnOnce(&mut Messages, &Cancel) -> Result<Done> + 'static) -> Self {
        Self { work: Some(Box::new(work)), messages: Messages::default(), cancel: Cancel::default(), outcome: None, model: None, bytes: None }
    }

    fn finish(&mut self, result: Result<Done>) {
        self.outcome = Some(outcome(&result));
        if let Ok(done) = result {
            (self.model, self.bytes) = (done.model, done.bytes);
        }
    }
}

#[wasm_bindgen]
impl WasmTask {
    /// One step; true when there are no more.
    pub fn step(&mut self) -> bool {
        if let Some(work) = self.work.take() {
            let result = work(&mut self.messages, &self.cancel);
            self.finish(result);
        }
        self.outcome.is_some()
    }

    /// The next message as JSON, if there is one now.
    pub fn message(&mut self) -> Option<String> {
        self.messages.0.pop_front()
    }

    /// JSON of the outcome, when the last step is done.
    pub fn outcome(&self) -> Option<String> {
        self.outcome.clone()
    }

    #[wasm_bindgen(js_name = takeModel)]
    pub fn take_model(&mut self) -> Option<WasmModel> {
        self.model.take().map(WasmModel::new)
    }

    #[wasm_bindgen(js_name = takeBytes)]
    pub fn take_bytes(&mut self) -> Option<Vec<u8>> {
        self.bytes.take()
    }

    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}
