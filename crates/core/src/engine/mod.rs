//! The trainer: a machine of machines, each with a `step()` that does one bounded piece of work.
//! [`stages`] goes through the stages of a recipe. `model_stage` trains the whole model: [`step`]
//! is one optimizer step, [`trainer`] builds it from a model and a recipe. `block_stage` finishes
//! one block after the other: `layer_maker` solves or trains one ([`student`]), as a whole or linear
//! by linear (`linear_maker`), `passes` send the hidden states through it, [`blockwise`] is what all of them share.

pub mod arithmetic;
pub(crate) mod block_stage;
pub(crate) mod block_training;
pub mod blockwise;
pub mod calibrate;
pub mod checkpoint;
pub mod finished;
pub(crate) mod identity;
pub(crate) mod layer_maker;
pub(crate) mod linear_maker;
pub mod memory;
pub(crate) mod model_stage;
pub mod observe;
pub(crate) mod passes;
#[cfg(feature = "train")]
pub mod probe;
pub mod progress;
pub(crate) mod stage_inputs;
pub mod stages;
pub mod state;
pub mod step;
pub mod stream;
pub mod student;
pub mod trained;
pub mod trainer;

pub use progress::Progress;
pub use step::StepReport;
pub use trainer::Trainer;
