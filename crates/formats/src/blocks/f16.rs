//! F16: IEEE half, rounded to nearest even.
use super::{Codec, EncodeBlock, half_at};

pub(super) struct F16;

impl Codec for F16 {
    const ELEMENTS: usize = 1;
    const BYTES: usize = 2;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        let stored = half::f16::from_f32(values[0]);
        if stored.is_infinite() && values[0].is_finite() {
            return Err("the value is beyond f16");
        }
        block.copy_from_slice(&stored.to_le_bytes());
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        out[0] = half_at(block, 0);
    }
}
