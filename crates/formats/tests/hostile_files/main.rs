//! Hostile configs, safetensors and parts of linears, in one program whose allocator is counted, but
//! for those of GGUF files, whose tests take turns.

#[path = "../any_model/mod.rs"]
mod any_model;
#[path = "../hostile/mod.rs"]
mod hostile;

mod hostile_config;
mod hostile_safetensors;
mod linear_parts;
