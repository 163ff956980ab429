//! MXFP4: 32 values, E8M0 exponent, 16 bytes of nibbles. Value = 2^(exponent - 127) * E2M1 of the
//! nibble; byte j holds elements j (low) and j + 16 (high).
use super::{Codec, EncodeBlock, check_finite};
use halfstep_kernels::math::ln_f64;
use std::f64::consts::LOG2_E;

pub(super) struct MXFP4;

/// Sign, two bits of exponent, one of mantissa. ggml has no negative zero.
const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The power of two that an exponent stands for.
const fn scale(exponent: u8) -> f32 {
    match exponent {
        // Below the normal numbers.
        0 => f32::MIN_POSITIVE / 2.0,
        255 => f32::NAN,
        exponent => f32::from_bits((exponent as u32) << 23),
    }
}

/// The first of the nearest values.
fn nearest(value: f32, scale: f32) -> u8 {
    let error = |code: usize| (E2M1[code] * scale - value).abs();
    (1..16).fold(0, |best, code| if error(code) < error(best) { code } else { best }) as u8
}

impl Codec for MXFP4 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 17;
    /// The largest value lies between 4 and 8 times the scale, and what is above 6 is cut to it.
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        check_finite(values)?;
        let largest = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        if largest > 0.0 {
            let power = ((ln_f64(f64::from(largest)) * LOG2_E) as f32).floor();
            let exponent = power - 2.0 + 127.0;
            if exponent < 0.0 {
                return Err("its scale is below 2^-127");
            }
            block[0] = exponent as u8;
        }
        let scale = scale(block[0]);
        if !(6.0 * scale).is_finite() {
            return Err("its largest value is beyond f32");
        }
        for j in 0..16 {
            block[1 + j] = nearest(values[j], scale) | nearest(values[j + 16], scale) << 4;
        }
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        let scale = scale(block[0]);
        for (j, &byte) in block[1..].iter().enumerate() {
            out[j] = E2M1[usize::from(byte & 15)] * scale;
            out[j + 16] = E2M1[usize::from(byte >> 4)] * scale;
        }
    }
}
