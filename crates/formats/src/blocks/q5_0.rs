//! Q5_0: 32 values, f16 d, 32 fifth bits (u32), 16 bytes of nibbles. Value = d * c, c in -16..15,
//! stored as c + 16.
use super::{Codec, EncodeBlock, check_finite, half_at, inverse, signed_max, store_half};

pub(super) struct Q5_0;

/// Splits 32 five-bit codes into the fifth bits (4 bytes) and the nibbles (16 bytes) that follow
/// them.
pub(super) fn store_codes(code: impl Fn(usize) -> u8, bytes: &mut [u8]) {
    let mut high = 0u32;
    for j in 0..16 {
        let (a, b) = (code(j), code(j + 16));
        bytes[4 + j] = a & 15 | (b & 15) << 4;
        high |= (a as u32 >> 4) << j | (b as u32 >> 4) << (j + 16);
    }
    bytes[..4].copy_from_slice(&high.to_le_bytes());
}

/// The inverse of [`store_codes`]: calls `put(element, code)`.
pub(super) fn for_each_code(bytes: &[u8], mut put: impl FnMut(usize, u8)) {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for j in 0..16 {
        put(j, bytes[4 + j] & 15 | ((high >> j & 1) as u8) << 4);
        put(j + 16, bytes[4 + j] >> 4 | ((high >> (j + 16) & 1) as u8) << 4);
    }
}

impl Codec for Q5_0 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 22;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        check_finite(values)?;
        let d = signed_max(values) / -16.0;
        let id = inverse(d)?;
        store_half(block, 0, d)?;
        store_codes(|j| ((values[j] * id + 16.5) as u8).min(31), &mut block[2..]);
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        let d = half_at(block, 0);
        for_each_code(&block[2..], |j, code| out[j] = (code as i32 - 16) as f32 * d);
    }
}
