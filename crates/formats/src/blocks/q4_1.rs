//! Q4_1: 32 values, f16 d, f16 m, 16 bytes of nibbles. Value = d * c + m, c in 0..15; byte j holds
//! elements j (low) and j + 16 (high).
use super::{Codec, EncodeBlock, check_finite, half_at, inverse, min_max, store_half};

pub(super) struct Q4_1;

impl Codec for Q4_1 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 20;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        check_finite(values)?;
        let (min, max) = min_max(values);
        let d = (max - min) / 15.0;
        let id = inverse(d)?;
        store_half(block, 0, d)?;
        store_half(block, 2, min)?;
        let code = |v: f32| (((v - min) * id + 0.5) as u8).min(15);
        for j in 0..16 {
            block[4 + j] = code(values[j]) | code(values[j + 16]) << 4;
        }
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        for (j, &byte) in block[4..].iter().enumerate() {
            out[j] = (byte & 15) as f32 * d + m;
            out[j + 16] = (byte >> 4) as f32 * d + m;
        }
    }
}
