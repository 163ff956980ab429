//! First steps of a weight: by absmax, ggml's signed rule, error search, the convex surrogate and
//! LSQ's rule; and rounding to nearest on the grid they give.
use super::activation::largest;
use super::error_search::{Best, ErrorSearch, Limits};
use super::lsq::codes_of;
use super::rounding::{clip_round, nearest_even_bits, rounded_quotients};
use super::tensor::QuantTensor;
use crate::pack::{pack_row, row_bytes};
use crate::{Granularity, Int, Pool, QuantSpec, ScaleCodec, dispatch};
use serde::{Deserialize, Serialize};

/// How the first (or, for RTN, the only) scale of a group is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ScaleRule {
    /// Symmetric: max|w| / p. Affine: min-max widened to hold 0.
    Absmax,
    /// ggml's Q4_0 rule: (first entry of largest magnitude, with its sign) / n; the scale may be
    /// negative. Affine grids: as Absmax.
    SignedAbsmax,
    /// Least squared error: exact on symmetric grids (of either sign), 80 shrunken ranges on affine
    /// ones.
    ErrorSearch,
    /// The least sum over the weights of max(s^2 / 12, max(0, |w| - s p)^2), a convex surrogate of
    /// the error. Affine grids: as Absmax.
    Convex,
    /// LSQ's start 2 mean|w| / sqrt(p). Affine grids: as Absmax.
    Lsq,
}

/// Elements a task holds at least.
const PIECE: usize = 16384;

/// Scales (unrounded, f32) and, for affine grids, zero points of `w` `[rows, cols]`. An all-zero
/// group has scale 0; a group with an entry that is not finite has a scale that is not a number.
pub fn find_scales(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    spec: QuantSpec,
    rule: ScaleRule,
) -> (Vec<f32>, Vec<u8>) {
    assert_eq!(w.len(), rows * cols, "shape of find_scales");
    let n = spec.granularity.scales(rows, cols);
    let mut found = vec![(0.0, 0); n];
    let cols = cols.max(1);
    // One row per tensor: the whole matrix.
    let (row, group) = if spec.granularity == Granularity::Tensor {
        (w.len(), w.len())
    } else {
        (cols, spec.granularity.group_size(cols))
    };
    let (groups, rows_a_task) = (row.div_ceil(group.max(1)).max(1), (PIECE / row.max(1)).max(1));
    pool.chunks_mut(&mut found, groups * rows_a_task, |i, found| {
        let mut search = Search::default();
        for (j, found) in found.chunks_mut(groups).enumerate() {
            let w = &w[(i * rows_a_task + j) * row..][..row];
            w.chunks(group.max(1))
                .zip(found)
                .for_each(|(w, found)| *found = search.group(w, spec, rule));
        }
    });
    let zero_points =
        if spec.has_zero_point() { found.iter().map(|f| f.1).collect() } else { vec![] };
    (found.into_iter().map(|f| f.0).collect(), zero_points)
}

/// Scratch space for one task.
#[derive(Default)]
struct Search {
    sorted: Vec<f32>,
    error: ErrorSearch,
}

impl Search {
    /// Scale and zero point of one group.
    fn group(&mut self, w: &[f32], spec: QuantSpec, rule: ScaleRule) -> (f32, u8) {
        let most = largest(w);
        if !most.is_finite() {
            return (f32::NAN, 0);
        }
        if spec.has_zero_point() {
            let shrink = if rule == ScaleRule::ErrorSearch { 80 } else { 1 };
            return affine_group(w, spec, shrink);
        }
        if most == 0.0 {
            return (0.0, 0);
        }
        let scale = match rule {
            ScaleRule::Absmax => most / spec.max_code() as f32,
            ScaleRule::SignedAbsmax => {
                w.iter().find(|w| w.abs() == most).copied().unwrap_or(most) / spec.min_code() as f32
            }
            ScaleRule::Lsq => {
                (2.0 * w.iter().map(|w| w.abs() as f64).sum::<f64>()
                    / w.len() as f64
                    / (spec.max_code() as f64).sqrt()) as f32
            }
            ScaleRule::Convex => convex(self.sort(w), spec.max_code() as f64) as f32,
            ScaleRule::ErrorSearch => {
                let best =
                    self.error_minimum(w, spec).expect("a group with an entry that is not zero");
                // A negative step sees the mirrored weights: the side with one code more changes.
                match self.error_minimum_below(w, limits(spec).mirrored(), spec, Some(best)) {
                    Some(mirrored) => -mirrored.step as f32,
                    None => best.step as f32,
                }
            }
        };
        (scale, 0)
    }

    fn sort(&mut self, w: &[f32]) -> &[f32] {
        self.sorted.clear();
        self.sorted.extend(w.iter().map(|w| w.abs()));
        self.sorted.sort_unstable_by(f32::total_cmp);
        &self.sorted
    }

    fn error_minimum(&mut self, w: &[f32], spec: QuantSpec) -> Option<Best> {
        self.sort(w);
        self.error_minimum_below(w, limits(spec), spec, None)
    }

    /// With |w| sorted already.
    fn error_minimum_below(
        &mut self,
        w: &[f32],
        limits: Limits,
        spec: QuantSpec,
        known: Option<Best>,
    ) -> Option<Best> {
        let start = convex(&self.sorted, spec.max_code() as f64);
        self.error.minimum(w, &self.sorted, limits, start, known)
    }
}

fn limits(spec: QuantSpec) -> Limits {
    Limits { negative: -spec.min_code(), positive: spec.max_code() }
}

/// Min-max widened to hold 0, or the best of `candidates` ranges shrunk by 1.00, 0.99, ...: scale
/// and zero point, the error taken as stored.
fn affine_group(w: &[f32], spec: QuantSpec, candidates: usize) -> (f32, u8) {
    let (low, high) = w.iter().fold((0.0f32, 0.0f32), |(low, high), &w| (low.min(w), high.max(w)));
    let mut best = (f64::INFINITY, (0.0, 0));
    if low == high {
        return best.1;
    }
    for i in 0..candidates {
        let shrink = 1.0 - i as f32 * 0.01;
        // Divided before it is subtracted: the width of the range itself may overflow.
        let p = spec.max_code() as f32;
        let scale = (high / p - low / p) * shrink;
        let stored = spec.scale.store(scale);
        let zero = (-low * shrink / stored).round_ties_even().clamp(0.0, p);
        let zero = if zero.is_finite() { zero } else { 0.0 };
        if candidates == 1 {
            return (scale, zero as u8);
        }
        let error = w
            .iter()
            .map(|&w| (w - affine_code(w, stored, zero, p) * stored) as f64)
            .map(|e| e * e)
            .sum::<f64>();
        if error < best.0 || i == 0 {
            best = (error, (scale, zero as u8));
        }
    }
    best.1
}

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
    let scales: Vec<f32> = scales.iter().map(|&s| spec.scale.store(s)).collect();
    let bytes = row_bytes(cols, spec.bits());
    let mut codes = vec![0u8; rows * bytes];
    let rows_a_task = (PIECE / cols.max(1)).max(1);
    let (group, groups) = (granularity.group_size(cols), granularity.groups(cols));
    pool.chunks_mut(&mut codes, rows_a_task * bytes, |i, packed| {
        let mut codes = vec![0i16; cols];
        for (j, packed) in packed.chunks_mut(bytes).enumerate() {
            let row = i * rows_a_task + j;
            let first = granularity.scale_index(row, 0, cols);
            let zero_points = if affine { &zero_points[first..first + groups] } else { &[] };
            row_codes(
                &w[row * cols..][..cols],
                &scales[first..first + groups],
                zero_points,
                group,
                spec,
                &mut codes,
            );
            pack_row(&codes, spec, packed);
        }
    });
    QuantTensor { rows, cols, spec, codes, scales, zero_points: zero_points.to_vec() }
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

/// Scales by a rule, then [`quantize`].
pub fn quantize_by(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    spec: QuantSpec,
    rule: ScaleRule,
) -> QuantTensor {
    let (scales, zero_points) = find_scales(pool, w, rows, cols, spec, rule);
    quantize(pool, w, rows, cols, spec, &scales, &zero_points)
}

/// Round to nearest as a baseline: for the whole matrix the better, by squared error of the values
/// as stored, of ggml's signed rule and the error search. Narrow grids take their codec's own rule,
/// max|w| / p; affine ones the error search alone.
///
/// The error search being exact, ggml's rule wins here only through the rounding of the scales. A
/// table that wants the better of the two *models* evaluates both rules ([`quantize_by`]): less
/// squared error is not always less loss.
pub fn quantize_rtn(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    spec: QuantSpec,
) -> QuantTensor {
    if spec.has_zero_point() {
        return quantize_by(pool, w, rows, cols, spec, ScaleRule::ErrorSearch);
    }
    if spec.is_balanced() {
        return quantize_by(pool, w, rows, cols, spec, ScaleRule::Absmax);
    }
    let found = [ScaleRule::SignedAbsmax, ScaleRule::ErrorSearch]
        .map(|rule| quantize_by(pool, w, rows, cols, spec, rule));
    let [signed, searched] = found.each_ref().map(|packed| squared_error(w, packed));
    let [by_sign, by_search] = found;
    if signed <= searched { by_sign } else { by_search }
}

/// Sum of (w - value)^2, in f64, row by row.
pub fn squared_error(w: &[f32], packed: &QuantTensor) -> f64 {
    let mut values = vec![0.0; packed.cols];
    let mut total = 0.0;
    for (row, w) in w.chunks_exact(packed.cols.max(1)).enumerate() {
        packed.decode_row(row, &mut values);
        total += w.iter().zip(&values).map(|(w, v)| (w - v) as f64 * (w - v) as f64).sum::<f64>();
    }
    total
}

/// One step of a row by the convex surrogate `sum max(s^2/12, max(0, |w| - s p)^2)`, in f64 (golden
/// `calibration`: convex_s). 0 for a row of zeros.
pub fn convex_step(row: &[f32], bits: u8) -> f64 {
    convex(Search::default().sort(row), Int::symmetric(bits).max() as f64)
}

fn symmetric(bits: u8) -> QuantSpec {
    QuantSpec::int(Int::symmetric(bits), Granularity::Channel, ScaleCodec::F32)
}

/// The surrogate is quadratic between the points |w_i| / (p + 1/sqrt 12), where weight i goes from
/// clipped to rounded: its minimum is that of a piece, or the point where the slope turns positive.
/// `sorted`: |w| ascending.
fn convex(sorted: &[f32], p: f64) -> f64 {
    let (mut total, mut low) = (sorted.iter().map(|&a| a as f64).sum::<f64>(), 0.0);
    for (i, &a) in sorted.iter().enumerate() {
        let clipped = (sorted.len() - i) as f64;
        let step = 2.0 * p * total / (i as f64 / 6.0 + 2.0 * p * p * clipped);
        let high = a as f64 / (p + 12f64.sqrt().recip());
        if step <= low || step < high {
            return step.max(low);
        }
        low = high;
        total -= a as f64;
    }
    low
}

/// The step of least squared error over all s > 0 on the symmetric grid (golden: mse_s). 0 for a
/// row of zeros.
pub fn error_step(row: &[f32], bits: u8) -> f64 {
    if row.iter().all(|&w| w == 0.0) {
        return 0.0;
    }
    Search::default().error_minimum(row, symmetric(bits)).map_or(0.0, |best| best.step)
}
