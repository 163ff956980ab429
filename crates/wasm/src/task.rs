//! Work in steps, with a queue of messages and one outcome.

use crate::model::WasmModel;
use halfstep::cancel::Cancel;
use halfstep::run::LoadedModel;
use halfstep::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use wasm_bindgen::prelude::wasm_bindgen;

/// What a task made: a value as JSON, its fields in the order they are declared in, and what does
/// not cross as JSON.
pub struct TaskOutput {
    pub value: String,
    pub model: Option<Arc<LoadedModel>>,
    pub bytes: Option<Vec<u8>>,
}

impl TaskOutput {
    pub fn model(model: Arc<LoadedModel>) -> Result<Self> {
        Self::value(&()).map(|done| Self { model: Some(model), ..done })
    }

    pub fn value(value: &impl Serialize) -> Result<Self> {
        let value =
            serde_json::to_string(value).map_err(|e| Error::Internal { reason: e.to_string() })?;
        Ok(Self { value, model: None, bytes: None })
    }
}

/// JSON of `Outcome<T>` in `ts/src/native.ts`.
pub fn outcome(result: &Result<TaskOutput>) -> String {
    match result {
        Ok(done) => format!(r#"{{"ok":{}}}"#, done.value),
        Err(e) => {
            let (code, message, details) = (e.code(), e.to_string(), e.details());
            json!({ "error": { "code": code, "message": message, "details": details } }).to_string()
        }
    }
}

/// The messages of a task that are not read yet.
#[derive(Default)]
pub struct Messages(VecDeque<Value>);

/// Messages that wait at most, as long as there are some that can be thinned; the Node addon has
/// the same bound.
const CAPACITY: usize = 1024;

impl Messages {
    /// While nothing is read, text is joined and progress replaced; events of a run are few here
    /// and always kept.
    pub fn post(&mut self, message: Value) {
        if self.0.len() >= CAPACITY
            && let Some(last) = self.0.back_mut()
            && last["kind"] == message["kind"]
        {
            match (message["kind"].as_str(), last["text"].as_str(), message["text"].as_str()) {
                (Some("text"), Some(earlier), Some(later)) => {
                    return *last = json!({ "kind": "text", "text": format!("{earlier}{later}") });
                }
                (Some("progress"), ..) => return *last = message,
                _ => {}
            }
        }
        self.0.push_back(message);
    }
}

type Work = Box<dyn FnMut(&mut Messages, &Cancel) -> Result<Option<TaskOutput>>>;

/// See `NativeTask` in `ts/src/native.ts`; `wasm-run.ts` makes one of it.
#[wasm_bindgen]
pub struct WasmTask {
    /// One step; `TaskOutput` at the last. None when it is over.
    work: Option<Work>,
    messages: Messages,
    cancel: Cancel,
    outcome: Option<String>,
    model: Option<Arc<LoadedModel>>,
    bytes: Option<Vec<u8>>,
}

impl WasmTask {
    fn new(
        work: impl FnMut(&mut Messages, &Cancel) -> Result<Option<TaskOutput>> + 'static,
    ) -> Self {
        Self {
            work: Some(Box::new(work)),
            messages: Messages::default(),
            cancel: Cancel::default(),
            outcome: None,
            model: None,
            bytes: None,
        }
    }

    /// All work in one step.
    pub(crate) fn once(
        work: impl FnOnce(&mut Messages, &Cancel) -> Result<TaskOutput> + 'static,
    ) -> Self {
        let mut work = Some(work);
        Self::new(move |messages, cancel| {
            work.take().map(|work| work(messages, cancel)).transpose()
        })
    }

    /// Work that `start` prepares, each `step` carries on until it says false, and `finish` sums
    /// up.
    pub(crate) fn steps<Run: 'static>(
        start: impl FnOnce() -> Result<Run> + 'static,
        step: impl Fn(&mut Run, &mut Messages) -> Result<bool> + 'static,
        finish: impl Fn(Run) -> Result<TaskOutput> + 'static,
    ) -> Self {
        let (mut start, mut run) = (Some(start), None);
        Self::new(move |messages, _| {
            if let Some(start) = start.take() {
                run = Some(start()?);
            }
            let more = match &mut run {
                Some(run) => step(run, messages)?,
                None => false,
            };
            if more { Ok(None) } else { run.take().map(&finish).transpose() }
        })
    }

    fn finish(&mut self, result: Result<TaskOutput>) {
        self.work = None;
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
        if let Some(work) = &mut self.work {
            let cancelled =
                self.cancel.is_cancelled().then(|| Err(Error::Cancelled { resume: None }));
            match cancelled.unwrap_or_else(|| work(&mut self.messages, &self.cancel)).transpose() {
                Some(result) => self.finish(result),
                None => return false,
            }
        }
        true
    }

    /// The next message as JSON, if there is one now.
    pub fn message(&mut self) -> Option<String> {
        self.messages.0.pop_front().map(|message| message.to_string())
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

    /// The next step ends the task.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome_of(task: &WasmTask) -> Value {
        serde_json::from_str(&task.outcome().unwrap()).unwrap()
    }

    #[test]
    fn a_task_goes_step_by_step_to_its_outcome() {
        let step = |left: &mut u32, messages: &mut Messages| {
            messages.post(json!({ "kind": "progress", "done": 2 - *left }));
            *left = left.saturating_sub(1);
            Ok(*left > 0)
        };
        let mut task = WasmTask::steps(|| Ok(2u32), step, |left| TaskOutput::value(&left));
        assert!(!task.step());
        assert_eq!(task.outcome(), None);
        assert!(task.step());
        assert!(task.step(), "a step after the end changes nothing");
        assert_eq!(outcome_of(&task), json!({ "ok": 0 }));
        assert_eq!(task.message().as_deref(), Some(r#"{"done":0,"kind":"progress"}"#));
        assert!(task.message().is_some() && task.message().is_none());
    }

    #[test]
    fn errors_and_cancelling_are_outcomes() {
        let mut task = WasmTask::once(|_, _| Err(Error::config("weights", "no")));
        assert!(task.step());
        assert_eq!(outcome_of(&task)["error"]["code"], "ERR_CONFIG");
        assert_eq!(outcome_of(&task)["error"]["details"]["field"], "weights");
        let mut task = WasmTask::steps(|| Ok(()), |_, _| Ok(true), |_| TaskOutput::value(&()));
        assert!(!task.step());
        task.cancel();
        assert!(task.step());
        assert_eq!(outcome_of(&task)["error"]["code"], "ERR_CANCELLED");
    }

    #[test]
    fn messages_that_nobody_reads_are_joined_and_none_of_the_text_is_lost() {
        let mut messages = Messages::default();
        for _ in 0..2 * CAPACITY {
            messages.post(json!({ "kind": "text", "text": "x" }));
        }
        assert_eq!(messages.0.len(), CAPACITY);
        let length: usize = messages.0.iter().map(|m| m["text"].as_str().unwrap().len()).sum();
        assert_eq!(length, 2 * CAPACITY);
    }
}
