//! F32: the value itself.
use super::{Codec, EncodeBlock};

pub(super) struct F32;

impl Codec for F32 {
    const ELEMENTS: usize = 1;
    const BYTES: usize = 4;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        block.copy_from_slice(&values[0].to_le_bytes());
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    }
}
