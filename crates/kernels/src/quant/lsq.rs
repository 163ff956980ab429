//! Learned step size quantization (LSQ, 2020, arXiv 1902.08153): forward and both gradients in closed form.
//!
//!     u = v / s (a division)      code = rnd(clip(u, n, p))      y = code * s
//!     dy/dv = 1 inside, 0 outside           dy/ds = code - u inside, code (the bound itself) outside
//!
//! `rnd` is nearest, ties to even. Equality with a bound is inside or outside as [`EdgeRule`] says (the paper: outside).
//! A step may be negative (ggml's signed start): the formulas hold as they stand. A step of zero belongs to an all-zero group: codes and
//! values 0, `dv = dy`, `ds = 0`. A value that is not a number stays one, so that a broken run is seen.
use crate::{IntGrid, Partition, Pool, Real};
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
/// Virtual lanes of a sum: lane = position in its group modulo LANES.
const LANES: usize = 16;

/// How a matrix falls into tasks and each task into runs of one step.
struct Split {
    /// Elements of one task.
    piece: usize,
    /// Steps of one task (1 per tensor: the same one for every task).
    steps: usize,
    cols: usize,
    group: usize,
    tensor: bool,
}

impl Split {
    fn new(rows: usize, cols: usize, partition: Partition) -> Self {
        let cols = cols.max(1);
        if partition == Partition::Tensor {
            return Self { piece: PIECE, steps: 1, cols, group: PIECE, tensor: true };
        }
        let rows = (PIECE / cols).clamp(1, rows.max(1));
        Self { piece: rows * cols, steps: rows * partition.groups(cols), cols, group: partition.group_size(cols), tensor: false }
    }
    /// The steps of task `index`.
    fn steps_of<'a, T>(&self, index: usize, steps: &'a [T]) -> &'a [T] {
        if self.tensor { steps } else { &steps[index * self.steps..steps.len().min((index + 1) * self.steps)] }
    }
    /// Runs of one step of a task: (start, end, step index within the task).
    fn runs(&self, len: usize) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let row = if self.tensor { len } else { self.cols };
        let groups = row.div_ceil(self.group);
        (0..len / row.max(1)).flat_map(move |r| {
            (0..groups).map(move |g| {
                let start = r * row + g * self.group;
                (start, (start + self.group).min((r + 1) * row), if self.tensor { 0 } else { r * groups + g })
            })
        })
    }
}

fn bounds<T: Real>(grid: IntGrid) -> (T, T) {
    (T::from_f64(grid.min() as f64), T::from_f64(grid.max() as f64))
}

/// `rnd(clip(u, n, p))` as a whole number, never -0; not a number stays so.
#[inline(always)]
pub(super) fn code<T: Real>(u: T, n: T, p: T) -> T {
    let low = if n > u { n } else { u };
    (if p < low { p } else { low }).round() + T::ZERO
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
    let (n, p) = bounds::<T>(grid);
    let mut no_codes = vec![];
    let codes = codes.unwrap_or(&mut no_codes);
    let mut code_pieces = codes.chunks_mut(split.piece);
    let mut tasks: Vec<_> = y.chunks_mut(split.piece).map(|y| (y, code_pieces.next().unwrap_or_default())).collect();
    pool.chunks_mut(&mut tasks, 1, |index, task| {
        let (y, codes) = &mut task[0];
        let v = &v[index * split.piece..][..y.len()];
        let steps = split.steps_of(index, steps);
        for (start, end, step) in split.runs(y.len()) {
            forward_run(&v[start..end], steps[step], n, p, &mut y[start..end], if codes.is_empty() { &mut [] } else { &mut codes[start..end] });
        }
    });
}

#[inline(always)]
fn forward_run<T: Real>(v: &[T], s: T, n: T, p: T, y: &mut [T], codes: &mut [i16]) {
    if s == T::ZERO {
        y.fill(T::ZERO);
        codes.fill(0);
        return;
    }
    for (y, &v) in y.iter_mut().zip(v) {
        *y = code(v / s, n, p) * s;
    }
    for (c, &v) in codes.iter_mut().zip(v) {
        *c = code(v / s, n, p).to_f32() as i16;
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
    let mut partial = vec![T::ZERO; if split.tensor { v.len().div_ceil(PIECE) } else { 0 }];
    let mut partial64 = vec![0.0; partial.len()];
    let ds_pieces = if split.tensor { partial.chunks_mut(1) } else { ds.chunks_mut(split.steps) };
    let mut wide = partial64.chunks_mut(1);
    let mut tasks: Vec<_> = dv.chunks_mut(split.piece).zip(ds_pieces).map(|(dv, ds)| (dv, ds, wide.next().unwrap_or_default())).collect();
    pool.chunks_mut(&mut tasks, 1, |index, task| {
        let (dv, ds, wide) = &mut task[0];
        let at = index * split.piece;
        let (v, dy) = (&v[at..][..dv.len()], &dy[at..][..dv.len()]);
        let steps = split.steps_of(index, steps);
        for (start, end, step) in split.runs(dv.len()) {
            let (v, dy, dv) = (&v[start..end], &dy[start..end], &mut dv[start..end]);
            let sum = match edge {
                EdgeRule::Inside => backward_run::<T, true>(v, steps[step], limits, dy, dv),
                EdgeRule::Outside => backward_run::<T, false>(v, steps[step], limits, dy, dv),
            };
            ds[step] = T::from_f64(sum);
            if let Some(w) = wide.first_mut() {
                *w = sum;
            }
        }
    });
    if split.tensor {
        ds[0] = T::from_f64(partial64.iter().sum());
    }
}

/// One run: writes dv, returns the sum for ds. Summed in f64 lanes: an f32 sum over a long row would cost more than u's own rounding.
#[inline(always)]
fn backward_run<T: Real, const INSIDE: bool>(v: &[T], s: T, (n, p): (T, T), dy: &[T], dv: &mut [T]) -> f64 {
    if s == T::ZERO {
        dv.copy_from_slice(dy);
        return 0.0;
    }
    let mut lanes = [0.0f64; LANES];
    let slope = |v: T, dy: T| {
        let u = v / s;
        let code = code(u, n, p);
        let inside = if INSIDE { u >= n && u <= p } else { u > n && u < p };
        (if inside { dy } else { T::ZERO }, dy * if inside { code - u } else { code })
    };
    let (v16, v_rest) = v.as_chunks::<LANES>();
    let (dy16, dy_rest) = dy.as_chunks::<LANES>();
    let (dv16, dv_rest) = dv.as_chunks_mut::<LANES>();
    for ((v, dy), dv) in v16.iter().zip(dy16).zip(dv16) {
        for l in 0..LANES {
            let (to_v, to_s) = slope(v[l], dy[l]);
            dv[l] = to_v;
            lanes[l] += to_s.to_f64();
        }
    }
    for (l, ((&v, &dy), dv)) in v_rest.iter().zip(dy_rest).zip(dv_rest).enumerate() {
        let (to_v, to_s) = slope(v, dy);
        *dv = to_v;
        lanes[l] += to_s.to_f64();
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
}
