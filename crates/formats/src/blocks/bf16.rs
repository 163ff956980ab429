//! BF16: the upper half of an f32, rounded to nearest even; a NaN keeps its upper bits and becomes
//! quiet.
use super::{Codec, EncodeBlock};

pub(super) struct BF16;

impl Codec for BF16 {
    const ELEMENTS: usize = 1;
    const BYTES: usize = 2;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        let stored = half::bf16::from_f32(values[0]);
        if stored.is_infinite() && values[0].is_finite() {
            return Err("the value rounds to infinity");
        }
        block.copy_from_slice(&stored.to_le_bytes());
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        out[0] = half::bf16::from_le_bytes([block[0], block[1]]).to_f32();
    }
}
