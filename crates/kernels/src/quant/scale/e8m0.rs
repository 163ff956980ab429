//! Powers of two, as the scales of the OCP microscaling formats: 2^-127 to 2^127 in one byte.
//!
//! A scale is rounded up to the next power, so that nothing more is clipped. There is neither a
//! sign nor a zero: codes are chosen under the stored scale, so that the sign of a negative one
//! goes to its codes, and a group of zeros has the least scale, 2^-127.

use super::Codec;

pub(super) struct E8M0;

/// 2^-127 is not a normal number of f32.
const LEAST: u32 = 0x0040_0000;

impl Codec for E8M0 {
    const BYTES: usize = 1;
    const SMALLEST: f32 = f32::MIN_POSITIVE;
    const HAS_ZERO: bool = false;

    fn store(scale: f32) -> f32 {
        let bits = scale.to_bits() & 0x7fff_ffff;
        if scale.is_nan() || bits <= LEAST {
            return if scale.is_nan() { scale } else { f32::from_bits(LEAST) };
        }
        // The exponent is one more unless the mantissa is 0; that of the largest gives infinity.
        f32::from_bits((bits + 0x007f_ffff) & 0x7f80_0000)
    }

    fn encode(scale: f32, out: &mut Vec<u8>) {
        let exponent = scale.to_bits() >> 23;
        out.push(if scale.is_finite() { exponent as u8 } else { u8::MAX });
    }

    fn decode(bytes: &[u8]) -> f32 {
        match bytes[0] {
            0 => f32::from_bits(LEAST),
            u8::MAX => f32::NAN,
            exponent => f32::from_bits(u32::from(exponent) << 23),
        }
    }
}
