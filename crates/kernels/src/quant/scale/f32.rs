//! Scales as f32: nothing is rounded.

use super::Codec;

pub(super) struct F32;

impl Codec for F32 {
    const BYTES: usize = 4;
    // It only has to stay away from 0.
    const SMALLEST: f32 = 1e-10;
    const HAS_ZERO: bool = true;

    #[inline(always)]
    fn store(scale: f32) -> f32 {
        scale
    }

    fn encode(scale: f32, out: &mut Vec<u8>) {
        out.extend(scale.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}
