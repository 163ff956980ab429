//! Files there and back: what is written, what is read of it, and what others have on disk.
//! Modules of one program, since each program compiles and links the code below it once more.

#[path = "../any_model/mod.rs"]
mod any_model;
#[path = "../llama_keys/mod.rs"]
mod llama_keys;
#[path = "../raw_gguf/mod.rs"]
mod raw_gguf;
#[path = "../small_model/mod.rs"]
mod small_model;

mod coded_weights;
mod description;
mod families;
mod gguf;
mod independent_reader;
mod loading;
mod published;
mod round_trip;
mod tokenizer_cases;
