//! Which run it is: what a resumed run must share with the run that it continues.

use crate::data::Text;
use crate::layer::tensors::hash_weights;
use crate::recipe::Recipe;
use halfstep_formats::Model;
use halfstep_kernels::Pool;

/// Recipe, text and how it is read, weights and vocabulary, as one hash.
pub(crate) fn identity(model: &Model, recipe: &Recipe, text: &Text, pool: &Pool) -> String {
    let mut hasher = blake3::Hasher::new();
    let recipe = serde_json::to_string(recipe).unwrap_or_default();
    // As a file says it, so that a field which another version adds changes no older run.
    let architecture = model.architecture.config_text();
    hasher.update(format!("{recipe}\n{}\n{architecture}\n", text.identity(model)).as_bytes());
    hash_weights(&mut hasher, model, pool);
    for token in model.tokenizer.iter().flat_map(|t| &t.vocabulary.tokens) {
        hasher.update(token.as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}
