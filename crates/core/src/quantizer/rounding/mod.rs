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
use super::range::Ranges;
use crate::autograd::ops::Number;
use crate::autograd::parameter::Parameters;
use halfstep_kernels::ops::linear::WeightPanels;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Pool, QuantSpec};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;
use ts_rs::TS;

pub mod stored;

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
            pub const ALL: &[RoundingConfig] = &[$(RoundingConfig::$variant),*];

            /// What it can be combined with.
            pub fn traits(self) -> RoundingTraits {
                match self {
                    $(RoundingConfig::$variant => $module::TRAITS),*
                }
            }

            /// Registers the rounding of one matrix: what learns becomes a parameter. `ranges` are
            /// those of the first step.
            pub fn register<T: Number>(
                self,
                builder: &mut Builder<T>,
                beginning: &Beginning,
                ranges: &Ranges<T>,
            ) -> Arc<dyn Rounding<T>> {
                match self {
                    $(RoundingConfig::$variant => {
                        Arc::new($module::$variant::register(builder, beginning, ranges))
                    }),*
                }
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

/// A matrix in one step: its weight, and the parameters that its parts registered.
#[derive(Clone, Copy)]
pub struct MatrixView<'a, T> {
    pub w: &'a [T],
    pub rows: usize,
    pub cols: usize,
    pub quantizer: QuantSpec,
    pub parameters: &'a Parameters<T>,
    pub pool: &'a Pool,
}

impl<'a, T> MatrixView<'a, T> {
    /// The value of a parameter that a part registered.
    pub fn value(&self, index: usize) -> &'a [T] {
        &self.parameters.list[index].value
    }
}

/// The rounding of one matrix.
///
/// Each method may be called any number of times in a step, and all must agree on the code of every
/// weight: what is stored is compared with what the forward used. So a code depends on the
/// arguments and on what was registered, not on the number of calls or steps. Where a scale is 0,
/// the values are 0; a scale may be negative.
pub trait Rounding<T: Number>: Debug + Send + Sync {
    /// The values of the codes `[rows, cols]`: (code - zero point) * scale.
    fn forward(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> Vec<T>;

    /// From dL/dWq in `gradient` to dL/dW in its place, which nobody reads where the weight is
    /// frozen (`weight_learns` false). Returns the gradients of scales and zero points, each as
    /// many as `ranges` has, and adds those of its own parameters to their sinks. Not called where
    /// nothing but the weight learns under a range that clips nothing: the gradient then goes
    /// straight through.
    fn backward(
        &self,
        step: MatrixView<T>,
        ranges: &Ranges<T>,
        gradient: &mut Vec<T>,
        weight_learns: bool,
    ) -> Ranges<T>;

    /// The codes of [`Self::forward`], as they are stored.
    fn pack(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> QuantTensor;

    /// The codes of [`Self::forward`], as the packed runtime multiplies with them.
    fn panels(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> WeightPanels {
        WeightPanels::new(step.pool, &self.pack(step, ranges))
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
    fn regularise(&self, _parameters: &Parameters<T>, _rows: usize, _progress: f64) -> f64 {
        0.0
    }

    /// Chooses a code for every value, before the matrix is packed.
    fn settle(&self, _parameters: &mut Parameters<T>) {}
}
