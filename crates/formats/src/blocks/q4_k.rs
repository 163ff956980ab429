//! Q4_K: 256 values in 8 sub-blocks of 32. f16 d, f16 dmin, 12 bytes of 6-bit scales and minima,
//! 128 bytes of nibbles. Value = d * scale * c - dmin * minimum, c in 0..15.
use super::k_scales::scale_and_minimum;
use super::{Codec, half_at};

pub(super) struct Q4_K;

impl Codec for Q4_K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 144;

    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, dmin) = (half_at(block, 0), half_at(block, 2));
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let (scale, minimum) = scale_and_minimum(&block[4..16], j);
            let (step, minimum) = (d * scale as f32, dmin * minimum as f32);
            for (v, byte) in out.iter_mut().zip(&block[16 + j / 2 * 32..][..32]) {
                *v = step * (byte >> (j % 2 * 4) & 15) as f32 - minimum;
            }
        }
    }
}
