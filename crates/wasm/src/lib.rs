//! The WebAssembly build: the same surface as the Node addon (`ts/src/native.ts`) on one thread. No maths and no defaults live here.
//!
//! Nothing can run beside JavaScript, so a task is a row of steps that `ts/src/native-wasm.ts` takes one by one, giving the event loop its turn in between.
//! Every failure of the core crosses as data. A panic ends in a trap; its text waits in [`take_panic`].
// The attribute macro of wasm-bindgen writes unsafe binding glue into this crate; no unsafe code is written by hand.
#![allow(unsafe_code)]

mod model;
mod task;

use halfstep::session::{self, EvaluateConfig, GenerationConfig, RunConfig};
use halfstep::targets::TargetId;
use halfstep_formats::write::{FileFormat, to_bytes as file_bytes};
use model::WasmModel;
use serde_json::json;
use std::cell::RefCell;
use std::sync::Arc;
use task::{Done, WasmTask};
use wasm_bindgen::prelude::wasm_bindgen;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        PANIC.with(|panic| panic.replace(Some(text)));
    }));
}

/// What the last panic said, once.
#[wasm_bindgen(js_name = takePanic)]
pub fn take_panic() -> Option<String> {
    PANIC.with(RefCell::take)
}

/// `name` stands in errors.
#[wasm_bindgen(js_name = loadBytes)]
pub fn load_bytes(name: String, bytes: Vec<u8>) -> WasmTask {
    WasmTask::new(move |_, _| Ok(Done::model(Arc::new(halfstep_formats::load::load_bytes(&name, &bytes)?))))
}

#[wasm_bindgen]
pub fn quantize(model: &WasmModel, recipe: String, run: String) -> WasmTask {
    let model = model.share();
    WasmTask::new(move |messages, cancel| {
        let (recipe, run) = (session::parse_config(&recipe)?, session::parse_config::<RunConfig>(&run)?);
        let (small, report) = session::quantize(&*model?, &recipe, &run, &mut |event| messages.post(&event), cancel)?;
        Done::value(&report).map(|done| Done { model: Some(Arc::new(small)), ..done })
    })
}

#[wasm_bindgen]
pub fn evaluate(model: &WasmModel, config: String) -> WasmTask {
    evaluation(model, None, config)
}

#[wasm_bindgen(js_name = evaluateAgainst)]
pub fn evaluate_against(model: &WasmModel, against: &WasmModel, config: String) -> WasmTask {
    evaluation(model, Some(against), config)
}

fn evaluation(model: &WasmModel, against: Option<&WasmModel>, config: String) -> WasmTask {
    let (model, against) = (model.share(), against.map(WasmModel::share).transpose());
    WasmTask::new(move |messages, cancel| {
        let config: EvaluateConfig = session::parse_config(&config)?;
        let mut progress = |done: usize, total: usize| messages.post(&json!({ "kind": "progress", "done": done, "total": total }));
        Done::value(&session::evaluate(&*model?, against?.as_deref(), &config, &mut progress, cancel)?)
    })
}

#[wasm_bindgen]
pub fn generate(model: &WasmModel, config: String) -> WasmTask {
    let model = model.share();
    WasmTask::new(move |messages, cancel| {
        let config: GenerationConfig = session::parse_config(&config)?;
        let mut on_text = |text: &str| messages.post(&json!({ "kind": "text", "text": text }));
        Done::value(&session::generate(&*model?, &config, &mut on_text, cancel)?)
    })
}

#[wasm_bindgen(js_name = toBytes)]
pub fn to_bytes(model: &WasmModel) -> WasmTask {
    let model = model.share();
    WasmTask::new(move |_, _| {
        let model = model?;
        let target = model.quantization.as_ref().and_then(|q| TargetId::ALL.into_iter().find(|t| t.name() == q.target));
        let format = target.map_or(FileFormat::Gguf, TargetId::file_format);
        Ok(Done { bytes: Some(file_bytes(&model, format)?), ..Done::default() })
    })
}

/// JSON of what this build found: simd128 is fixed when the module is made.
#[wasm_bindgen]
pub fn doctor() -> String {
    let features: &[&str] = if cfg!(target_feature = "simd128") { &["simd128"] } else { &[] };
    json!({ "build": "wasm", "version": env!("CARGO_PKG_VERSION"), "cpuFeatures": features, "threads": 1 }).to_string()
}
