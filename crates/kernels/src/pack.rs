//! Codes of 2 to 8 bits in bytes, row by row.

use crate::QuantSpec;

/// Bytes of one packed row.
pub fn row_bytes(cols: usize, bits: u8) -> usize {
    (cols * bits as usize).div_ceil(8)
}

/// Packs the codes of one row; bits of a code outside `bits` are dropped.
pub fn pack_row(codes: &[i16], spec: QuantSpec, out: &mut [u8]) {
    let min = spec.min_code() as i16;
    match spec.bits() {
        8 => out.iter_mut().zip(codes).for_each(|(o, &c)| *o = c.wrapping_sub(min) as u8),
        4 => {
            let (pairs, last) = codes.as_chunks::<2>();
            for (o, [low, high]) in out.iter_mut().zip(pairs) {
                *o = (low.wrapping_sub(min) as u8 & 15) | ((high.wrapping_sub(min) as u8) << 4);
            }
            if let [c] = last {
                out[pairs.len()] = c.wrapping_sub(min) as u8 & 15;
            }
        }
        2 => pack_bits::<2>(codes, min, out),
        3 => pack_bits::<3>(codes, min, out),
        5 => pack_bits::<5>(codes, min, out),
        6 => pack_bits::<6>(codes, min, out),
        7 => pack_bits::<7>(codes, min, out),
        bits => unreachable!("codes of {bits} bits"),
    }
}

/// Mask of fields of `codes` codes, one at the start of every second lane of `lane` bits.
const fn fields<const B: usize>(codes: usize, lane: usize) -> u64 {
    let (field, mut mask, mut at) = ((1 << (codes * B)) - 1, 0, 0);
    while at < 64 {
        mask |= field << at;
        at += 2 * lane;
    }
    mask
}

/// 8 codes of `B` bits, one after the other, to one per byte: halves are drawn apart, then
/// quarters, then eighths.
#[inline(always)]
fn spread<const B: usize>(mut word: u64) -> u64 {
    for (codes, lane) in [(4, 32), (2, 16), (1, 8)] {
        let (even, shift) = (fields::<B>(codes, lane), lane - codes * B);
        word = (word & even) | (word << shift & even << lane);
    }
    word
}

/// The inverse of [`spread`].
#[inline(always)]
fn gather<const B: usize>(mut bytes: u64) -> u64 {
    for (codes, lane) in [(1, 8), (2, 16), (4, 32)] {
        let (even, shift) = (fields::<B>(codes, lane), lane - codes * B);
        bytes = (bytes & even) | (bytes & even << lane) >> shift;
    }
    bytes
}

/// 8 codes of `B` bits fill `B` whole bytes.
fn pack_bits<const B: usize>(codes: &[i16], min: i16, out: &mut [u8]) {
    for (codes, out) in codes.chunks(8).zip(out.chunks_mut(B)) {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(codes).for_each(|(byte, &c)| *byte = c.wrapping_sub(min) as u8);
        let word = gather::<B>(u64::from_le_bytes(bytes)).to_le_bytes();
        out.iter_mut().zip(word).for_each(|(o, byte)| *o = byte);
    }
}

/// Unsigned codes (`code - min_code`) of one packed row.
pub fn unpack_row(packed: &[u8], bits: u8, out: &mut [u8]) {
    match bits {
        8 => out.copy_from_slice(&packed[..out.len()]),
        4 => {
            let (pairs, last) = out.as_chunks_mut::<2>();
            let whole = pairs.len();
            for (pair, &byte) in pairs.iter_mut().zip(packed) {
                *pair = [byte & 15, byte >> 4];
            }
            if let [o] = last {
                *o = packed[whole] & 15;
            }
        }
        2 => unpack_bits::<2>(packed, out),
        3 => unpack_bits::<3>(packed, out),
        5 => unpack_bits::<5>(packed, out),
        6 => unpack_bits::<6>(packed, out),
        7 => unpack_bits::<7>(packed, out),
        bits => unreachable!("codes of {bits} bits"),
    }
}

fn unpack_bits<const B: usize>(packed: &[u8], out: &mut [u8]) {
    for (out, packed) in out.chunks_mut(8).zip(packed.chunks(B)) {
        let mut word = [0; 8];
        word.iter_mut().zip(packed).for_each(|(byte, &p)| *byte = p);
        let bytes = spread::<B>(u64::from_le_bytes(word)).to_le_bytes();
        out.iter_mut().zip(bytes).for_each(|(o, byte)| *o = byte);
    }
}
