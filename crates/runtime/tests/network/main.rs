//! The forward pass and what is asked of it. The tests of `prefill.rs` change the instruction-set
//! level of their process, and stay alone.

#[path = "../models/mod.rs"]
mod models;

mod arithmetic;
mod lengths;
mod naive;
mod requests;
