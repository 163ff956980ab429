//! A decoder described once, as data. Runtime, trainer and solvers interpret the graph and use
//! no names of models; the name of a family, and how its files describe the graph, is in one file
//! per family under `arch/`.

mod arch;
pub mod family;
mod graph;
mod sizes;
mod tensors;

pub use family::{Defaults, Family};
pub use graph::{
    ActivationSite, Architecture, Attention, FeedForward, Fold, Layer, Linear, LinearSpec, Norm,
    Producer, QkNorm, Rope,
};
pub use sizes::Sizes;
pub use tensors::{EMBEDDING, FINAL_NORM, HEAD, Role, TensorSpec};
