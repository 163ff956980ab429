//! Q3_K: 256 values in 16 sub-blocks of 16. 32 bytes of third bits, 64 bytes of 2-bit codes, 12
//! bytes of 6-bit scales, f16 d. Value = d * (scale - 32) * c, c in -4..3 (the third bit set means
//! no 4 is taken off).
use super::{Codec, half_at};

pub(super) struct Q3_K;

/// 6-bit scale of sub-block i: four low bits in bytes 0..8, two high bits in bytes 8..12.
fn scale(bytes: &[u8], i: usize) -> i32 {
    let low = bytes[i % 8] >> (i / 8 * 4) & 15;
    let high = bytes[8 + i % 4] >> (i / 4 * 2) & 3;
    (low | high << 4) as i32
}

impl Codec for Q3_K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 110;

    fn decode(block: &[u8], out: &mut [f32]) {
        let d = half_at(block, 108);
        for (i, out) in out.chunks_exact_mut(16).enumerate() {
            let codes = &block[32 + i / 8 * 32 + i % 2 * 16..][..16];
            let high = &block[i % 2 * 16..][..16];
            let step = d * (scale(&block[96..108], i) - 32) as f32;
            for ((v, byte), high) in out.iter_mut().zip(codes).zip(high) {
                let code = (byte >> (i / 2 % 4 * 2) & 3) as i32
                    - if high >> (i / 2) & 1 == 1 { 0 } else { 4 };
                *v = step * code as f32;
            }
        }
    }
}
