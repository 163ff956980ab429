//! The Node addon: JSON in, handles and events out (`ts/src/native.ts` is the other side of this
//! surface). No maths and no defaults live here.
//!
//! Every long call makes a `NativeTask` on a thread of its own, never one of libuv's. Every
//! export catches unwinding, which JavaScript sees as an exception; every failure of the core
//! crosses as data.

#![warn(missing_docs)]
// The attribute macros of napi-derive write unsafe binding glue into this crate; no unsafe code is
// written by hand.
#![allow(unsafe_code)]

mod fault;
mod message;
mod model;
mod outcome;
mod task;

use fault::reach;
use halfstep::Error;
use halfstep::config::options::{EvaluateConfig, GenerationConfig, RunConfig};
use halfstep::run::{self as session, RecipeInput};
use halfstep_bench::quick;
use halfstep_kernels::dispatch;
use halfstep_kernels::recycle::give_all_back;
use message::{Message, Note};
use model::NativeModel;
use napi::Env;
use napi::bindgen_prelude::{Uint8Array, Uint32Array};
use napi_derive::{module_init, napi};
use std::sync::Arc;
use task::{NativeTask, TaskOutput};

/// Large blocks stay with the process while a run trains.
#[global_allocator]
static ALLOCATOR: halfstep_kernels::recycle::Recycling = halfstep_kernels::recycle::Recycling;

/// A caught panic becomes an error value; its text on stderr would only disturb the host. With
/// RUST_BACKTRACE set the default hook stays.
#[module_init]
fn quiet_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Reads a GGUF file, a `halfstep` safetensors file or a Hugging Face folder. Outcome: null; then
/// `takeModel`.
#[napi(catch_unwind)]
pub fn load(env: Env, path: String) -> napi::Result<NativeTask> {
    NativeTask::spawn(env, "load", move |_, _| TaskOutput::model(session::load(&path)?))
}

/// The same from the bytes of one file, called `name` in errors.
#[napi(catch_unwind)]
pub fn load_bytes(env: Env, name: String, bytes: Uint8Array) -> napi::Result<NativeTask> {
    // Copied: JavaScript may change or transfer its buffer while the thread reads.
    let bytes = bytes.to_vec();
    NativeTask::spawn(env, "loadBytes", move |_, _| {
        TaskOutput::model(Arc::new(halfstep_formats::load::load_bytes(&name, &bytes)?.into()))
    })
}

/// Describes the model of a file or folder, whether it can be run or not. Outcome:
/// `FileInspection`.
#[napi(catch_unwind)]
pub fn inspect(env: Env, path: String) -> napi::Result<NativeTask> {
    NativeTask::spawn(env, "inspect", move |_, _| TaskOutput::value(&session::inspect_file(&path)?))
}

/// The same from the bytes of one file, called `name` in errors.
#[napi(catch_unwind)]
pub fn inspect_bytes(env: Env, name: String, bytes: Uint8Array) -> napi::Result<NativeTask> {
    let bytes = bytes.to_vec();
    NativeTask::spawn(env, "inspectBytes", move |_, _| {
        TaskOutput::value(&session::inspect_bytes(&name, &bytes)?)
    })
}

/// Quantizes a model: `recipe` is JSON of `RecipeInput`, `run` of `RunConfig`. Messages: `Event`.
/// Outcome: `Report`; then `takeModel`.
#[napi(catch_unwind)]
pub fn quantize(
    env: Env,
    model: &NativeModel,
    recipe: String,
    run: String,
) -> napi::Result<NativeTask> {
    let model = model.share();
    NativeTask::spawn(env, "quantize", move |post, cancel| {
        let recipe = RecipeInput::parse(&recipe)?.resolve()?;
        let run: RunConfig = session::parse_config(&run)?;
        let (small, report) = session::quantize_loaded(
            &*model?,
            &recipe,
            &run,
            &mut |event| post(Message::Event(event)),
            cancel,
        )?;
        give_all_back();
        TaskOutput::value(&report)
            .map(|done| TaskOutput { model: Some(Arc::new(small.into())), ..done })
    })
}

/// Estimates what [`quantize`] with the same arguments will need, on a machine with `free` bytes of
/// free memory (none: this one). Messages: `Event`. Outcome: `Plan`.
#[napi(catch_unwind)]
pub fn plan(
    env: Env,
    model: &NativeModel,
    recipe: String,
    run: String,
    free: Option<f64>,
) -> napi::Result<NativeTask> {
    let model = model.share();
    NativeTask::spawn(env, "plan", move |post, cancel| {
        let recipe = RecipeInput::parse(&recipe)?.resolve()?;
        let run: RunConfig = session::parse_config(&run)?;
        let made = session::plan_as(
            &*model?,
            &recipe,
            &run,
            &mut |event| post(Message::Event(event)),
            cancel,
        )?;
        TaskOutput::value(&match free {
            Some(free) => made.on_machine(free as u64),
            None => made,
        })
    })
}

/// The same for the model that the config.json at `path` describes.
#[napi(catch_unwind)]
pub fn plan_config(
    env: Env,
    path: String,
    recipe: String,
    run: String,
    free: Option<f64>,
) -> napi::Result<NativeTask> {
    NativeTask::spawn(env, "planConfig", move |post, cancel| {
        let recipe = RecipeInput::parse(&recipe)?.resolve()?;
        let run: RunConfig = session::parse_config(&run)?;
        TaskOutput::value(&session::plan_config(
            &path,
            &recipe,
            &run,
            free.map(|free| free as u64),
            &mut |event| post(Message::Event(event)),
            cancel,
        )?)
    })
}

/// Evaluates a model, compared with `against` over the same positions if there is one: `config` is
/// JSON of `EvaluateConfig`. Messages: `progress`. Outcome: `EvaluationRecord`.
#[napi(catch_unwind)]
pub fn evaluate(
    env: Env,
    model: &NativeModel,
    against: Option<&NativeModel>,
    config: String,
) -> napi::Result<NativeTask> {
    let (model, against) = (model.share(), against.map(NativeModel::share).transpose());
    NativeTask::spawn(env, "evaluate", move |post, cancel| {
        let config: EvaluateConfig = session::parse_config(&config)?;
        let mut progress = |done, total| post(Message::Note(Note::Progress { done, total }));
        TaskOutput::value(&session::evaluate(
            &*model?,
            against?.as_deref().map(|loaded| &**loaded),
            &config,
            &mut progress,
            cancel,
        )?)
    })
}

/// Generates a text: `config` is JSON of `GenerationConfig`. Messages: `text`. Outcome:
/// `Generation`.
#[napi(catch_unwind)]
pub fn generate(env: Env, model: &NativeModel, config: String) -> napi::Result<NativeTask> {
    let model = model.share();
    NativeTask::spawn(env, "generate", move |post, cancel| {
        let config: GenerationConfig = session::parse_config(&config)?;
        TaskOutput::value(&session::generate(
            &*model?,
            &config,
            &mut |text| post(Message::Note(Note::Text { text: text.into() })),
            cancel,
        )?)
    })
}

/// Continues several prompts: `prompts` is JSON of `string[]`, `config` of `GenerationConfig`
/// without a prompt. Outcome: `Generation[]`.
#[napi(catch_unwind)]
pub fn generate_all(
    env: Env,
    model: &NativeModel,
    prompts: String,
    config: String,
) -> napi::Result<NativeTask> {
    let model = model.share();
    NativeTask::spawn(env, "generateAll", move |_, cancel| {
        let (prompts, config) = (
            session::parse_config::<Vec<String>>(&prompts)?,
            session::parse_config::<GenerationConfig>(&config)?,
        );
        TaskOutput::value(&session::generate_all(&*model?, &prompts, &config, cancel)?)
    })
}

/// Token ids of a text; with `special`, special tokens in it are recognised and begin and end
/// tokens are added. Outcome: `number[]`.
#[napi(catch_unwind)]
pub fn tokenize(
    env: Env,
    model: &NativeModel,
    text: String,
    special: bool,
) -> napi::Result<NativeTask> {
    let model = model.share();
    NativeTask::spawn(env, "tokenize", move |_, _| {
        TaskOutput::value(&session::tokenize(&*model?, &text, special)?)
    })
}

/// Logits `[tokens, vocabulary]` of a sequence as little-endian f32. Outcome: null; then
/// `takeBytes`.
#[napi(catch_unwind)]
pub fn logits(env: Env, model: &NativeModel, tokens: Uint32Array) -> napi::Result<NativeTask> {
    let (model, tokens) = (model.share(), tokens.to_vec());
    NativeTask::spawn(env, "logits", move |_, _| {
        let logits = session::logits(&*model?, &tokens)?;
        let bytes = logits.into_iter().flat_map(f32::to_le_bytes).collect();
        TaskOutput::value(&()).map(|done| TaskOutput { bytes: Some(bytes), ..done })
    })
}

/// The values of the model in f32, nothing quantized. Outcome: null; then `takeModel`.
#[napi(catch_unwind)]
pub fn dequantize(env: Env, model: &NativeModel) -> napi::Result<NativeTask> {
    let model = model.share();
    NativeTask::spawn(env, "dequantize", move |_, _| {
        TaskOutput::model(Arc::new(session::dequantize(&*model?, 0)?.into()))
    })
}

/// Writes the model to a file. Outcome: `SaveReport`.
#[napi(catch_unwind)]
pub fn save(env: Env, model: &NativeModel, path: String) -> napi::Result<NativeTask> {
    let model = model.share();
    NativeTask::spawn(env, "save", move |_, _| TaskOutput::value(&session::save(&*model?, &path)?))
}

/// The bytes of the file, in the format of the model's target (GGUF for a float model). Outcome:
/// `SaveReport`; then `takeBytes`.
#[napi(catch_unwind)]
pub fn to_bytes(env: Env, model: &NativeModel) -> napi::Result<NativeTask> {
    let model = model.share();
    NativeTask::spawn(env, "toBytes", move |_, _| {
        let (bytes, report) = session::to_bytes(&*model?, None)?;
        TaskOutput::value(&report).map(|done| TaskOutput { bytes: Some(bytes), ..done })
    })
}

/// Resolves `recipe` and applies `changes`; the outcome is the whole recipe.
#[napi(catch_unwind)]
pub fn resolve(recipe: String, changes: String) -> String {
    outcome::of(|| {
        reach("resolve", "");
        outcome::value(&session::resolve(&recipe, &changes)?)
    })
}

/// The kernel benches of `halfstep bench`; a message per row.
#[napi(catch_unwind)]
pub fn bench(env: Env, config: String) -> napi::Result<NativeTask> {
    NativeTask::spawn(env, "bench", move |post, cancel| {
        let mut emit = |row| post(Message::Note(Note::Bench { row: Box::new(row) }));
        let summary =
            quick::run(session::parse_config(&config)?, &mut emit, &|| cancel.is_cancelled());
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { resume: None });
        }
        TaskOutput::value(&summary.map_err(|reason| Error::Internal { reason })?)
    })
}

/// JSON of what this build found on this machine.
#[napi(catch_unwind)]
pub fn doctor() -> String {
    reach("doctor", "");
    let mut features: Vec<&str> =
        dispatch::available().into_iter().map(dispatch::Level::name).collect();
    features.reverse();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let doctor = serde_json::json!({
        "build": "native",
        "version": env!("CARGO_PKG_VERSION"),
        "cpuFeatures": features,
        "threads": threads,
    });
    doctor.to_string()
}

#[cfg(test)]
mod tests {
    /// A panic that crosses into Node ends the process, so that no export may lack the attribute.
    #[test]
    fn every_export_catches_unwinding() {
        let mut exports = 0;
        for source in [include_str!("lib.rs"), include_str!("model.rs"), include_str!("task.rs")] {
            let lines: Vec<&str> = source.lines().map(str::trim).collect();
            for pair in lines
                .windows(2)
                .filter(|pair| pair[0].starts_with("#[napi") && pair[1].starts_with("pub fn"))
            {
                assert!(pair[0].contains("catch_unwind"), "{}", pair[1]);
                exports += 1;
            }
        }
        assert_eq!(exports, 26, "functions and methods of the addon");
    }
}
