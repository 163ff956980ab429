//! Q6_K: 256 values in 16 sub-blocks of 16. 128 bytes of low nibbles, 64 bytes of upper bit pairs,
//! 16 signed scales, f16 d. Value = d * scale * c, c in -32..31.
use super::{Codec, half_at};

pub(super) struct Q6_K;

impl Codec for Q6_K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 210;

    fn decode(block: &[u8], out: &mut [f32]) {
        let d = half_at(block, 208);
        for (i, out) in out.chunks_exact_mut(16).enumerate() {
            // Quarter `quarter` (32 values) of half `half` (128 values), first or second 16 of it.
            let (half, quarter, at) = (i / 8, i / 2 % 4, i % 2 * 16);
            let low = &block[half * 64 + quarter % 2 * 32 + at..][..16];
            let high = &block[128 + half * 32 + at..][..16];
            let step = d * (block[192 + i] as i8) as f32;
            for ((v, low), high) in out.iter_mut().zip(low).zip(high) {
                let code = low >> (quarter / 2 * 4) & 15 | (high >> (quarter * 2) & 3) << 4;
                *v = step * (code as i32 - 32) as f32;
            }
        }
    }
}
