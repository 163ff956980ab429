//! Learned step size quantization (LSQ, 2020, arXiv 1902.08153): forward and both gradients in closed form.
//!
//!     u = v / s (a division)      code = rnd(clip(u, n, p))      y = code * s
//!     dy/dv = 1 inside, 0 outside           dy/ds = code - u inside, code (the bound itself) outside
//!
//! `rnd` is nearest, ties to even. Equality with a bound is inside or outside as [`EdgeRule`] says (the paper: outside).
//! A step may be negative (ggml's signed start): the formulas hold as they stand. A step of zero belongs to an all-zero group: codes and
//! values 0, `dv = dy`, `ds = 0`. A value that is not a number stays one, so that a broken run is seen.
use super::rounding::{clip, clip_round, nearest_even_bits};
use crate::ops::lanes::{LANES, fold};
use crate::{IntGrid, Partition, Pool, Real, dispatch};
use serde::{Deserialize, Serialize};

/// Whether `u` equal to a bound of the grid counts as inside (ParetoQ's code; default) or outside (LSQ's paper).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EdgeRule {
    #[default]
    Inside,
    Outside,
}

/// Elements a task takes at least. Sums of a per-tensor step are made per piece of this size, then in order of the pieces.
const PIECE: usize = 16384;

/// How a matrix falls into tasks, rows and groups. A per-tensor step sees one long row, cut into pieces.
struct Split {
    /// Elements of one task: whole rows, or a piece of the one row of a tensor.
    piece: usize,
    /// Steps of one task.
    steps: usize,
    row: usize,
    group: usize,
    tensor: bool,
}

impl Split {
    fn new(rows: usize, cols: usize, partition: Partition) -> Self {
        let cols = cols.max(1);
        if partition == Partition::Tensor {
            return Self { piece: PIECE, steps: 1, row: PIECE, group: PIECE, tensor: true };
        }
        let rows = (PIECE / cols).clamp(1, rows.max(1));
        Self { piece: rows * cols, steps: rows * partition.groups(cols), row: cols, group: partition.group_size(cols), tensor: false }
    }
    /// The steps of task `index`.
    fn steps_of<'a, T>(&self, index: usize, steps: &'a [T]) -> &'a [T] {
        if self.tensor { steps } else { &steps[index * self.steps..steps.len().min((index + 1) * self.steps)] }
    }
}

fn bounds<T: Real>(grid: IntGrid) -> (T, T) {
    (T::from_f64(grid.min() as f64), T::from_f64(grid.max() as f64))
}

/// `code = rnd(clip(v / s, n, p))`, `y = code * s`. v, y `[rows, cols]`; steps laid out as `partition` says.
#[allow(clippy::too_many_arguments)]
pub fn lsq_forward<T: Real>(
    pool: &Pool,
    v: &[T],
    rows: usize,
    cols: usize,
    steps: &[T],
    partition: Partition,
    grid: IntGrid,
    y: &mut [T],
    codes: Option<&mut [i16]>,
) {
    assert_eq!((v.len(), y.len(), steps.len()), (rows * cols, rows * cols, partition.scales(rows, cols)), "shapes of lsq_forward");
    let split = Split::new(rows, cols, partition);
    let limits = bounds::<T>(grid);
    let mut no_codes = vec![];
    let codes = codes.unwrap_or(&mut no_codes);
    let mut code_pieces = codes.chunks_mut(split.piece);
    let tasks = y.chunks_mut(split.piece).map(|y| (y, code_pieces.next().unwrap_or_default())).collect();
    pool.parts(tasks, |index, (y, codes): (&mut [T], &mut [i16])| {
        let v = &v[index * split.piece..][..y.len()];
        forward_piece(v, split.steps_of(index, steps), split.row, split.group, limits, y);
        if !codes.is_empty() {
            piece_codes(v, split.steps_of(index, steps), split.row, split.group, limits, codes);
        }
    });
}

dispatch! {
    fn forward_piece[T: Real](v: &[T], steps: &[T], row: usize, group: usize, limits: (T, T), y: &mut [T]) {
        let (n, p) = limits;
        let mut steps = steps.iter();
        for (v, y) in v.chunks(row).zip(y.chunks_mut(row)) {
            for ((v, y), &s) in v.chunks(group).zip(y.chunks_mut(group)).zip(&mut steps) {
                if s == T::ZERO {
                    y.fill(T::ZERO);
                    continue;
                }
                for (&v, y) in v.iter().zip(y) {
                    *y = clip_round(v / s, n, p) * s;
                }
            }
        }
    }

    fn piece_codes[T: Real](v: &[T], steps: &[T], row: usize, group: usize, limits: (T, T), codes: &mut [i16]) {
        let mut steps = steps.iter();
        for (v, codes) in v.chunks(row).zip(codes.chunks_mut(row)) {
            for ((v, codes), &s) in v.chunks(group).zip(codes.chunks_mut(group)).zip(&mut steps) {
                codes_of(v, s, limits, codes);
            }
        }
    }

    /// Writes dv and the sum of each step, in f64.
    fn backward_piece[T: Real](v: &[T], steps: &[T], row: usize, group: usize, limits: (T, T), edge: EdgeRule, dy: &[T], dv: &mut [T], ds: &mut [f64]) {
        let mut steps = steps.iter().zip(ds);
        for ((v, dy), dv) in v.chunks(row).zip(dy.chunks(row)).zip(dv.chunks_mut(row)) {
            for (((v, dy), dv), (&s, ds)) in v.chunks(group).zip(dy.chunks(group)).zip(dv.chunks_mut(group)).zip(&mut steps) {
                *ds = match edge {
                    EdgeRule::Inside => backward_run::<T, true>(v, s, limits, dy, dv),
                    EdgeRule::Outside => backward_run::<T, false>(v, s, limits, dy, dv),
                };
            }
        }
    }
}

/// Codes of a run under one step.
#[inline(always)]
pub(super) fn codes_of<T: Real>(v: &[T], s: T, (n, p): (T, T), codes: &mut [i16]) {
    if s == T::ZERO {
        return codes.fill(0);
    }
    for (&v, code) in v.iter().zip(codes) {
        *code = nearest_even_bits(clip(v / s, n, p).to_f32()) as i16;
    }
}

/// `dv = dy * inside`, `ds = sum of dy * (code - u inside, code outside)` per step, **without** LSQ's gradient scale. Both overwritten.
#[allow(clippy::too_many_arguments)]
pub fn lsq_backward<T: Real>(
    pool: &Pool,
    v: &[T],
    rows: usize,
    cols: usize,
    steps: &[T],
    partition: Partition,
    grid: IntGrid,
    edge: EdgeRule,
    dy: &[T],
    dv: &mut [T],
    ds: &mut [T],
) {
    assert_eq!((v.len(), dy.len(), dv.len()), (rows * cols, rows * cols, rows * cols), "shapes of lsq_backward");
    assert_eq!((steps.len(), ds.len()), (partition.scales(rows, cols), partition.scales(rows, cols)), "steps of lsq_backward");
    let split = Split::new(rows, cols, partition);
    let limits = bounds::<T>(grid);
    // A tensor's step has one sum per piece.
    let mut sums = vec![0.0; if split.tensor { v.len().div_ceil(PIECE) } else { ds.len() }];
    let tasks = dv.chunks_mut(split.piece).zip(sums.chunks_mut(split.steps)).collect();
    pool.parts(tasks, |index, (dv, sums): (&mut [T], &mut [f64])| {
        let at = index * split.piece;
        let (v, dy) = (&v[at..][..dv.len()], &dy[at..][..dv.len()]);
        backward_piece(v, split.steps_of(index, steps), split.row, split.group, limits, edge, dy, dv, sums);
    });
    if split.tensor {
        ds[0] = T::from_f64(sums.iter().sum());
    } else {
        ds.iter_mut().zip(sums).for_each(|(ds, sum)| *ds = T::from_f64(sum));
    }
}

/// One run: writes dv, returns the sum for ds. Summed in f64 lanes: an f32 sum over a long row would cost more than u's own rounding.
#[inline(always)]
fn backward_run<T: Real, const INSIDE: bool>(v: &[T], s: T, (n, p): (T, T), dy: &[T], dv: &mut [T]) -> f64 {
    if s == T::ZERO {
        dv.copy_from_slice(dy);
        return 0.0;
    }
    let slope = |v: T, dy: T| {
        let u = v / s;
        let code = clip_round(u, n, p);
        let inside = if INSIDE { u >= n && u <= p } else { u > n && u < p };
        (if inside { dy } else { T::ZERO }, dy * if inside { code - u } else { code })
    };
    let mut lanes = [0.0f64; LANES];
    let (v, v_rest) = v.as_chunks::<LANES>();
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (dv, dv_rest) = dv.as_chunks_mut::<LANES>();
    for ((v, dy), dv) in v.iter().zip(dy).zip(dv) {
        for l in 0..LANES {
            let (to_v, to_s) = slope(v[l], dy[l]);
            dv[l] = to_v;
            lanes[l] += to_s.to_f64();
        }
    }
    let mut rest = lanes;
    for (((&v, &dy), dv), lane) in v_rest.iter().zip(dy_rest).zip(dv_rest).zip(&mut rest) {
        let (to_v, to_s) = slope(v, dy);
        *dv = to_v;
        *lane += to_s.to_f64();
    }
    fold(rest)
}
