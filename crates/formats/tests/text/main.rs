//! Tokenizers and chat templates, sound and hostile.
//! Modules of one program, since each program compiles and links the code below it once more.

mod catastrophic_text;
mod hostile_template;
mod hostile_tokenizer;
mod template;
mod template_bundle;
mod thread_time;
mod tokenizer;
