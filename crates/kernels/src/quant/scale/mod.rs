//! Scales as stored. Every computation uses the stored scale, so that training, export and the
//! reader of the file agree.
//!
//! A codec is one file here and one line in the list below. The list makes the value that a
//! [`QuantSpec`](super::spec::QuantSpec) holds ([`ScaleCodec`]) and its TypeScript type.

use crate::Real;
use serde::{Deserialize, Serialize};

/// What a codec answers.
trait Codec {
    /// Bytes of a stored scale.
    const BYTES: usize;
    /// Smallest magnitude that a scale should have.
    const SMALLEST: f32;

    /// The scale as it will be read back.
    fn store(scale: f32) -> f32;
}

macro_rules! codecs {
    ($($(#[$doc:meta])* $module:ident $variant:ident),* $(,)?) => {
        $(mod $module;)*

        /// How a scale is stored. Arithmetic always uses the scale *as stored*.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "ts", derive(ts_rs::TS))]
        #[serde(rename_all = "camelCase")]
        pub enum ScaleCodec {
            $($(#[$doc])* $variant),*
        }

        impl ScaleCodec {
            pub const ALL: &[ScaleCodec] = &[$(ScaleCodec::$variant),*];

            /// The scale as it will be read back: what every computation uses. Keeps the sign.
            ///
            /// Zero (the scale of an all-zero group) stays zero. A scale past a codec's range
            /// becomes infinite, as IEEE rounding says, and makes the values not finite instead of
            /// clipping them unseen: a caller that can refuse asks [`ScaleCodec::holds`] first.
            #[inline]
            pub fn store(self, scale: f32) -> f32 {
                match self {
                    $(ScaleCodec::$variant => self::$module::$variant::store(scale)),*
                }
            }

            /// Bytes of a stored scale.
            pub const fn bytes(self) -> usize {
                match self {
                    $(ScaleCodec::$variant => self::$module::$variant::BYTES),*
                }
            }

            /// Smallest magnitude that a scale should have: below it the codec loses bits, or the
            /// scale is taken for that of a group of zeros.
            pub const fn smallest(self) -> f32 {
                match self {
                    $(ScaleCodec::$variant => self::$module::$variant::SMALLEST),*
                }
            }
        }
    };
}

codecs! {
    /// As f32.
    f32 F32,
    /// As f16, not below 2^-14.
    f16 F16,
}

pub use self::f16::{MIN_F16_SCALE, round_f16};

impl ScaleCodec {
    /// [`ScaleCodec::store`] for the reference operations; under F32 an f64 scale stays as it is.
    #[inline]
    pub fn store_real<T: Real>(self, scale: T) -> T {
        match self {
            ScaleCodec::F32 => scale,
            _ => T::from_f32(self.store(scale.to_f32())),
        }
    }

    /// Whether the codec can hold a scale of this size.
    pub fn holds(self, scale: f32) -> bool {
        self.store(scale).is_finite()
    }
}
