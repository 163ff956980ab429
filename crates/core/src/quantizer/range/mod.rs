//! How the scales and zero points of a weight come about in each step, and what of them learns.
//!
//! A range is one file here and one line in the list below. The list makes the value that a recipe
//! holds ([`RangeConfig`]), its TypeScript type and its names. A line `my_rule MyRule` needs the
//! file `my_rule.rs` with a constant `TRAITS: RangeTraits` and a type `MyRule` that has a function
//! `register` like that of [`RangeConfig`] and implements `Range`.

use super::builder::{Beginning, Builder};
use crate::Result;
use crate::autograd::parameter::Parameters;
use crate::device::{Device, Number};
use halfstep_kernels::{QuantSpec, Real, ScaleCodec};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;
use ts_rs::TS;

pub(crate) mod stored;

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
            /// Every range, in the order of the list.
            pub const ALL: &[RangeConfig] = &[$(RangeConfig::$variant),*];

            /// What of a weight can learn under this range, and which grids it fits.
            pub fn traits(self) -> RangeTraits {
                match self {
                    $(RangeConfig::$variant => $module::TRAITS),*
                }
            }

            /// Registers the range of one matrix: what learns becomes a parameter.
            pub(crate) fn register<D: Device>(
                self,
                builder: &mut Builder<D>,
                beginning: &Beginning,
            ) -> Result<Arc<dyn Range<D>>> {
                Ok(match self {
                    $(RangeConfig::$variant => {
                        Arc::new($module::$variant::register(builder, beginning)?)
                    }),*
                })
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
    /// Whether it divides the gradient of its scales by the gradient scale of the site.
    pub reads_gradient_scale: bool,
}

/// Scales as stored, and zero points (None on a grid without), of every group of a matrix. Cloning
/// shares them.
#[derive(Debug)]
pub struct Ranges<D: Device> {
    /// One scale for every group.
    pub scales: Arc<D::Buffer>,
    /// One zero point for every group; None on a grid without.
    pub zero_points: Option<Arc<D::Buffer>>,
}

impl<D: Device> Clone for Ranges<D> {
    fn clone(&self) -> Self {
        Self { scales: self.scales.clone(), zero_points: self.zero_points.clone() }
    }
}

impl<D: Device> Ranges<D> {
    /// Uploads scales and zero points; an empty list of zero points stands for a grid without.
    pub(crate) fn from_packed(device: &D, scales: Vec<f32>, zero_points: Vec<u8>) -> Result<Self> {
        let scales = device.upload(D::Number::from_f32s(scales))?;
        Ok(Self { scales: Arc::new(scales), zero_points: uploaded(device, zero_points)? })
    }

    /// Reads both to the host, in the types of the packed runtime.
    pub(crate) fn packed(&self, device: &D) -> Result<(Vec<f32>, Vec<u8>)> {
        let scales = D::Number::to_f32s(&device.read(&self.scales)?).into_owned();
        let zero_points = match &self.zero_points {
            Some(z) => device.read(z)?.iter().map(|&z| Real::to_f32(z) as u8).collect(),
            None => vec![],
        };
        Ok((scales, zero_points))
    }
}

/// Zero points on the device; None if there are none.
fn uploaded<D: Device>(device: &D, zero_points: Vec<u8>) -> Result<Option<Arc<D::Buffer>>> {
    if zero_points.is_empty() {
        return Ok(None);
    }
    device.upload(numbers(zero_points)).map(Arc::new).map(Some)
}

/// Zero points as numbers of the trainer.
fn numbers<T: Number>(zero_points: Vec<u8>) -> Vec<T> {
    zero_points.into_iter().map(|z| <T as Real>::from_f32(z.into())).collect()
}

/// The gradients of scales and zero points.
#[derive(Debug)]
pub struct RangeGradients<B> {
    /// One number for every scale.
    pub scales: B,
    /// One number for every zero point; None on a grid without.
    pub zero_points: Option<B>,
}

/// The range of one matrix.
pub(crate) trait Range<D: Device>: Debug + Send + Sync {
    /// Scales and zero points of this step, for the weight `w`.
    fn ranges(&self, parameters: &Parameters<D>, w: &D::Buffer) -> Result<Ranges<D>>;

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
    fn backward(
        &self,
        _parameters: &Parameters<D>,
        _gradients: RangeGradients<D::Buffer>,
    ) -> Result<()> {
        Ok(())
    }

    /// Learned scales that an update must leave on their side of 0: their index among the
    /// parameters, and what stores them.
    fn signed_scales(&self) -> Option<(usize, ScaleCodec)> {
        None
    }
}

/// Bounds of learned scales on a grid with zero points, as in EfficientQAT's code; elsewhere there
/// are none.
fn bounds(quantizer: QuantSpec) -> Option<[f64; 2]> {
    quantizer.has_zero_point().then_some([1e-4, 1e4])
}
