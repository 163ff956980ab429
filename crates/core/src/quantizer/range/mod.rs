//! How the scales and zero points of a weight come about in each step, and what of them learns.
//!
//! A range is one file here and one line in the list below. The list makes the value that a recipe
//! holds ([`RangeConfig`]), its TypeScript type and its names. A line `my_rule MyRule` needs the
//! file `my_rule.rs` with a constant `TRAITS: RangeTraits` and a type `MyRule` that has a function
//! `register` like that of [`RangeConfig`] and implements [`Range`].

use super::builder::{Beginning, Builder};
use crate::autograd::ops::Number;
use crate::autograd::parameter::Parameters;
use halfstep_kernels::{Pool, QuantSpec, Real, ScaleCodec};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;
use ts_rs::TS;

pub mod stored;

macro_rules! ranges {
    ($($(#[$doc:meta])* $module:ident $variant:ident),* $(,)?) => {
        $(mod $module;)*

        /// How scales and zero points come about in each step, and what of them learns.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
        #[serde(rename_all = "camelCase")]
        pub enum RangeConfig {
            $($(#[$doc])* $variant),*
        }

        impl RangeConfig {
            pub const ALL: &[RangeConfig] = &[$(RangeConfig::$variant),*];

            /// What of a weight can learn under this range, and which grids it fits.
            pub fn traits(self) -> RangeTraits {
                match self {
                    $(RangeConfig::$variant => $module::TRAITS),*
                }
            }

            /// Registers the range of one matrix: what learns becomes a parameter.
            pub fn register<T: Number>(
                self,
                builder: &mut Builder<T>,
                beginning: &Beginning,
            ) -> Arc<dyn Range<T>> {
                match self {
                    $(RangeConfig::$variant => {
                        Arc::new($module::$variant::register(builder, beginning))
                    }),*
                }
            }
        }
    };
}

ranges! {
    /// Scales and zero points stay where they begin.
    #[default]
    frozen Frozen,
    /// Found anew from the weights in every step, as the largest magnitude (or minimum and maximum)
    /// of each group, whatever the observer is. Nothing is ever clipped, so the gradient goes
    /// straight through.
    absmax Absmax,
    /// The scale learns (LSQ, arXiv 1902.08153); a zero point stays where it begins.
    scale Scale,
    /// A number for each end of a group's range shrinks it (LWC, arXiv 2308.13137). The weights are
    /// frozen. The clips begin open under the observer `absmax`, under every other one where the
    /// shrunken range has the least squared error.
    clip Clip,
    /// The scale learns, and the zero point on a grid that has one (Block-AP of EfficientQAT, arXiv
    /// 2407.11062).
    scale_zero ScaleZero,
}

/// What a range can be combined with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeTraits {
    /// Whether scales of it learn at all.
    pub learns: bool,
    /// Whether the weights may learn with it.
    pub weights_may_learn: bool,
    /// Whether it begins with the scales of the observer, instead of finding its own.
    pub reads_observer: bool,
    /// Whether it divides the gradient of its scales as the site says.
    pub reads_gradient_scale: bool,
}

/// Scales as stored, and zero points (none on a grid without), of every group of a matrix.
#[derive(Clone, Debug)]
pub struct Ranges<T> {
    pub scales: Vec<T>,
    pub zero_points: Vec<T>,
}

impl<T: Number> Ranges<T> {
    pub fn from_packed(scales: Vec<f32>, zero_points: Vec<u8>) -> Self {
        let zero_points = zero_points.into_iter().map(|z| <T as Real>::from_f32(z.into()));
        Self { scales: T::from_f32s(scales), zero_points: zero_points.collect() }
    }

    /// In the types of the packed runtime.
    pub fn packed(&self) -> (Vec<f32>, Vec<u8>) {
        let zero_points = self.zero_points.iter().map(|&z| Real::to_f32(z) as u8).collect();
        (T::to_f32s(&self.scales).into_owned(), zero_points)
    }
}

/// The range of one matrix.
pub trait Range<T: Number>: Debug + Send + Sync {
    /// Scales and zero points of this step, for the weight `w`.
    fn ranges(&self, parameters: &Parameters<T>, pool: &Pool, w: &[T]) -> Ranges<T>;

    /// Whether a weight may lie outside of it; where none does, the gradient of the weight goes
    /// straight through.
    fn clips(&self) -> bool {
        true
    }

    /// Whether it wants the gradient of scales and zero points.
    fn learns(&self) -> bool {
        false
    }

    /// Adds the gradients of what learns to its sinks, from those of the ranges as stored.
    fn backward(&self, _parameters: &Parameters<T>, _gradients: &Ranges<T>) {}

    /// For each scale that learns, whether it is negative: an update must not change that.
    fn signs(&self, _parameters: &Parameters<T>) -> Vec<bool> {
        vec![]
    }

    /// Moves what an update made illegal back to the nearest legal value.
    fn guard(&self, _parameters: &mut Parameters<T>, _signs: &[bool]) {}
}

/// A learned scale as stored: on a grid with zero points within the bounds of EfficientQAT's code.
fn stored_scale<T: Number>(scale: T, quantizer: QuantSpec) -> T {
    if !quantizer.has_zero_point() {
        return quantizer.scale.store_real(scale);
    }
    let [least, most] = [1e-4, 1e4].map(<T as Real>::from_f64);
    quantizer.scale.store_real(scale.maximum(least).minimum(most))
}

/// A learned zero point as stored: one of the codes.
fn stored_zero_point<T: Number>(zero_point: T, quantizer: QuantSpec) -> T {
    let most = <T as Real>::from_f64(f64::from(quantizer.max_code()));
    Real::round(zero_point.maximum(<T as Real>::ZERO).minimum(most))
}

fn negative<T: Number>(scales: &[T]) -> Vec<bool> {
    scales.iter().map(|scale| *scale < <T as Real>::ZERO).collect()
}

/// Keeps learned scales away from 0, each on its own side.
fn keep_away_from_zero<T: Number>(scales: &mut [T], negative: &[bool], codec: ScaleCodec) {
    let least = <T as Real>::from_f32(codec.smallest());
    for (scale, &negative) in scales.iter_mut().zip(negative) {
        let magnitude = if negative { -*scale } else { *scale };
        if magnitude < least {
            *scale = if negative { -least } else { least };
        }
    }
}
