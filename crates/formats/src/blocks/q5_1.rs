//! Q5_1: 32 values, f16 d, f16 m, 32 fifth bits (u32), 16 bytes of nibbles. Value = d * c + m, c in
//! 0..31.
use super::q5_0::{for_each_code, store_codes};
use super::{Codec, EncodeBlock, check_finite, half_at, inverse, min_max, store_half};

pub(super) struct Q5_1;

impl Codec for Q5_1 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 24;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        check_finite(values)?;
        let (min, max) = min_max(values);
        let d = (max - min) / 31.0;
        let id = inverse(d)?;
        store_half(block, 0, d)?;
        store_half(block, 2, min)?;
        store_codes(|j| (((values[j] - min) * id + 0.5) as u8).min(31), &mut block[4..]);
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        for_each_code(&block[4..], |j, code| out[j] = code as f32 * d + m);
    }
}
