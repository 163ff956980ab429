//! Hostile files: damage of any kind to sound ones, and what is odd but sound. Malformed files by name
//! are in `crates/core/tests/malformed`.

#[path = "../any_model/mod.rs"]
mod any_model;
#[path = "../hostile/mod.rs"]
mod hostile;
#[path = "../raw_gguf/mod.rs"]
mod raw_gguf;
#[path = "../small_model/mod.rs"]
mod small_model;

mod hostile_config;
mod hostile_gguf;
mod hostile_safetensors;
mod linear_parts;
