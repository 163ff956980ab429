//! The engine below its functions for users, also against the golden set. One program, since each
//! that names its generic types compiles all of it once more.

mod answers;
mod device;
mod every_field;
mod field_gradients;
mod golden_rounding;
mod golden_training;
mod linears;
mod random_model;
mod steps;
mod strict_device;
mod vector_gradients;
