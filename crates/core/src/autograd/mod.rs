//! Operations with a forward and a backward, the tape that records them, and the parameters that
//! their gradients reach.

pub(crate) mod ops;
pub mod parameter;
pub mod tape;
pub mod tensor;
