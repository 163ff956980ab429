//! Scales as f16, away from its subnormal numbers, which lose bits of the mantissa.

use super::Codec;
use crate::Real;

/// Smallest scale that keeps all bits of the mantissa.
pub const MIN_F16_SCALE: f32 = 6.103_515_6e-5; // 2^-14

pub(super) struct F16;

impl Codec for F16 {
    const BYTES: usize = 2;
    const SMALLEST: f32 = MIN_F16_SCALE;
    const HAS_ZERO: bool = true;

    #[inline(always)]
    fn store(scale: f32) -> f32 {
        if scale == 0.0 || scale.is_nan() {
            return scale;
        }
        round_f16(scale.abs().max(MIN_F16_SCALE).copysign(scale))
    }

    fn encode(scale: f32, out: &mut Vec<u8>) {
        out.extend(half::f16::from_f32(scale).to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> f32 {
        half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
}

/// x rounded to f16 (nearest, ties to even), from f32 and never from f64: the `half` crate drops
/// the low half of an f64 before it rounds.
#[inline(always)]
pub fn round_f16<T: Real>(x: T) -> T {
    // Without branches or calls, so that loops over it become vector code.
    let bits = x.to_f32().to_bits();
    let (sign, magnitude) = (bits & 0x8000_0000, bits & 0x7fff_ffff);
    let normal = (magnitude + (0xfff + (magnitude >> 13 & 1))) & !0x1fff;
    let finite = if normal >= 0x4780_0000 { 0x7f80_0000 } else { normal }; // 2^16
    // Below 2^-14 f16 has steps of 2^-24, those of f32 above 0.5.
    let small = ((f32::from_bits(magnitude) + 0.5) - 0.5).to_bits();
    let rounded = if magnitude < 0x3880_0000 { small } else { finite };
    T::from_f32(f32::from_bits(sign | if magnitude > 0x7f80_0000 { magnitude } else { rounded }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScaleCodec;
    use half::f16;

    #[test]
    fn halves_are_rounded_at_every_midpoint() {
        for bits in 0..0x7bff_u16 {
            let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
            let middle = (low + high) / 2.0;
            let even = if bits % 2 == 0 { low } else { high };
            for (x, want) in
                [(low, low), (middle, even), (middle.next_down(), low), (middle.next_up(), high)]
            {
                assert_eq!(
                    (round_f16(x), round_f16(-x), round_f16(f64::from(x))),
                    (want, -want, f64::from(want)),
                    "{x:e}"
                );
            }
        }
    }

    #[test]
    fn the_ends_of_f16_are_rounded_as_ieee_says() {
        for (x, want) in [
            (65504.0f32, 65504.0),
            (65519.99, 65504.0),
            (65520.0, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
            (1e38, f32::INFINITY),
        ] {
            assert_eq!((round_f16(x), round_f16(-x)), (want, -want));
        }
        assert!(round_f16(f32::NAN).is_nan() && round_f16(-0.0f32).is_sign_negative());
    }

    #[test]
    fn f32_is_the_identity() {
        for s in [0.0f32, -1e-30, 3.3e38, 0.1] {
            assert_eq!(ScaleCodec::F32.store(s).to_bits(), s.to_bits());
        }
        assert_eq!(ScaleCodec::F32.store_real(0.1f64), 0.1);
    }

    #[test]
    fn f16_rounds_to_even_keeps_the_sign_and_guards() {
        let f = ScaleCodec::F16;
        // f16 has 11 significant bits: 2049 and 2051 lie exactly between two neighbours.
        assert_eq!((f.store(2049.0), f.store(2051.0), f.store(-2051.0)), (2048.0, 2052.0, -2052.0));
        assert_eq!((f.store(1e-7), f.store(-1e-7)), (2f32.powi(-14), -(2f32.powi(-14))));
        assert_eq!(MIN_F16_SCALE, 2f32.powi(-14));
        assert_eq!(f.store(0.0), 0.0);
        assert!(f.holds(65504.0) && !f.holds(65520.0) && !f.holds(f32::NAN));
        for i in 1..2000 {
            let s = f.store(i as f32 * 1.7e-4 - 0.15);
            assert_eq!(f.store(s), s, "storing twice changes nothing");
        }
    }
}
