//! Scales as f16 of at most seven significant bits, 2^-14 to 4352: seven bits and the four of a
//! code are the eleven of an f16, so the product of such a scale and any whole number to 15 is an
//! f16 number too.
//!
//! ggml's types with a minimum next to the scale (Q4_1: value = c * d + m, both f16) so hold a zero
//! point without loss: m = -z * d.

use super::Codec;
use super::f16::{F16, MIN_F16_SCALE};

pub(super) struct F16Short;

/// Largest number of seven significant bits whose product with 15 is an f16 number.
const LARGEST: f32 = 4352.0;
/// Bits of the mantissa of an f32 that are rounded away: 24 significant ones less 7.
const DROPPED: u32 = 17;

impl Codec for F16Short {
    const BYTES: usize = 2;
    const SMALLEST: f32 = MIN_F16_SCALE;
    const HAS_ZERO: bool = true;

    #[inline(always)]
    fn store(scale: f32) -> f32 {
        if scale == 0.0 || scale.is_nan() {
            return scale;
        }
        // To the nearest, ties to the even mantissa; the guard is a power of two and stays.
        let bits = scale.abs().max(MIN_F16_SCALE).to_bits();
        let half = (1 << (DROPPED - 1)) - 1 + (bits >> DROPPED & 1);
        let rounded = f32::from_bits((bits + half) >> DROPPED << DROPPED);
        (if rounded > LARGEST { f32::INFINITY } else { rounded }).copysign(scale)
    }

    /// Of the stored scale, so that another one does not come back.
    fn encode(scale: f32, out: &mut Vec<u8>) {
        F16::encode(Self::store(scale), out);
    }

    fn decode(bytes: &[u8]) -> f32 {
        F16::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScaleCodec;
    use half::f16;

    const CODEC: ScaleCodec = ScaleCodec::F16Short;

    /// All of the codec, in ascending order.
    fn all() -> Vec<f32> {
        let halves = (0..f16::INFINITY.to_bits()).map(|bits| f16::from_bits(bits).to_f32());
        halves.filter(|&scale| CODEC.store(scale) == scale && scale > 0.0).collect()
    }

    #[test]
    fn its_multiples_by_codes_are_halves() {
        let all = all();
        // Powers of two from -14 to 11, 64 numbers from each to the next, and 4096 to 4352.
        assert_eq!(all.len(), 26 * 64 + 5);
        assert_eq!((all[0], all[all.len() - 1]), (MIN_F16_SCALE, LARGEST));
        for scale in all {
            for code in 0..16 {
                let multiple = code as f32 * scale;
                assert_eq!(f16::from_f32(multiple).to_f32(), multiple, "{code} * {scale:e}");
            }
        }
    }

    #[test]
    fn it_stores_the_nearest_and_the_even_of_two() {
        for (i, pair) in all().windows(2).enumerate() {
            let (low, high) = (pair[0], pair[1]);
            let (middle, even) = ((low + high) / 2.0, if i % 2 == 0 { low } else { high });
            for (scale, want) in
                [(low, low), (middle, even), (middle.next_down(), low), (middle.next_up(), high)]
            {
                assert_eq!((CODEC.store(scale), CODEC.store(-scale)), (want, -want), "{scale:e}");
            }
        }
    }

    #[test]
    fn its_ends_are_a_guard_and_infinity() {
        assert_eq!((CODEC.store(1e-9), CODEC.store(-1e-9)), (MIN_F16_SCALE, -MIN_F16_SCALE));
        assert_eq!((CODEC.store(0.0).to_bits(), CODEC.store(-0.0f32).to_bits()), (0, 1 << 31));
        assert_eq!((CODEC.store(4383.0), CODEC.store(4385.0)), (4352.0, f32::INFINITY));
        assert_eq!(CODEC.store(f32::MAX), f32::INFINITY);
        assert_eq!(CODEC.store(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert!(CODEC.store(f32::NAN).is_nan());
    }

    #[test]
    fn a_scale_of_more_bits_is_not_encoded() {
        assert_eq!(CODEC.encode(&[1.0, 1.0 + 1.0 / 128.0], &[], 1), Err(1));
        let all = all();
        let bytes = CODEC.encode(&all, &[], 1).expect("its own numbers");
        assert_eq!(CODEC.decode(&bytes, &[], 1), all);
    }
}
