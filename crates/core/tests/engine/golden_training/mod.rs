//! Training against the golden numbers of a whole small model.

mod saliency;
mod tiny_llama;
mod traces;
