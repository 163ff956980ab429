//! Files, codecs and tokenizers against the golden set.
//! Modules of one program, since each program compiles and links the code below it once more.

#[path = "../any_model/mod.rs"]
mod any_model;
#[path = "../raw_gguf/mod.rs"]
mod raw_gguf;

mod golden_families;
mod golden_ggml_blocks;
mod golden_safetensors;
mod golden_tokenizer;
mod golden_tokenizers;
