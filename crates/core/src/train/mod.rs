//! The trainer. [`step`] is one optimizer step; [`trainer`] builds it from a model and a recipe; [`run`] is the loop with events and checkpoints.

pub mod arithmetic;
pub mod block;
pub mod calibrate;
pub mod checkpoint;
pub mod loss;
pub mod memory;
pub mod optimizer;
pub mod parameter;
pub mod run;
pub mod step;
pub mod tape;
pub mod trainer;
pub mod weights;

pub use step::StepReport;
pub use trainer::Trainer;
