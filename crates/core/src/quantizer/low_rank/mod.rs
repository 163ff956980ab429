//! Low-rank factors of a weight: a product `(alpha / r) B A` of few numbers that learns, and where it
//! is added.
//!
//! A position is one file here and one line in the list below. The list makes the value that a
//! recipe holds ([`LowRankPosition`]), its TypeScript type and its names. A line `my_place MyPlace`
//! needs the file `my_place.rs` with a constant `TRAITS: LowRankTraits` and a type `MyPlace` that
//! has a function `register` like that of [`LowRankPosition`] and implements [`LowRank`].

use crate::Result;
use crate::autograd::ops::Sink;
use crate::autograd::parameter::Parameters;
use crate::device::{Device, Number};
use crate::quantizer::builder::Builder;
use half::f16;
use halfstep_formats::LowRank as StoredLowRank;
use halfstep_formats::architecture::TensorSpec;
use halfstep_kernels::Real;
use halfstep_kernels::rng::Rng;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;
use ts_rs::TS;

/// Low-rank factors `A [rank, I]`, `B [O, rank]` of a quantized linear, whose product `(alpha / rank) B
/// A` is added outside of the quantizer or inside.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct LowRankConfig {
    /// Rank of the factors, 1 or more.
    pub rank: usize,
    /// The product of the factors is multiplied by alpha / rank; above 0.
    pub alpha: f64,
    /// Where the product is added.
    #[serde(default, skip_serializing_if = "LowRankPosition::is_default")]
    #[ts(optional, as = "Option<_>")]
    pub position: LowRankPosition,
}

impl LowRankConfig {
    /// Factors whose product is added to the output of the quantized weight.
    pub fn outside(rank: usize, alpha: f64) -> Self {
        Self { rank, alpha, position: LowRankPosition::Outside }
    }
}

macro_rules! positions {
    ($($(#[$doc:meta])* $module:ident $variant:ident),* $(,)?) => {
        $(mod $module;)*

        /// Where the product of low-rank factors is added.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
        #[serde(rename_all = "camelCase")]
        pub enum LowRankPosition {
            $($(#[$doc])* $variant),*
        }

        impl LowRankPosition {
            /// Every position.
            pub const ALL: &[LowRankPosition] = &[$(LowRankPosition::$variant),*];

            /// What such factors ask of a file and of the other parts.
            pub fn traits(self) -> LowRankTraits {
                match self {
                    $(LowRankPosition::$variant => $module::TRAITS),*
                }
            }

            /// Registers the factors of one weight.
            pub fn register<D: Device>(
                self,
                builder: &mut Builder<D>,
                beginning: &FirstFactors,
            ) -> Result<Arc<dyn LowRank<D>>> {
                Ok(match self {
                    $(LowRankPosition::$variant => {
                        Arc::new($module::$variant::register(builder, beginning)?)
                    }),*
                })
            }
        }
    };
}

positions! {
    /// To the output of the quantized weight; the factors are stored in addition to the codes, in
    /// f16: `y = x Wq^T + (alpha / rank) (x A^T) B^T` (LoRA, arXiv 2106.09685; ApiQ, arXiv 2402.05147).
    #[default]
    outside Outside,
    /// To the weight before it is quantized, so that a stage trains the codes through few numbers
    /// and stores nothing else: `Wq = quantize(W + (alpha / rank) B A)` (LR-QAT, arXiv 2406.06385;
    /// L4Q, arXiv 2402.04902).
    inside Inside,
}

impl LowRankPosition {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What factors of a position ask of a file and of the other parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowRankTraits {
    /// Whether they are stored in addition to the codes.
    pub is_stored: bool,
    /// Whether they change the weight that is quantized, so that range and rounding must let it
    /// change.
    pub changes_weight: bool,
}

/// What the factors of a weight begin from.
pub struct FirstFactors<'a> {
    /// The weight.
    pub spec: &'a TensorSpec,
    /// None: they are those of an earlier stage.
    pub config: Option<LowRankConfig>,
    /// Those that an earlier stage stored.
    pub stored: Option<&'a StoredLowRank>,
    /// Seed of the run.
    pub seed: u64,
    /// Tells the matrices of a model apart.
    pub number: u64,
}

/// The RNG stream of first factors; the matrix's number is added to it.
const FACTOR_STREAM: u64 = 2 << 32;

impl FirstFactors<'_> {
    /// A `[r, I]`, uniform in +-1/sqrt(I) (Kaiming, as the authors of ApiQ).
    fn first_a<T: Number>(&self, rank: usize) -> Vec<T> {
        let cols = self.spec.shape[1];
        let mut rng = Rng { seed: self.seed, stream: FACTOR_STREAM + self.number, counter: 0 };
        let bound = 1.0 / (cols as f64).sqrt();
        (0..rank * cols)
            .map(|_| <T as Real>::from_f64((2.0 * rng.next_f64() - 1.0) * bound))
            .collect()
    }
}

/// The factors of one weight.
pub trait LowRank<D: Device>: Debug + Send + Sync {
    /// Whether they learn through the gradient of the weight that is quantized.
    fn learns_by_weight(&self) -> bool {
        false
    }

    /// The weight `[O, I]` with the product added; None where it is not added there.
    fn inside(&self, _parameters: &Parameters<D>, _w: &D::Buffer) -> Result<Option<D::Buffer>> {
        Ok(None)
    }

    /// Puts the gradients of the factors into their sinks, from that of the weight of
    /// [`Self::inside`].
    fn inside_backward(&self, _parameters: &Parameters<D>, _dw: &D::Buffer) -> Result<()> {
        Ok(())
    }

    /// The factors as the forward of the layer uses them, which adds their product to the output;
    /// None where it does not.
    fn outside(&self, _parameters: &Parameters<D>) -> Result<Option<Factors<D>>> {
        Ok(None)
    }

    /// Where the gradients of both go in that forward; None if they do not learn.
    fn sinks(&self, _parameters: &Parameters<D>) -> Option<FactorSinks<D>> {
        None
    }

    /// Turns what those sinks hold into the gradients of the factors.
    fn outside_backward(&self, _parameters: &Parameters<D>) -> Result<()> {
        Ok(())
    }

    /// Exactly what the forward used; None where nothing is stored.
    fn pack(&self, _parameters: &Parameters<D>) -> Result<Option<StoredLowRank>> {
        Ok(None)
    }
}

/// Factors as one forward uses them.
#[derive(Clone)]
pub struct Factors<D: Device> {
    /// `[r, I]`.
    pub a: D::Weight,
    /// `[O, r]`, alpha / r included.
    pub b: D::Weight,
}

/// Where the gradients of both go.
#[derive(Clone)]
pub struct FactorSinks<D: Device> {
    /// Of A.
    pub a: Sink<D>,
    /// Of B.
    pub b: Sink<D>,
}

/// Factors of a file as a forward uses them.
pub(crate) fn factors<D: Device>(device: &D, stored: &StoredLowRank) -> Result<Factors<D>> {
    let cols = stored.a.len() / stored.rank;
    let weight = |of: &[f16], cols| device.weight(device.upload(numbers(of))?, cols);
    Ok(Factors { a: weight(&stored.a, cols)?, b: weight(&stored.b, stored.rank)? })
}

fn numbers<T: Number>(halves: &[f16]) -> Vec<T> {
    T::from_f32s(halves.iter().map(|v| v.to_f32()).collect())
}
