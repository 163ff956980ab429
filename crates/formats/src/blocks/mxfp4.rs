//! MXFP4: 32 values, E8M0 exponent, 16 bytes of nibbles. Value = 2^(exponent - 127) * E2M1 of the
//! nibble; byte j holds elements j (low) and j + 16 (high).
use super::Codec;

pub(super) struct MXFP4;

/// Sign, two bits of exponent, one of mantissa.
const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

impl Codec for MXFP4 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 17;

    fn decode(block: &[u8], out: &mut [f32]) {
        let scale = match block[0] {
            // Below the normal numbers.
            0 => f32::MIN_POSITIVE / 2.0,
            255 => f32::NAN,
            exponent => f32::from_bits(u32::from(exponent) << 23),
        };
        for (j, &byte) in block[1..].iter().enumerate() {
            out[j] = E2M1[usize::from(byte & 15)] * scale;
            out[j + 16] = E2M1[usize::from(byte >> 4)] * scale;
        }
    }
}
