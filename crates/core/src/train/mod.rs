//! The trainer. [`step`] is one optimizer step; [`trainer`] builds it from a model and a recipe;
//! [`run`] is the loop with events and checkpoints. [`blockwise`] trains one block ([`student`]) at
//! a time.

pub mod arithmetic;
mod awq;
pub mod block;
mod block_training;
pub mod blockwise;
pub mod calibrate;
pub mod checkpoint;
pub mod finished;
mod gptq;
pub mod loss;
pub mod low_rank;
pub mod memory;
pub mod observe;
mod open_block;
pub mod optimizer;
pub mod parameter;
pub mod probe;
pub mod run;
pub mod saliency;
pub mod self_generated;
pub mod step;
pub mod stream;
pub mod student;
pub mod tape;
pub mod trainer;
pub mod weights;

pub use step::StepReport;
pub use trainer::Trainer;
