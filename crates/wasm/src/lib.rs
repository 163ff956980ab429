//! The WebAssembly build: the same surface as the Node addon (`ts/src/native.ts`) on one thread. No
//! maths and no defaults live here.
//!
//! Nothing can run in parallel with JavaScript, so a task is a row of steps that
//! `ts/src/native-wasm.ts` takes one by one, giving the event loop its turn in between. Every
//! failure of the core crosses as data. A panic ends in a trap; its text waits in [`take_panic`].

#![warn(missing_docs)]
// The attribute macro of wasm-bindgen writes unsafe binding glue into this crate; no unsafe code is
// written by hand.
#![allow(unsafe_code)]

mod model;
mod task;

use halfstep::config::options::{GenerationConfig, RunConfig};
use halfstep::run::evaluate::EvaluationRun;
use halfstep::run::generate::GenerationRun;
use halfstep::run::{self as session, RecipeInput};
use model::WasmModel;
use serde_json::json;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use task::{Messages, TaskOutput, WasmTask};
use wasm_bindgen::prelude::wasm_bindgen;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

#[wasm_bindgen]
extern "C" {
    /// Milliseconds, in browsers, workers and Node alike.
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
}

#[wasm_bindgen(start)]
fn start() {
    #[cfg(target_family = "wasm")]
    halfstep_runtime::clock::set_host_clock(|| now() / 1e3);
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        PANIC.with(|panic| panic.replace(Some(text)));
    }));
}

/// Returns the message of the last panic, once.
#[wasm_bindgen(js_name = takePanic)]
pub fn take_panic() -> Option<String> {
    PANIC.with(RefCell::take)
}

/// Errors name it `name`.
#[wasm_bindgen(js_name = loadBytes)]
pub fn load_bytes(name: String, bytes: Vec<u8>) -> WasmTask {
    WasmTask::once(move |_, _| {
        TaskOutput::model(Arc::new(halfstep_formats::load::load_bytes(&name, &bytes)?.into()))
    })
}

/// The files of a Hugging Face folder, on their way in.
#[wasm_bindgen]
#[derive(Default)]
pub struct WasmFiles(BTreeMap<String, Vec<u8>>);

#[wasm_bindgen]
impl WasmFiles {
    /// No files.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file by its name in the folder.
    pub fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.0.insert(name, bytes);
    }
}

/// Reads a Hugging Face folder from its files; `name` is that of the folder. Outcome: null; then
/// `takeModel`.
#[wasm_bindgen(js_name = loadFiles)]
pub fn load_files(name: String, files: WasmFiles) -> WasmTask {
    WasmTask::once(move |_, _| {
        TaskOutput::model(Arc::new(halfstep_formats::load::load_files(&name, &files.0)?.into()))
    })
}

/// Describes the model of one file's bytes, whether it can be run or not; errors name it `name`.
/// Outcome: `FileInspection`.
#[wasm_bindgen(js_name = inspectBytes)]
pub fn inspect_bytes(name: String, bytes: Vec<u8>) -> WasmTask {
    WasmTask::once(move |_, _| TaskOutput::value(&session::inspect_bytes(&name, &bytes)?))
}

/// The same from the files of a Hugging Face folder.
#[wasm_bindgen(js_name = inspectFiles)]
pub fn inspect_files(name: String, files: WasmFiles) -> WasmTask {
    WasmTask::once(move |_, _| TaskOutput::value(&session::inspect_files(&name, &files.0)?))
}

/// Quantizes a model: `recipe` is JSON of `RecipeInput`, `run` of `RunConfig`. Messages: `Event`.
/// Outcome: `Report`; then `takeModel`.
#[wasm_bindgen]
pub fn quantize(model: &WasmModel, recipe: String, run: String) -> WasmTask {
    let model = model.arc();
    WasmTask::once(move |messages, cancel| {
        let recipe = RecipeInput::parse(&recipe)?.resolve()?;
        let run: RunConfig = session::parse_config(&run)?;
        let (small, report) = session::quantize_as(
            &*model?,
            &recipe,
            &run,
            &mut |event| messages.post(json!(event)),
            cancel,
        )?;
        TaskOutput::value(&report)
            .map(|done| TaskOutput { model: Some(Arc::new(small.into())), ..done })
    })
}

/// Evaluates a model: `config` is JSON of `EvaluateConfig`. Messages: `progress`. Outcome:
/// `EvaluationRecord`.
#[wasm_bindgen]
pub fn evaluate(model: &WasmModel, config: String) -> WasmTask {
    evaluation(model, None, config)
}

/// The same, compared with the model `against` over the same positions.
#[wasm_bindgen(js_name = evaluateAgainst)]
pub fn evaluate_against(model: &WasmModel, against: &WasmModel, config: String) -> WasmTask {
    evaluation(model, Some(against), config)
}

fn evaluation(model: &WasmModel, against: Option<&WasmModel>, config: String) -> WasmTask {
    let (model, against) = (model.arc(), against.map(WasmModel::arc).transpose());
    let start = move || {
        EvaluationRun::new(
            &[&*model?],
            against?.as_deref().map(|loaded| &**loaded),
            &session::parse_config(&config)?,
        )
    };
    let step = |run: &mut EvaluationRun, messages: &mut Messages| {
        let (done, total) = run.progress();
        messages.post(json!({ "kind": "progress", "done": done, "total": total }));
        run.step()
    };
    WasmTask::steps(start, step, |run| TaskOutput::value(&run.finish()[0]))
}

/// Generates a text: `config` is JSON of `GenerationConfig`. Messages: `text`. Outcome:
/// `Generation`.
#[wasm_bindgen]
pub fn generate(model: &WasmModel, config: String) -> WasmTask {
    let model = model.arc();
    let start = move || GenerationRun::new(&*model?, &session::parse_config(&config)?);
    let step = |run: &mut GenerationRun, messages: &mut Messages| {
        let text = run.step()?;
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            messages.post(json!({ "kind": "text", "text": text }));
        }
        Ok(text.is_some())
    };
    WasmTask::steps(start, step, |run| TaskOutput::value(&run.finish()))
}

/// Continues several prompts: `prompts` is JSON of `string[]`, `config` of `GenerationConfig`
/// without a prompt. Outcome: `Generation[]`.
#[wasm_bindgen(js_name = generateAll)]
pub fn generate_all(model: &WasmModel, prompts: String, config: String) -> WasmTask {
    let model = model.arc();
    WasmTask::once(move |_, cancel| {
        let (prompts, config) = (
            session::parse_config::<Vec<String>>(&prompts)?,
            session::parse_config::<GenerationConfig>(&config)?,
        );
        TaskOutput::value(&session::generate_all(&*model?, &prompts, &config, cancel)?)
    })
}

/// Token ids of a text; with `special`, special tokens in it are recognised and begin and end
/// tokens are added. Outcome: `number[]`.
#[wasm_bindgen]
pub fn tokenize(model: &WasmModel, text: String, special: bool) -> WasmTask {
    let model = model.arc();
    WasmTask::once(move |_, _| TaskOutput::value(&session::tokenize(&*model?, &text, special)?))
}

/// Logits `[tokens, vocabulary]` of a sequence as little-endian f32. Outcome: null; then
/// `takeBytes`.
#[wasm_bindgen]
pub fn logits(model: &WasmModel, tokens: Vec<u32>) -> WasmTask {
    let model = model.arc();
    WasmTask::once(move |_, _| {
        let logits = session::logits(&*model?, &tokens)?;
        let bytes = logits.into_iter().flat_map(f32::to_le_bytes).collect();
        TaskOutput::value(&()).map(|done| TaskOutput { bytes: Some(bytes), ..done })
    })
}

/// The values of the model in f32, nothing quantized. Outcome: null; then `takeModel`.
#[wasm_bindgen]
pub fn dequantize(model: &WasmModel) -> WasmTask {
    let model = model.arc();
    WasmTask::once(move |_, _| {
        TaskOutput::model(Arc::new(session::dequantize(&*model?, 0)?.into()))
    })
}

/// The bytes of the file for `path`, or in the format of the model's target. Outcome: `SaveReport`;
/// then `takeBytes`.
#[wasm_bindgen(js_name = toBytes)]
pub fn to_bytes(model: &WasmModel, path: Option<String>) -> WasmTask {
    let model = model.arc();
    WasmTask::once(move |_, _| {
        let (bytes, report) = session::to_bytes(&*model?, path.as_deref())?;
        TaskOutput::value(&report).map(|done| TaskOutput { bytes: Some(bytes), ..done })
    })
}

/// Resolves `recipe` and applies `changes`; the outcome is the whole recipe.
#[wasm_bindgen]
pub fn resolve(recipe: String, changes: String) -> String {
    let recipe = session::resolve(&recipe, &changes);
    task::outcome(&recipe.and_then(|recipe| TaskOutput::value(&recipe)))
}

/// JSON of what this build found: simd128 is fixed when the module is made.
#[wasm_bindgen]
pub fn doctor() -> String {
    let features: &[&str] = if cfg!(target_feature = "simd128") { &["simd128"] } else { &[] };
    let doctor = json!({
        "build": "wasm",
        "version": env!("CARGO_PKG_VERSION"),
        "cpuFeatures": features,
        "threads": 1,
    });
    doctor.to_string()
}
