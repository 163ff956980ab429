//! Rounding to the nearest code under given scales.

use super::element::table::Nearest;
use super::lsq::codes_of;
use super::rounding::{clip_round, nearest_even_bits, rounded_quotients};
use super::spec::QuantSpec;
use super::tensor::QuantTensor;
use crate::pack::{pack_row, row_bytes};
use crate::{Pool, dispatch};

/// Elements a task holds at least.
const PIECE: usize = 16384;

/// The round-clip order, clip(rnd(w / s) + z, 0, p), less z. With whole bounds it does not matter
/// which comes first.
#[inline(always)]
fn affine_code(w: f32, scale: f32, zero: f32, p: f32) -> f32 {
    clip_round(w / scale, -zero, p - zero)
}

/// Stores the scales by the codec, then codes = clip(nearest-even(w / scale) + z): the clip-round
/// order for symmetric grids, round-clip for affine ones. A scale of 0 gives codes of value 0.
pub fn quantize(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    spec: QuantSpec,
    scales: &[f32],
    zero_points: &[u8],
) -> QuantTensor {
    let (affine, granularity) = (spec.has_zero_point(), spec.granularity);
    assert_eq!(
        (w.len(), scales.len()),
        (rows * cols, granularity.scales(rows, cols)),
        "shapes of quantize"
    );
    assert_eq!(zero_points.len(), if affine { scales.len() } else { 0 }, "zero points of quantize");
    assert!(spec.row_table().is_none(), "levels of rows are not known here");
    let mut scales = scales.to_vec();
    let outer_scales = spec.scale.store_all(&mut scales, granularity.groups(cols));
    let table = spec.table().map(|table| table.nearest());
    let bytes = row_bytes(cols, spec.bits());
    let mut codes = vec![0u8; rows * bytes];
    let rows_a_task = (PIECE / cols.max(1)).max(1);
    let (group, groups) = (granularity.group_size(cols), granularity.groups(cols));
    pool.chunks_mut(&mut codes, rows_a_task * bytes, |i, packed| {
        let mut codes = vec![0i16; cols];
        for (j, packed) in packed.chunks_mut(bytes).enumerate() {
            let row = i * rows_a_task + j;
            let first = granularity.scale_index(row, 0, cols);
            let (w, scales) = (&w[row * cols..][..cols], &scales[first..first + groups]);
            if let Some(nearest) = table {
                table_codes(w, scales, group, nearest, &mut codes);
                pack_row(&codes, spec, packed);
                continue;
            }
            let zero_points = if affine { &zero_points[first..first + groups] } else { &[] };
            row_codes(w, scales, zero_points, group, spec, &mut codes);
            pack_row(&codes, spec, packed);
        }
    });
    let (zero_points, tables) = (zero_points.to_vec(), vec![]);
    QuantTensor { rows, cols, spec, codes, scales, outer_scales, zero_points, tables }
}

dispatch! {
    /// Codes of one row by a table; those of a group with scale 0 are of the level nearest to 0.
    fn table_codes(w: &[f32], scales: &[f32], group: usize, nearest: Nearest, codes: &mut [i16]) {
        for (g, (w, codes)) in w.chunks(group).zip(codes.chunks_mut(group)).enumerate() {
            let scale = scales[g];
            if scale == 0.0 {
                codes.fill(nearest.zero.into());
                continue;
            }
            for i in 0..w.len() {
                codes[i] = nearest.code(w[i] / scale).into();
            }
        }
    }
}

dispatch! {
    fn row_codes(w: &[f32], scales: &[f32], zero_points: &[u8], group: usize, spec: QuantSpec, codes: &mut [i16]) {
        let (n, p) = (spec.min_code() as f32, spec.max_code() as f32);
        for (g, (w, codes)) in w.chunks(group).zip(codes.chunks_mut(group)).enumerate() {
            let scale = scales[g];
            match zero_points.get(g) {
                None => codes_of(w, scale, (n, p), codes),
                Some(&zero) if scale == 0.0 => codes.fill(zero as i16),
                Some(&zero) => {
                    for (c, &w) in codes.iter_mut().zip(w) {
                        *c = nearest_even_bits(affine_code(w, scale, zero as f32, p)) as i16 + zero as i16;
                    }
                }
            }
        }
    }
}

dispatch! {
    /// The codes of [`quantize`] less `min_code`, for one row: group g of `group` columns goes to
    /// `g * padded` of `out`; the columns between are left alone.
    pub(crate) fn unsigned_codes(w: &[f32], scales: &[f32], zero_points: &[u8], widths: (usize, usize), spec: QuantSpec, out: &mut [u8]) {
        match widths {
            (32, 32) if w.len().is_multiple_of(32) => groups_of::<32>(w, scales, zero_points, spec, out),
            (64, 64) if w.len().is_multiple_of(64) => groups_of::<64>(w, scales, zero_points, spec, out),
            (128, 128) if w.len().is_multiple_of(128) => groups_of::<128>(w, scales, zero_points, spec, out),
            (group, padded) => {
                for (g, (w, out)) in w.chunks(group).zip(out.chunks_mut(padded)).enumerate() {
                    group_codes(w, scales[g], zero_points.get(g).copied(), spec, &mut out[..w.len()]);
                }
            }
        }
    }
}

/// The usual sizes have loops of their own, of a length the compiler knows.
#[inline(always)]
fn groups_of<const GROUP: usize>(
    w: &[f32],
    scales: &[f32],
    zero_points: &[u8],
    spec: QuantSpec,
    out: &mut [u8],
) {
    let (w, out) = (w.as_chunks::<GROUP>().0, out.as_chunks_mut::<GROUP>().0);
    let (scales, out) = (&scales[..w.len()], &mut out[..w.len()]);
    for g in 0..w.len() {
        group_codes(&w[g], scales[g], zero_points.get(g).copied(), spec, &mut out[g]);
    }
}

#[inline(always)]
fn group_codes(w: &[f32], scale: f32, zero_point: Option<u8>, spec: QuantSpec, out: &mut [u8]) {
    let (n, p, min, mask) = (
        spec.min_code() as f32,
        spec.max_code() as f32,
        spec.min_code() as u16,
        ((1u16 << spec.bits()) - 1) as u8,
    );
    match zero_point {
        None if scale == 0.0 => out.fill(min.wrapping_neg() as u8 & mask),
        None => rounded_quotients(w, scale, (n, p), out, |code| {
            nearest_even_bits(code).wrapping_sub(min) as u8 & mask
        }),
        Some(zero) if scale == 0.0 => out.fill(zero & mask),
        Some(zero) => {
            for i in 0..w.len() {
                out[i] = nearest_even_bits(affine_code(w[i], scale, zero as f32, p))
                    .wrapping_add(zero as u16) as u8
                    & mask;
            }
        }
    }
}

/// Sum of (w - value)^2, in f64, row by row.
pub fn squared_error(w: &[f32], packed: &QuantTensor) -> f64 {
    squared_error_after(0.0, w, packed)
}

/// [`squared_error`] of rows that follow others, whose sum is `total`.
pub(super) fn squared_error_after(mut total: f64, w: &[f32], packed: &QuantTensor) -> f64 {
    let mut values = vec![0.0; packed.cols];
    for (row, w) in w.chunks_exact(packed.cols.max(1)).enumerate() {
        packed.decode_row(row, &mut values);
        total += w.iter().zip(&values).map(|(w, v)| (w - v) as f64 * (w - v) as f64).sum::<f64>();
    }
    total
}
