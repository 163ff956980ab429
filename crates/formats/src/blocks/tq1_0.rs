//! TQ1_0: 256 ternary values, five to a byte. 48 + 4 bytes, f16 d. Value = d * c, c in -1..1.
//!
//! A byte holds q = ceil(n * 256 / 243) for the base-3 number n of its digits, so that the k-th
//! digit is the upper byte of (q * 3^k mod 256) * 3.
use super::{Codec, EncodeBlock, half_at, store_half, ternary};

pub(super) struct TQ1_0;

/// Runs of bytes: (first byte, bytes, digits per byte, first element). Digit k of byte j is element
/// first + k * bytes + j.
const RUNS: [(usize, usize, usize, usize); 3] = [(0, 32, 5, 0), (32, 16, 5, 160), (48, 4, 4, 240)];
const DIGITS: u32 = 5;

impl Codec for TQ1_0 {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 54;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        let (d, codes) = ternary::codes(values)?;
        for (at, bytes, digits, first) in RUNS {
            for j in 0..bytes {
                let number = (0..digits)
                    .fold(0u32, |n, k| n * 3 + codes[first + k * bytes + j] as u32)
                    * 3u32.pow(DIGITS - digits as u32);
                block[at + j] = (number * 256).div_ceil(243) as u8;
            }
        }
        store_half(block, 52, d)
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        let d = half_at(block, 52);
        for (at, bytes, digits, first) in RUNS {
            for k in 0..digits {
                for j in 0..bytes {
                    let q = block[at + j].wrapping_mul(3u8.pow(k as u32));
                    let code = ((q as u16 * 3) >> 8) as i32 - 1;
                    out[first + k * bytes + j] = code as f32 * d;
                }
            }
        }
    }
}
