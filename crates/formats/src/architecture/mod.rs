//! A decoder described once, as data. Runtime, trainer and solvers interpret the graph and use
//! no names of models; the name of a family, and how its files describe the graph, is in one file
//! per family under `arch/`.

mod arch;
mod expert_totals;
pub mod family;
pub mod fields;
mod graph;
mod hybrid;
mod mixer;
mod numbers;
pub mod readers;
pub(crate) mod refused;
mod rope;
mod sites;
mod sizes;
pub mod storage;
mod tensors;

pub use expert_totals::ExpertTotals;
pub use family::Family;
pub use graph::{
    Activation, Architecture, Dense, Experts, FeedForward, Layer, LinearSpec, NormKind, NormPlaces,
    Normalization, PerLayerInput, Routing, Score,
};
pub use mixer::{Attention, Convolution, Decay, DeltaRule, HeadOrder, Mixer, QkNorm, Temper};
pub use rope::{LongScaling, Rope, RopeScaling, YarnScaling};
pub use sites::{ActivationSite, Fold, Producer};
pub use sizes::Sizes;
pub use tensors::{
    EMBEDDING, FINAL_NORM, FINAL_NORM_BIAS, HEAD, Linear, Norm, PER_LAYER_EMBEDDING,
    PER_LAYER_MODEL_PROJECTION, PER_LAYER_NORM, Parameter, Role, TensorSpec,
};
