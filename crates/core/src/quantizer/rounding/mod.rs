//! Which code a weight gets under the ranges of a step, and where the gradient of its value goes.
//!
//! A rounding is one file here and one line in the list below. The list makes the value that a
//! recipe holds ([`RoundingConfig`]), its TypeScript type and its names. A line `my_rule MyRule`
//! needs the file `my_rule.rs` with a constant `TRAITS: RoundingTraits` and a type `MyRule` that
//! has a function `register` like that of [`RoundingConfig`] and implements [`Rounding`].
//!
//! Only stages that train ask a rounding: solvers choose codes by themselves, and a recipe without
//! stages rounds to nearest; another rounding is refused there.

use super::builder::{Beginning, Builder};
use super::range::{RangeGradients, Ranges};
use crate::Result;
use crate::autograd::parameter::Parameters;
use crate::device::{Device, Grid};
use halfstep_kernels::QuantSpec;
use halfstep_kernels::quant::tensor::QuantTensor;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;
use ts_rs::TS;

pub(crate) mod stored;

macro_rules! roundings {
    ($($(#[$doc:meta])* $module:ident $variant:ident),* $(,)?) => {
        $(pub mod $module;)*

        /// Which code a weight gets.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
        #[serde(rename_all = "camelCase")]
        pub enum RoundingConfig {
            $($(#[$doc])* $variant),*
        }

        impl RoundingConfig {
            /// Every rounding, in the order of the list.
            pub const ALL: &[RoundingConfig] = &[$(RoundingConfig::$variant),*];

            /// What it can be combined with.
            pub fn traits(self) -> RoundingTraits {
                match self {
                    $(RoundingConfig::$variant => $module::TRAITS),*
                }
            }

            /// Registers the rounding of one matrix: what learns becomes a parameter. `ranges` are
            /// those of the first step.
            pub fn register<D: Device>(
                self,
                builder: &mut Builder<D>,
                beginning: &Beginning,
                ranges: &Ranges<D>,
            ) -> Result<Arc<dyn Rounding<D>>> {
                Ok(match self {
                    $(RoundingConfig::$variant => {
                        Arc::new($module::$variant::register(builder, beginning, ranges)?)
                    }),*
                })
            }
        }
    };
}

roundings! {
    /// To the nearest code, ties to the even one.
    #[default]
    nearest Nearest,
    /// Down or up, whichever is learned (AdaRound, arXiv 2004.10568). Weights and ranges are frozen.
    ada_round AdaRound,
}

/// What a rounding can be combined with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundingTraits {
    /// Whether it has something of its own that can learn.
    pub learns: bool,
    /// Whether the weights may learn under it.
    pub weights_may_learn: bool,
    /// Whether scales and zero points may learn under it.
    pub ranges_may_learn: bool,
}

/// A matrix in one step: its weight, its grid, and the parameters that its parts registered.
pub struct MatrixView<'a, D: Device> {
    /// The weight `[rows, cols]`.
    pub w: &'a D::Buffer,
    /// Number of rows, O.
    pub rows: usize,
    /// Number of columns, I.
    pub cols: usize,
    /// The grid.
    pub quantizer: QuantSpec,
    /// The parameters of the model or layer, those of the matrix among them.
    pub parameters: &'a Parameters<D>,
}

impl<D: Device> Clone for MatrixView<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Device> Copy for MatrixView<'_, D> {}

impl<'a, D: Device> MatrixView<'a, D> {
    /// The device that holds the matrix.
    pub(crate) fn device(&self) -> &'a D {
        &self.parameters.device
    }

    /// The value of a parameter that a part registered.
    pub(crate) fn value(&self, index: usize) -> &'a D::Buffer {
        &self.parameters.list[index].value
    }

    /// The matrix under the ranges of this step.
    pub(crate) fn grid<'r>(&self, ranges: &'r Ranges<D>) -> Grid<'r, D::Buffer> {
        Grid {
            spec: self.quantizer,
            rows: self.rows,
            cols: self.cols,
            scales: &ranges.scales,
            zero_points: ranges.zero_points.as_deref(),
        }
    }
}

/// The rounding of one matrix.
///
/// Each method may be called any number of times in a step, and all must agree on the code of every
/// weight: what is stored is compared with what the forward used. So a code depends on the
/// arguments and on what was registered, not on the number of calls or steps. Where a scale is 0,
/// the values are 0; a scale may be negative.
pub trait Rounding<D: Device>: Debug + Send + Sync {
    /// The values of the codes `[rows, cols]`: (code - zero point) * scale.
    fn forward(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<D::Buffer>;

    /// Replaces dL/dWq in `gradient` by dL/dW, which is not read where the weight is frozen
    /// (`weight_learns` false). Returns the gradients of scales and zero points, each as
    /// many as `ranges` has, and adds those of its own parameters to their sinks. Not called where
    /// nothing but the weight learns under a range that clips nothing: the gradient then goes
    /// straight through.
    fn backward(
        &self,
        step: MatrixView<D>,
        ranges: &Ranges<D>,
        gradient: &mut D::Buffer,
        weight_learns: bool,
    ) -> Result<RangeGradients<D::Buffer>>;

    /// The codes of [`Self::forward`], as they are stored: on the host.
    fn pack(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<QuantTensor>;

    /// The codes of [`Self::forward`], as the packed runtime multiplies with them.
    fn packed_weight(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<D::Weight> {
        step.device().packed_weight(&self.pack(step, ranges)?)
    }

    /// Whether a code follows from the weight, so that weights outside the grid can be counted.
    fn follows_weights(&self) -> bool {
        true
    }

    /// Whether something of the rounding itself learns in this stage: it can
    /// ([`RoundingTraits::learns`]), and the stage trains it.
    fn learns(&self) -> bool {
        false
    }

    /// Whether the forward may use values between two codes, so that it cannot be the packed
    /// runtime's.
    fn is_soft(&self) -> bool {
        false
    }

    /// Adds the gradient of a term that draws values to the codes; returns the term. `progress`: the
    /// share of the stage's steps that are done.
    fn regularise(&self, _parameters: &Parameters<D>, _rows: usize, _progress: f64) -> Result<f64> {
        Ok(0.0)
    }

    /// Chooses a code for every value, before the matrix is packed.
    fn settle(&self, _parameters: &mut Parameters<D>) -> Result<()> {
        Ok(())
    }
}
