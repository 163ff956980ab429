//! Learned step size quantization (LSQ, 2020, arXiv 1902.08153): forward and both gradients in
//! closed form.
//!
//!     u = v / s (a division)      code = rnd(clip(u, n, p))      y = code * s
//!     dy/dv = 1 inside, 0 outside      dy/ds = code - u inside, code (the bound itself) outside
//!
//! `rnd` is nearest, ties to even. Equality with a bound is inside or outside as [`EdgeRule`] says
//! (the paper: outside). A step may be negative (ggml's signed start): the formulas hold as they
//! stand. A step of zero belongs to an all-zero group: codes and values 0, `dv = dy`, `ds = 0`. A
//! value that is NaN stays one, so that a broken run is seen.
use super::rounding::{clip_round, nearest_even_bits, rounded_quotients};
use crate::ops::lanes::{LANES, fold, padded};
use crate::{Granularity, Pool, QuantSpec, Real, dispatch};
use serde::{Deserialize, Serialize};

/// Whether `u` equal to a bound of the grid counts as inside (ParetoQ's code; default) or outside
/// (LSQ's paper).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum EdgeRule {
    /// Inside: its gradient goes to the weight.
    #[default]
    Inside,
    /// Outside: its gradient goes to the scale.
    Outside,
}

/// Elements a task takes at least. Sums of a per-tensor step are made per piece of this size, then
/// in order of the pieces.
const PIECE: usize = 16384;

/// Groups whose lanes are kept and folded together.
const FOLDED: usize = 16;

/// How a matrix falls into tasks, rows and groups. A per-tensor step sees one long row, cut into
/// pieces.
pub(super) struct Split {
    /// Elements of one task: whole rows, or a piece of the one row of a tensor.
    pub piece: usize,
    /// Steps of one task.
    pub steps: usize,
    pub row: usize,
    pub group: usize,
    tensor: bool,
}

impl Split {
    pub fn new(rows: usize, cols: usize, granularity: Granularity) -> Self {
        let cols = cols.max(1);
        if granularity == Granularity::Tensor {
            return Self { piece: PIECE, steps: 1, row: PIECE, group: PIECE, tensor: true };
        }
        let rows = (PIECE / cols).clamp(1, rows.max(1));
        Self {
            piece: rows * cols,
            steps: rows * granularity.groups(cols),
            row: cols,
            group: granularity.group_size(cols),
            tensor: false,
        }
    }
    /// The steps of task `index`.
    pub fn steps_of<'a, T>(&self, index: usize, steps: &'a [T]) -> &'a [T] {
        if self.tensor {
            steps
        } else {
            &steps[index * self.steps..steps.len().min((index + 1) * self.steps)]
        }
    }
}

/// The smallest and the largest code.
fn bounds<T: Real>(spec: QuantSpec) -> (T, T) {
    (T::from_f64(spec.min_code().into()), T::from_f64(spec.max_code().into()))
}

/// `code = rnd(clip(v / s, n, p))`, `y = code * s`. v, y `[rows, cols]`; steps laid out as
/// its granularity says.
#[allow(clippy::too_many_arguments)]
pub fn lsq_forward<T: Real>(
    pool: &Pool,
    v: &[T],
    rows: usize,
    cols: usize,
    steps: &[T],
    spec: QuantSpec,
    y: &mut [T],
    codes: Option<&mut [i16]>,
) {
    assert_eq!(
        (v.len(), y.len(), steps.len()),
        (rows * cols, rows * cols, spec.granularity.scales(rows, cols)),
        "shapes of lsq_forward"
    );
    let split = Split::new(rows, cols, spec.granularity);
    let limits = bounds::<T>(spec);
    let mut no_codes = vec![];
    let codes = codes.unwrap_or(&mut no_codes);
    let mut code_pieces = codes.chunks_mut(split.piece);
    let tasks =
        y.chunks_mut(split.piece).map(|y| (y, code_pieces.next().unwrap_or_default())).collect();
    pool.parts(tasks, |index, (y, codes): (&mut [T], &mut [i16])| {
        let v = &v[index * split.piece..][..y.len()];
        forward_piece(v, split.steps_of(index, steps), split.row, split.group, limits, y);
        if !codes.is_empty() {
            piece_codes(v, split.steps_of(index, steps), split.row, split.group, limits, codes);
        }
    });
}

dispatch! {
    fn forward_piece[T: Real](
        v: &[T],
        steps: &[T],
        row: usize,
        group: usize,
        limits: (T, T),
        y: &mut [T],
    ) {
        match usual(row, group) {
            32 => forward_groups::<T, 32>(v, steps, limits, y),
            64 => forward_groups::<T, 64>(v, steps, limits, y),
            128 => forward_groups::<T, 128>(v, steps, limits, y),
            _ => {
                let mut steps = steps.iter();
                for (v, y) in v.chunks(row).zip(y.chunks_mut(row)) {
                    for ((v, y), &s) in v.chunks(group).zip(y.chunks_mut(group)).zip(&mut steps) {
                        forward_run(v, s, limits, y);
                    }
                }
            }
        }
    }

    fn piece_codes[T: Real](
        v: &[T],
        steps: &[T],
        row: usize,
        group: usize,
        limits: (T, T),
        codes: &mut [i16],
    ) {
        let mut steps = steps.iter();
        for (v, codes) in v.chunks(row).zip(codes.chunks_mut(row)) {
            for ((v, codes), &s) in v.chunks(group).zip(codes.chunks_mut(group)).zip(&mut steps) {
                codes_of(v, s, limits, codes);
            }
        }
    }

    /// Writes dv and the sum of each step, in f64.
    fn backward_piece[T: Real](
        v: &[T],
        steps: &[T],
        row: usize,
        group: usize,
        limits: (T, T),
        edge: EdgeRule,
        dy: &[T],
        dv: &mut [T],
        ds: &mut [f64],
    ) {
        match (edge, usual(row, group)) {
            (EdgeRule::Inside, 32) => backward_groups::<T, 32>(v, steps, limits, dy, dv, ds),
            (EdgeRule::Inside, 64) => backward_groups::<T, 64>(v, steps, limits, dy, dv, ds),
            (EdgeRule::Inside, 128) => backward_groups::<T, 128>(v, steps, limits, dy, dv, ds),
            _ => {
                let mut steps = steps.iter().zip(ds);
                for ((v, dy), dv) in v.chunks(row).zip(dy.chunks(row)).zip(dv.chunks_mut(row)) {
                    for (((v, dy), dv), (&s, ds)) in v
                        .chunks(group)
                        .zip(dy.chunks(group))
                        .zip(dv.chunks_mut(group))
                        .zip(&mut steps)
                    {
                        *ds = match edge {
                            EdgeRule::Inside => backward_run::<T, true>(v, s, limits, dy, dv),
                            EdgeRule::Outside => backward_run::<T, false>(v, s, limits, dy, dv),
                        };
                    }
                }
            }
        }
    }
}

/// The group's size where all groups are whole, else 0: the usual sizes have loops of their own, of
/// a length the compiler knows.
#[inline(always)]
fn usual(row: usize, group: usize) -> usize {
    if row.is_multiple_of(group) { group } else { 0 }
}

#[inline(always)]
fn forward_groups<T: Real, const GROUP: usize>(v: &[T], steps: &[T], limits: (T, T), y: &mut [T]) {
    let (v, y) = (v.as_chunks::<GROUP>().0, y.as_chunks_mut::<GROUP>().0);
    let (v, steps) = (&v[..y.len()], &steps[..y.len()]);
    for g in 0..y.len() {
        forward_run(&v[g], steps[g], limits, &mut y[g]);
    }
}

#[inline(always)]
fn forward_run<T: Real>(v: &[T], s: T, limits: (T, T), y: &mut [T]) {
    if s == T::ZERO {
        return y.fill(T::ZERO);
    }
    rounded_quotients(v, s, limits, y, |code| code * s);
}

#[inline(always)]
fn backward_groups<T: Real, const GROUP: usize>(
    v: &[T],
    steps: &[T],
    limits: (T, T),
    dy: &[T],
    dv: &mut [T],
    ds: &mut [f64],
) {
    let (v, dy, dv) =
        (v.as_chunks::<GROUP>().0, dy.as_chunks::<GROUP>().0, dv.as_chunks_mut::<GROUP>().0);
    let groups = dv.len();
    let (v, dy, steps, ds) = (&v[..groups], &dy[..groups], &steps[..groups], &mut ds[..groups]);
    // Lanes are folded later, some groups together: next to the loop that fills them the compiler
    // would take them apart into pairs.
    let mut partial = [[0.0f64; LANES]; FOLDED];
    for first in (0..groups).step_by(FOLDED) {
        let count = FOLDED.min(groups - first);
        for (g, partial) in (first..first + count).zip(&mut partial) {
            *partial = [0.0; LANES];
            if steps[g] == T::ZERO {
                dv[g] = dy[g];
                continue;
            }
            let (v, dy, dv) = (
                v[g].as_chunks::<LANES>().0,
                dy[g].as_chunks::<LANES>().0,
                dv[g].as_chunks_mut::<LANES>().0,
            );
            let mut lanes = [0.0f64; LANES];
            for c in 0..GROUP / LANES {
                dv[c] = slopes::<T, true>(v[c], steps[g], limits, dy[c], &mut lanes);
            }
            *partial = lanes;
        }
        for (ds, partial) in ds[first..first + count].iter_mut().zip(&partial) {
            *ds = fold(*partial);
        }
    }
}

/// Codes of a run under one step.
#[inline(always)]
pub(super) fn codes_of<T: Real>(v: &[T], s: T, limits: (T, T), codes: &mut [i16]) {
    if s == T::ZERO {
        return codes.fill(0);
    }
    rounded_quotients(v, s, limits, codes, |code| nearest_even_bits(code.to_f32()) as i16);
}

/// `dv = dy * inside`, `ds = sum of dy * (code - u inside, code outside)` per step, **without**
/// LSQ's gradient scale. Both overwritten.
#[allow(clippy::too_many_arguments)]
pub fn lsq_backward<T: Real>(
    pool: &Pool,
    v: &[T],
    rows: usize,
    cols: usize,
    steps: &[T],
    spec: QuantSpec,
    edge: EdgeRule,
    dy: &[T],
    dv: &mut [T],
    ds: &mut [T],
) {
    assert_eq!(
        (v.len(), dy.len(), dv.len()),
        (rows * cols, rows * cols, rows * cols),
        "shapes of lsq_backward"
    );
    assert_eq!(
        (steps.len(), ds.len()),
        (spec.granularity.scales(rows, cols), spec.granularity.scales(rows, cols)),
        "steps of lsq_backward"
    );
    let split = Split::new(rows, cols, spec.granularity);
    let limits = bounds::<T>(spec);
    let piece = |index: usize, dv: &mut [T], sums: &mut [f64]| {
        let at = index * split.piece;
        let (v, dy) = (&v[at..][..dv.len()], &dy[at..][..dv.len()]);
        backward_piece(
            v,
            split.steps_of(index, steps),
            split.row,
            split.group,
            limits,
            edge,
            dy,
            dv,
            sums,
        );
    };
    if split.tensor {
        // Its step has one sum per piece.
        let mut sums = vec![0.0; v.len().div_ceil(PIECE)];
        pool.parts(
            dv.chunks_mut(split.piece).zip(&mut sums).collect(),
            |index, (dv, sum): (&mut [T], &mut f64)| piece(index, dv, std::slice::from_mut(sum)),
        );
        ds[0] = T::from_f64(sums.iter().sum());
        return;
    }
    let tasks = dv.chunks_mut(split.piece).zip(ds.chunks_mut(split.steps)).collect();
    pool.parts(tasks, |index, (dv, ds): (&mut [T], &mut [T])| {
        let mut sums = vec![0.0; ds.len()];
        piece(index, dv, &mut sums);
        ds.iter_mut().zip(sums).for_each(|(ds, sum)| *ds = T::from_f64(sum));
    });
}

/// One run: writes dv, returns the sum for ds. Summed in f64 lanes: an f32 sum over a long row
/// would cost more than u's own rounding.
#[inline(always)]
fn backward_run<T: Real, const INSIDE: bool>(
    v: &[T],
    s: T,
    (n, p): (T, T),
    dy: &[T],
    dv: &mut [T],
) -> f64 {
    if s == T::ZERO {
        dv.copy_from_slice(dy);
        return 0.0;
    }
    let mut lanes = [0.0f64; LANES];
    let (v, v_rest) = v.as_chunks::<LANES>();
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (dv, dv_rest) = dv.as_chunks_mut::<LANES>();
    for ((v, dy), dv) in v.iter().zip(dy).zip(dv) {
        *dv = slopes::<T, INSIDE>(*v, s, (n, p), *dy, &mut lanes);
    }
    if !v_rest.is_empty() {
        // Filled up with weights whose gradient is 0, which changes no sum.
        let short = slopes::<T, INSIDE>(
            padded(v_rest, T::ZERO),
            s,
            (n, p),
            padded(dy_rest, T::ZERO),
            &mut lanes,
        );
        dv_rest.copy_from_slice(&short[..dv_rest.len()]);
    }
    fold(lanes)
}

/// dv of a few weights; adds what they give to ds. By value, so that the compiler need not ask
/// whether they overlap.
#[inline(always)]
fn slopes<T: Real, const INSIDE: bool>(
    v: [T; LANES],
    s: T,
    (n, p): (T, T),
    dy: [T; LANES],
    lanes: &mut [f64; LANES],
) -> [T; LANES] {
    let (mut to_v, mut to_s) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    for l in 0..LANES {
        let u = v[l] / s;
        let code = clip_round(u, n, p);
        let inside = if INSIDE { (u >= n) & (u <= p) } else { (u > n) & (u < p) };
        to_v[l] = if inside { dy[l] } else { T::ZERO };
        to_s[l] = dy[l] * if inside { code - u } else { code };
    }
    for l in 0..LANES {
        lanes[l] += to_s[l].to_f64();
    }
    to_v
}
