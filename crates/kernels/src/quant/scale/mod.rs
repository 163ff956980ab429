//! Scales as stored. Every computation uses the stored scale, so that training, export and the
//! reader of the file agree.
//!
//! A codec is one file here and one line in the list below. The list makes the value that a
//! [`QuantSpec`](super::spec::QuantSpec) holds ([`ScaleCodec`]) and its TypeScript type.

use crate::Real;
use serde::{Deserialize, Serialize};

/// What a codec of single scales answers.
trait Codec {
    /// Bytes of a stored scale.
    const BYTES: usize;
    /// Smallest magnitude that a scale should have.
    const SMALLEST: f32;
    /// Whether it holds 0, the scale of a group of zeros.
    const HAS_ZERO: bool;

    /// The scale as it will be read back.
    fn store(scale: f32) -> f32;

    /// Appends the bytes of a scale as it was stored.
    fn encode(scale: f32, out: &mut Vec<u8>);

    /// The scale of so many bytes.
    fn decode(bytes: &[u8]) -> f32;
}

macro_rules! codecs {
    ($($(#[$doc:meta])* $module:ident $variant:ident),* $(,)?) => {
        $(mod $module;)*
        pub mod nested;

        /// How a scale is stored. Arithmetic always uses the scale *as stored*.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "ts", derive(ts_rs::TS))]
        #[serde(rename_all = "lowercase")]
        pub enum ScaleCodec {
            $($(#[$doc])* $variant,)*
            /// A quantized scale with a scale of its own.
            Nested(Nested),
        }

        impl ScaleCodec {
            /// The codecs of single scales.
            pub const ALL: &[ScaleCodec] = &[$(ScaleCodec::$variant),*];

            /// The scale as it will be read back: what every computation uses. A nested scale
            /// depends on others ([`ScaleCodec::store_all`]) and is returned as it is.
            ///
            /// Zero (the scale of an all-zero group) stays zero where the codec has one. A scale
            /// past a codec's range becomes infinite, as IEEE rounding says, and makes the values
            /// not finite instead of clipping them unseen: a caller that can refuse asks
            /// [`ScaleCodec::holds`] first.
            #[inline]
            pub fn store(self, scale: f32) -> f32 {
                match self {
                    $(ScaleCodec::$variant => self::$module::$variant::store(scale),)*
                    ScaleCodec::Nested(_) => scale,
                }
            }

            /// Bytes of a stored scale, without those of outer scales.
            pub const fn bytes(self) -> usize {
                match self {
                    $(ScaleCodec::$variant => self::$module::$variant::BYTES,)*
                    ScaleCodec::Nested(_) => 1,
                }
            }

            /// Smallest magnitude that a scale should have: below it the codec loses bits, or the
            /// scale is taken for that of a group of zeros.
            pub const fn smallest(self) -> f32 {
                match self {
                    $(ScaleCodec::$variant => self::$module::$variant::SMALLEST,)*
                    ScaleCodec::Nested(_) => f32::MIN_POSITIVE,
                }
            }

            /// Whether it holds 0, the scale of a group of zeros.
            pub const fn has_zero(self) -> bool {
                match self {
                    $(ScaleCodec::$variant => self::$module::$variant::HAS_ZERO,)*
                    ScaleCodec::Nested(_) => true,
                }
            }

            /// The bytes of scales as they were stored, without those of `outer` ones. `per_row`:
            /// scales of a row.
            ///
            /// Errors: the index of a scale that the codec does not hold.
            pub fn encode(
                self,
                scales: &[f32],
                outer: &[f32],
                per_row: usize,
            ) -> Result<Vec<u8>, usize> {
                let mut bytes = Vec::with_capacity(scales.len() * self.bytes());
                match self {
                    $(ScaleCodec::$variant => scales.iter().for_each(|&scale| {
                        self::$module::$variant::encode(scale, &mut bytes);
                    }),)*
                    ScaleCodec::Nested(nested) => return nested.encode(scales, outer, per_row),
                }
                let back = self.decode(&bytes, outer, per_row);
                let other = |(back, scale): (&f32, &f32)| back.to_bits() != scale.to_bits();
                back.iter().zip(scales).position(other).map_or(Ok(bytes), Err)
            }

            /// The scales of the bytes that [`ScaleCodec::encode`] makes.
            pub fn decode(self, bytes: &[u8], outer: &[f32], per_row: usize) -> Vec<f32> {
                match self {
                    $(ScaleCodec::$variant => bytes
                        .chunks_exact(self.bytes())
                        .map(self::$module::$variant::decode)
                        .collect(),)*
                    ScaleCodec::Nested(nested) => nested.decode(bytes, outer, per_row),
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
    /// As f16 of at most 7 significant bits, 2^-14 to 4352, so that f16 also holds its products
    /// with codes of 4 bits.
    f16_short F16Short,
    /// A power of two, rounded up, in one byte.
    e8m0 E8M0,
    /// A float of one byte, four bits of it exponent, at most 448.
    e4m3 E4M3,
}

pub use self::e4m3::{MAX_E4M3, nearest_e4m3};
pub use self::f16::{MIN_F16_SCALE, round_f16};
pub use nested::Nested;

impl ScaleCodec {
    /// [`ScaleCodec::store`] for the reference operations; under F32 an f64 scale stays as it is.
    #[inline]
    pub fn store_real<T: Real>(self, scale: T) -> T {
        match self {
            ScaleCodec::F32 => scale,
            _ => T::from_f32(self.store(scale.to_f32())),
        }
    }

    /// Whether a scale is stored with a scale of its own.
    pub const fn is_nested(self) -> bool {
        matches!(self, ScaleCodec::Nested(_))
    }

    /// Stores the scales of a whole matrix, `per_row` of a row, in place; returns the outer scales
    /// of nested ones, else none.
    pub fn store_all(self, scales: &mut [f32], per_row: usize) -> Vec<f32> {
        if let ScaleCodec::Nested(nested) = self {
            return nested.store(scales, per_row);
        }
        scales.iter_mut().for_each(|scale| *scale = self.store(*scale));
        vec![]
    }

    /// How outer scales are stored, and their number. None: there are none.
    pub fn outer(self, scales: usize, per_row: usize) -> Option<(ScaleCodec, usize)> {
        let ScaleCodec::Nested(nested) = self else { return None };
        Some((nested.outer.codec(), nested.outer_scales(scales, per_row)))
    }

    /// Whether the codec can hold a scale of this size.
    pub fn holds(self, scale: f32) -> bool {
        self.store(scale).is_finite()
    }
}
