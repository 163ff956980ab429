//! The functions that the bindings call: configs in, models, reports and events out. Nothing here
//! depends on napi or wasm-bindgen.

mod dequantize;
pub mod evaluate;
pub mod generate;
pub(crate) mod inspect;
pub(crate) mod load;
mod output;
#[cfg(feature = "train")]
pub(crate) mod plan;
#[cfg(feature = "train")]
mod plan_config;
pub(crate) mod quantize;
mod quantized_model;
mod record;
pub mod report;
mod same_tokens;
pub mod save;
mod sound;
mod validation;

pub use crate::cancel::Cancel;
pub use crate::config::options::{
    ArithmeticConfig, ChatMessage, EvaluateConfig, GenerationConfig, RunConfig, WindowRule,
};
pub use crate::config::parse_config;
pub use crate::config::recipe_input::{RecipeInput, resolve};
pub use dequantize::dequantize;
pub use evaluate::evaluate;
pub use generate::{generate, generate_all};
pub use inspect::{inspect, inspect_bytes, inspect_file, inspect_files};
pub use load::{LoadedModel, load};
#[cfg(feature = "train")]
pub use plan::{Plan, PlanStage, plan, plan_as};
#[cfg(feature = "train")]
pub use plan_config::plan_config;
pub use quantize::{quantize, quantize_as, quantize_loaded, quantize_on, quantize_with};
pub use report::{ExpertsInspection, FileInspection, Generation, Inspection, Report, SaveReport};

use crate::error::{Error, Result};
use halfstep_formats::Model;
use halfstep_kernels::Pool;
use halfstep_runtime::Cache;
use halfstep_runtime::network::Logits;
use std::path::Path;

/// Token ids of `text`. `special`: special tokens in it are recognised, and begin and end tokens
/// added if the model uses them.
pub fn tokenize(model: &Model, text: &str, special: bool) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer.as_ref().ok_or_else(|| Error::no_tokenizer(&model.name))?;
    Ok(tokenizer.encode(text, special)?)
}

/// Logits `[tokens, V]` of a sequence run from position 0, in the model's own arithmetic.
pub fn logits(model: &LoadedModel, tokens: &[u32]) -> Result<Vec<f32>> {
    let network = model.network(0)?;
    Ok(network.forward(tokens, &mut Cache::new(&network), Logits::All)?)
}

/// Writes a model: the format follows its target (or the path's ending, .gguf or .safetensors, for
/// a float model). A quantized model passes the parity gate on the re-opened file, or no file is
/// kept.
pub fn save(model: &Model, path: &str) -> Result<SaveReport> {
    crate::run::save::save(model, Path::new(path), &Pool::new(0))
}

/// The bytes of the file that [`save()`] would write to `path`; without a path, in the format of the
/// model's target (GGUF for a float model).
pub fn to_bytes(model: &Model, path: Option<&str>) -> Result<(Vec<u8>, SaveReport)> {
    crate::run::save::to_bytes(model, path.map(Path::new), &Pool::new(0))
}
