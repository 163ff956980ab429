//! Q8_0: 32 values, f16 d, 32 signed bytes. Value = d * c; the reference quantizer makes c in
//! -127..127, ties away from zero.
use super::{Codec, EncodeBlock, check_finite, half_at, inverse, signed_max, store_half};

pub(super) struct Q8_0;

impl Codec for Q8_0 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 34;
    const ENCODE: Option<EncodeBlock> = Some(|values, block| {
        check_finite(values)?;
        let d = signed_max(values).abs() / 127.0;
        let id = inverse(d)?;
        store_half(block, 0, d)?;
        for (byte, v) in block[2..].iter_mut().zip(values) {
            *byte = (v * id).round() as i8 as u8;
        }
        Ok(())
    });

    fn decode(block: &[u8], out: &mut [f32]) {
        let d = half_at(block, 0);
        for (v, &byte) in out.iter_mut().zip(&block[2..]) {
            *v = byte as i8 as f32 * d;
        }
    }
}
