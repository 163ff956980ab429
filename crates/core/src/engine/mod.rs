//! The trainer. [`step`] is one optimizer step; [`trainer`] builds it from a model and a recipe;
//! [`stages`] is the loop with events and checkpoints. [`block_loop`] trains one block
//! ([`student`]) at a time, [`blockwise`] is what all of them share.

pub mod arithmetic;
pub mod block_loop;
pub(crate) mod block_training;
pub mod blockwise;
pub mod calibrate;
pub mod checkpoint;
pub mod finished;
pub(crate) mod identity;
pub mod memory;
pub mod observe;
pub mod probe;
pub mod stages;
pub mod state;
pub mod step;
pub mod stream;
pub mod student;
pub mod trained;
pub mod trainer;

pub use step::StepReport;
pub use trainer::Trainer;
