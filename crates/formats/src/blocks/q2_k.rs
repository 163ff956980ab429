//! Q2_K: 256 values in 16 sub-blocks of 16. 16 bytes of (scale, minimum) nibbles, 64 bytes of 2-bit
//! codes, f16 d, f16 dmin. Value = d * scale * c - dmin * minimum, c in 0..3.
use super::{Codec, half_at};

pub(super) struct Q2_K;

impl Codec for Q2_K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 84;

    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, dmin) = (half_at(block, 80), half_at(block, 82));
        for (i, out) in out.chunks_exact_mut(16).enumerate() {
            // Sub-block i: half i / 8 of the codes, shift 2 * (i / 2 % 4), upper or lower 16 bytes
            // by parity.
            let codes = &block[16 + i / 8 * 32 + i % 2 * 16..][..16];
            let (scale, minimum) = (d * (block[i] & 15) as f32, dmin * (block[i] >> 4) as f32);
            for (v, byte) in out.iter_mut().zip(codes) {
                *v = scale * (byte >> (i / 2 % 4 * 2) & 3) as f32 - minimum;
            }
        }
    }
}
