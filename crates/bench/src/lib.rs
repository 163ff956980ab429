//! Benches of the kernels: each checks its answer before its time, and stands next to what the
//! machine could do in the same run.
//!
//! This library knows no peer; the program `halfstep-bench` (crates/peers) adds them
//! ([`case::Peers`]). The Node addon runs the [`Subset::Quick`] benches for `halfstep bench`. The
//! traps and the meaning of every column are in bench/README.md.

#![warn(missing_docs)]

mod adapter;
pub mod case;
mod elementwise;
pub mod linear;
mod loss;
pub mod machine;
mod measure;
pub mod numbers;
mod peak;
pub mod probe;
pub mod product;
mod quantize;
pub mod quick;

pub use case::{Bench, NoPeers, Peers, Row, Subset};

/// The kernel benches that `only` names (any part of `bench/case`; empty: all), in the order of the
/// results.
pub fn kernels(bench: &mut Bench) -> Result<(), String> {
    quantize::run(bench)?;
    elementwise::run(bench)?;
    linear::gemv(bench)?;
    linear::gemm(bench)?;
    product::run(bench)?;
    loss::run(bench)
}
