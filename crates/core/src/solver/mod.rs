//! Solvers: codes and channel scales of one linear layer from what its input looked like, without
//! gradients.
//!
//! Pure functions over slices. Legend: T tokens, O output features, I input features, G groups per
//! row; weights `[O, I]`, inputs `[T, I]`. Every result is the same for any number of threads. CPUs
//! of another kind may differ in the last bits of a product, and so in a code that is nearly a tie.

#[cfg(feature = "train")]
pub mod awq;
#[cfg(feature = "train")]
pub mod cholesky;
#[cfg(feature = "train")]
pub mod gptq;
#[cfg(feature = "train")]
mod matrix;
#[cfg(feature = "train")]
pub(crate) mod open_block;
pub mod rtn;

#[cfg(feature = "train")]
pub(crate) use matrix::{Part, check_finite, quadratic_errors};
