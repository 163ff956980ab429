//! What a weight goes through before it is quantized, and its input before it is multiplied, so that
//! the product stays what it was: `x W^T = x' W'^T`.
//!
//! A transform is one file here and one line in the list below. The list makes the tagged value that
//! a recipe holds ([`TransformConfig`]), its TypeScript type and its names. A line `my_map
//! MyMap(MyMapConfig)` needs the file `my_map.rs` with a constant `TRAITS: TransformTraits` and a
//! type `MyMapConfig` that implements `Config`.
//!
//! Whatever a transform does, a file stores it as parts of the linear, `x' = R (h . x)`
//! ([`LinearParts`]), and the rows of the weight are `w' = R (w / h)` ([`transformed`]).

use crate::autograd::ops::input_map::{BlockHadamard, ScaleChannels};
use crate::autograd::parameter::Parameters;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, Number};
use crate::quantizer::builder::Builder;
use crate::{Error, Result};
use half::f16;
use halfstep_formats::LinearParts;
use halfstep_formats::architecture::TensorSpec;
use halfstep_formats::linear_parts::OnlineMap;
use halfstep_kernels::Pool;
use halfstep_kernels::ops::hadamard;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;
use ts_rs::TS;

macro_rules! transforms {
    ($($(#[$doc:meta])* $module:ident $variant:ident($config:ident)),* $(,)?) => {
        $(pub mod $module;)*

        /// A transform of a weight and its input, and its options.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
        #[serde(rename_all = "camelCase", tag = "kind")]
        pub enum TransformConfig {
            $($(#[$doc])* $variant($module::$config)),*
        }

        impl TransformConfig {
            /// What of it can learn.
            pub fn traits(&self) -> TransformTraits {
                match self {
                    $(TransformConfig::$variant(_) => $module::TRAITS),*
                }
            }

            /// Refuses options that cannot work for a weight of `cols` columns.
            ///
            /// Errors: the option's name, and the reason with what would work.
            pub fn check(&self, cols: usize) -> std::result::Result<(), (&'static str, String)> {
                match self {
                    $(TransformConfig::$variant(config) => config.check(cols)),*
                }
            }

            /// What it does to the input of a linear before anything has learned, as stored.
            pub fn first(&self, spec: &TensorSpec) -> LinearParts {
                match self {
                    $(TransformConfig::$variant(config) => config.first(spec)),*
                }
            }

            /// Registers the transform of one weight, whose values went through `parts` already.
            pub fn register<D: Device>(
                &self,
                builder: &mut Builder<D>,
                spec: &TensorSpec,
                parts: LinearParts,
            ) -> Result<Arc<dyn Transform<D>>> {
                match self {
                    $(TransformConfig::$variant(config) => config.register(builder, spec, parts)),*
                }
            }
        }
    };
}

transforms! {
    /// A Hadamard matrix with random signs mixes every block of input channels, so that no channel
    /// stands out; the runtime mixes the input alike (QuaRot, arXiv 2404.00456). Nothing of it
    /// learns.
    block_hadamard BlockHadamard(BlockHadamardConfig),
    /// A positive number for each input channel divides the weight and multiplies the input. It
    /// learns where the stage trains transforms (the scales of OmniQuant's LET, arXiv 2308.13137).
    channel_scale ChannelScale(ChannelScaleConfig),
}

/// What a transform can be combined with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformTraits {
    /// Whether something of it can learn, so that range and rounding must let the weight change.
    pub learns: bool,
}

/// The options of a transform.
trait Config {
    /// Refuses options that cannot work for a weight of `cols` columns: the option's name and why.
    fn check(&self, _cols: usize) -> std::result::Result<(), (&'static str, String)> {
        Ok(())
    }

    /// What it does to the input before anything has learned, as stored.
    fn first(&self, spec: &TensorSpec) -> LinearParts;

    /// The transform of one weight, whose values went through `parts` already.
    fn register<D: Device>(
        &self,
        builder: &mut Builder<D>,
        spec: &TensorSpec,
        parts: LinearParts,
    ) -> Result<Arc<dyn Transform<D>>>;
}

/// The transform of one weight.
pub trait Transform<D: Device>: Debug + Send + Sync {
    /// Whether something of it learns in this stage.
    fn learns(&self) -> bool {
        false
    }

    /// What is quantized, from the registered weight `[O, I]`; None: that weight itself.
    fn forward(&self, _parameters: &Parameters<D>, _w: &D::Buffer) -> Result<Option<D::Buffer>> {
        Ok(None)
    }

    /// From the gradient of what is quantized to that of the registered weight, in its place. Puts
    /// the gradients of its own parameters into their sinks.
    fn backward(
        &self,
        _parameters: &Parameters<D>,
        _w: &D::Buffer,
        _gradient: &mut D::Buffer,
    ) -> Result<()> {
        Ok(())
    }

    /// What the input goes through in this step.
    fn input(&self, parameters: &Parameters<D>) -> Result<InputMap<D>>;

    /// Exactly what [`Self::input`] does, as stored.
    fn pack(&self, parameters: &Parameters<D>) -> Result<LinearParts>;
}

/// What the input of a linear goes through before it is quantized: `x' = R (h . x)`.
#[derive(Clone)]
pub struct InputMap<D: Device> {
    /// h.
    pub(crate) vector: Option<ScaleChannels<D>>,
    /// R.
    pub(crate) map: Option<BlockHadamard>,
}

impl<D: Device> InputMap<D> {
    /// Of the parts of a linear with `cols` input channels.
    ///
    /// Errors: `Internal`, there are parts that no transform makes.
    pub fn stored(device: &D, parts: &LinearParts, cols: usize) -> Result<Self> {
        let (vector, map) = made_by_transforms(parts, cols)?;
        let vector = match vector {
            Some(h) => {
                let vector = Arc::new(device.upload(D::Number::from_f32s(h))?);
                Some(ScaleChannels { vector, sink: None })
            }
            None => None,
        };
        Ok(Self { vector, map })
    }

    /// A gradient of 0 for what of it learns.
    pub(crate) fn no_gradients(&self, device: &D) -> Result<()> {
        let sink = self.vector.as_ref().and_then(|vector| vector.sink.as_ref());
        sink.map_or(Ok(()), |sink| sink.add_zeros(device))
    }

    /// x' of x `[M, I]`.
    pub(crate) fn apply(&self, tape: &mut Tape<D>, x: &Tensor<D>) -> Result<Tensor<D>> {
        let mut x = x.clone();
        if let Some(vector) = &self.vector {
            x = tape.apply([&x], vector.clone())?;
        }
        match &self.map {
            Some(map) => tape.apply([&x], map.clone()),
            None => Ok(x),
        }
    }
}

/// h and R of parts that hold nothing else.
#[allow(clippy::type_complexity)]
fn made_by_transforms(
    parts: &LinearParts,
    cols: usize,
) -> Result<(Option<Vec<f32>>, Option<BlockHadamard>)> {
    let LinearParts { input_vector, online_map, .. } = parts;
    let known = LinearParts {
        input_vector: input_vector.clone(),
        online_map: *online_map,
        ..LinearParts::default()
    };
    if known != *parts {
        let reason = format!("{} of a linear that trains", parts.names().join(", "));
        return Err(Error::Internal { reason });
    }
    let widened = |h: &[f16]| h.iter().map(|h| h.to_f32()).collect();
    let map = online_map.map(|OnlineMap::BlockHadamard { size, signs }| {
        let drawn =
            |s: halfstep_formats::linear_parts::Signs| hadamard::signs(s.seed, s.stream, cols);
        let signs = signs.map_or_else(|| vec![1.0; cols], drawn);
        BlockHadamard { size, signs: signs.into() }
    });
    Ok((input_vector.as_deref().map(widened), map))
}

/// A weight `[O, I]`, I being `cols`, as its codes have to give it under the parts: every row is `w' =
/// R (w / h)`.
///
/// Errors: `Internal`, there are parts that no transform makes.
pub fn transformed(
    pool: &Pool,
    parts: &LinearParts,
    mut values: Vec<f32>,
    cols: usize,
) -> Result<Vec<f32>> {
    let (vector, map) = made_by_transforms(parts, cols)?;
    if let Some(h) = vector {
        pool.parts(values.chunks_mut(cols).collect(), |_, row: &mut [f32]| {
            row.iter_mut().zip(&h).for_each(|(w, h)| *w /= h)
        });
    }
    if let Some(BlockHadamard { size, signs }) = map {
        hadamard::block_hadamard(pool, &mut values, &signs, size);
    }
    Ok(values)
}
