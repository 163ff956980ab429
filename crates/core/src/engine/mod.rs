//! The trainer. [`step`] is one optimizer step; [`trainer`] builds it from a model and a recipe;
//! [`stages`] is the loop with events and checkpoints. [`block_loop`] trains one block
//! ([`student`]) at a time.

pub mod arithmetic;
pub mod block;
pub mod block_loop;
pub(crate) mod block_training;
pub mod calibrate;
pub mod checkpoint;
pub mod finished;
pub mod memory;
pub mod observe;
pub mod probe;
pub mod stages;
pub mod step;
pub mod stream;
pub mod student;
pub mod trainer;
pub mod weights;

pub use step::StepReport;
pub use trainer::Trainer;
