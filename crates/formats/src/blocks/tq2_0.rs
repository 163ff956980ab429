//! TQ2_0: 256 ternary values, four to a byte. 64 bytes, f16 d. Value = d * c, c in -1..1 stored as
//! c + 1; a stored 3, which no writer makes, reads as 2.
use super::{Codec, EncodeBlock, half_at, store_half, ternary};

pub(super) struct TQ2_0;

/// Element held by bits 2 * part of byte `byte`.
pub(super) const fn element(byte: usize, part: usize) -> usize {
    byte / 32 * 128 + part * 32 + byte % 32
}

impl Codec for TQ2_0 {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 66;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        let (d, codes) = ternary::codes(values)?;
        for (byte, q) in block[..64].iter_mut().enumerate() {
            *q = (0..4).fold(0, |q, part| q | codes[element(byte, part)] << (2 * part));
        }
        store_half(block, 64, d)
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        let d = half_at(block, 64);
        for (byte, q) in block[..64].iter().enumerate() {
            for part in 0..4 {
                out[element(byte, part)] = ((q >> (2 * part) & 3) as i32 - 1) as f32 * d;
            }
        }
    }
}
