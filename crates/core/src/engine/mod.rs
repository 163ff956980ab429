//! The trainer: a machine of machines, each with a `step()` that does one bounded piece of work.
//! [`stages`] goes through the stages of a recipe. `model_stage` trains the whole model: `step`
//! is one optimizer step, `trainer` builds it from a model and a recipe. `block_start` prepares the
//! layers of a stage, `block_stage` finishes one block after the other: `layer_maker` solves or
//! trains one ([`student`]), as a whole or linear by linear (`linear_maker`), `passes` send the
//! hidden states through it, `blockwise` is what all of them share. What layers read of earlier ones
//! is in `side_streams`, its gradients in `side_gradients`.

pub mod arithmetic;
pub(crate) mod block_stage;
pub(crate) mod block_start;
pub(crate) mod block_training;
pub(crate) mod blockwise;
pub(crate) mod calibrate;
pub mod checkpoint;
pub(crate) mod finished;
pub(crate) mod identity;
pub(crate) mod layer_maker;
pub(crate) mod linear_maker;
pub(crate) mod memory;
pub(crate) mod model_stage;
pub(crate) mod observe;
pub(crate) mod passes;
#[cfg(feature = "train")]
pub(crate) mod probe;
pub(crate) mod progress;
pub(crate) mod run_folder;
pub(crate) mod side_gradients;
pub(crate) mod side_streams;
pub(crate) mod stage_inputs;
pub mod stages;
pub mod state;
pub(crate) mod step;
pub mod stream;
pub mod student;
pub(crate) mod trained;
pub(crate) mod trainer;

pub use progress::Progress;
pub use step::StepReport;
pub use trainer::Trainer;
