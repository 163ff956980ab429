//! Solvers: codes and channel scales of one linear layer from what its input looked like, without
//! gradients.
//!
//! Pure functions over slices. Legend: T tokens, O output features, I input features, G groups per
//! row; weights `[O, I]`, inputs `[T, I]`. Every result is the same for any number of threads. CPUs
//! of another kind may differ in the last bits of a product, and so in a code that is nearly a tie.

//! A solver is one file and one line in the list below. The list makes the tagged value that a
//! recipe holds ([`SolverConfig`]) and its names.

pub(crate) mod calibration;
pub(crate) mod cholesky;
mod matrix;
pub(crate) mod open_block;

pub(crate) use matrix::{Part, check_finite, quadratic_errors};

use crate::device::Device;
use crate::layer::finished::Finished;
use crate::solver::calibration::Calibration;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A method that finds the codes of a layer from what its linears read, without gradients.
pub(crate) trait Solver {
    /// Refuses options that cannot work.
    ///
    /// Errors: `Config`, naming the field.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The layer as it will be stored. What its linears read comes from the device; the solver's
    /// own arithmetic is that of the host.
    fn solve<D: Device<Number = f32>>(&self, layer: &mut dyn Calibration<D>) -> Result<Finished>;
}

/// A solver's error with the weight it is about.
pub(crate) fn named(e: Error, weight: &str) -> Error {
    match e {
        Error::Data { data, reason } => Error::Data { data: format!("{weight}: {data}"), reason },
        e => e,
    }
}

macro_rules! solvers {
    ($($(#[$doc:meta])* $module:ident $variant:ident($config:ident)),* $(,)?) => {
        $(pub mod $module;)*

        /// A solver and its options.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
        #[serde(rename_all = "camelCase", tag = "kind")]
        pub enum SolverConfig {
            $($(#[$doc])* $variant($module::$config)),*
        }

        impl SolverConfig {
            /// The layer as it will be stored.
            pub(crate) fn solve<D: Device<Number = f32>>(
                &self,
                layer: &mut dyn Calibration<D>,
            ) -> Result<Finished> {
                match self {
                    $(SolverConfig::$variant(config) => config.solve(layer)),*
                }
            }

            /// Refuses options that cannot work.
            ///
            /// Errors: `Config`, naming the field.
            pub fn check(&self) -> Result<()> {
                match self {
                    $(SolverConfig::$variant(config) => config.check()),*
                }
            }
        }
    };
}

solvers! {
    /// Columns are rounded one after the other; those still free make up for each error.
    gptq Gptq(GptqConfig),
    /// Channels that carry much are made larger before rounding, then ranges are clipped.
    awq Awq(AwqConfig),
    /// Each row by coordinate descent on the error of its outputs.
    comq Comq(ComqConfig),
}
