//! Eight-bit floats of four exponent and three mantissa bits, as the scales of NVFP4: 2^-9 to 448,
//! with a sign. There is no infinity; 0x7f is NaN.

use super::Codec;

pub(super) struct E4M3;

/// Largest number.
pub const MAX_E4M3: f32 = 448.0;
/// Smallest number above 0.
const LEAST: f32 = 1.0 / 512.0;

impl Codec for E4M3 {
    const BYTES: usize = 1;
    const SMALLEST: f32 = LEAST;
    const HAS_ZERO: bool = true;

    fn store(scale: f32) -> f32 {
        if scale == 0.0 || scale.is_nan() {
            return scale;
        }
        nearest_e4m3(if scale.abs() < LEAST { LEAST.copysign(scale) } else { scale })
    }

    fn encode(scale: f32, out: &mut Vec<u8>) {
        let (sign, magnitude) = ((scale.is_sign_negative() as u8) << 7, scale.abs());
        // Magnitudes rise with their codes.
        let mut code = 0;
        for bit in (0..7).map(|bit| 0x40 >> bit) {
            if magnitude_of(code | bit) <= magnitude {
                code |= bit;
            }
        }
        out.push(sign | code);
    }

    fn decode(bytes: &[u8]) -> f32 {
        let sign = if bytes[0] & 0x80 == 0 { 1.0 } else { -1.0 };
        sign * magnitude_of(bytes[0] & 0x7f)
    }
}

fn magnitude_of(code: u8) -> f32 {
    let mantissa = f32::from(code & 7);
    match code >> 3 {
        _ if code == 0x7f => f32::NAN,
        0 => mantissa / 512.0,
        exponent => (1.0 + mantissa / 8.0) * 2f32.powi(i32::from(exponent) - 7),
    }
}

/// To the nearest, ties to the even mantissa; what rounds past 448 is infinite, and what rounds
/// below half of 2^-9 is 0.
pub fn nearest_e4m3(x: f32) -> f32 {
    if !x.is_finite() {
        return x;
    }
    // Steps of an eighth of the power of two below, and of 2^-9 under 2^-6.
    let exponent = ((x.abs().to_bits() >> 23) as i32 - 127).max(-6);
    let step = 2f32.powi(exponent - 3);
    let rounded = (x / step).round_ties_even() * step;
    if rounded.abs() > MAX_E4M3 { f32::INFINITY.copysign(x) } else { rounded }
}
