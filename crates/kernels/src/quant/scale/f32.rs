//! Scales as f32: nothing is rounded.

use super::Codec;

pub(super) struct F32;

impl Codec for F32 {
    const BYTES: usize = 4;
    // It only has to stay away from 0.
    const SMALLEST: f32 = 1e-10;

    #[inline(always)]
    fn store(scale: f32) -> f32 {
        scale
    }
}
