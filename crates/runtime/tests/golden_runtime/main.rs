//! The forward pass against the golden set.
//! Modules of one program, since each program compiles and links the code below it once more.

mod golden_families;
mod golden_smollm2;
mod golden_tiny_llama;
