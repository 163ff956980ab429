//! Q4_0: 32 values, f16 d, 16 bytes of nibbles. Value = d * c, c in -8..7, stored as c + 8; byte j
//! holds elements j (low) and j + 16 (high).
use super::{Codec, EncodeBlock, check_finite, half_at, inverse, signed_max, store_half};

pub(super) struct Q4_0;

impl Codec for Q4_0 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 18;
    /// The element of largest magnitude becomes code -8, so d carries its opposite sign; halves
    /// round up.
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        check_finite(values)?;
        let d = signed_max(values) / -8.0;
        let id = inverse(d)?;
        store_half(block, 0, d)?;
        let code = |v: f32| ((v * id + 8.5) as u8).min(15);
        for j in 0..16 {
            block[2 + j] = code(values[j]) | code(values[j + 16]) << 4;
        }
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        let d = half_at(block, 0);
        for (j, &byte) in block[2..].iter().enumerate() {
            out[j] = ((byte & 15) as i32 - 8) as f32 * d;
            out[j + 16] = ((byte >> 4) as i32 - 8) as f32 * d;
        }
    }
}
