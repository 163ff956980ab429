//! Learned step size quantization (LSQ, 2020, arXiv 1902.08153): forward and both gradients in closed form.
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

/// `code = rnd(clip(v / s, n, p))`, `y = code * s`. v, y `[rows, cols]`; steps laid out as `partition` says.
#[allow(clippy::too_many_arguments)]
pub fn lsq_forward<T: Real>(
    _pool: &Pool,
    _v: &[T],
    _rows: usize,
    _cols: usize,
    _steps: &[T],
    _partition: Partition,
    _grid: IntGrid,
    _y: &mut [T],
    _codes: Option<&mut [i16]>,
) {
    todo!()
}

/// `dv = dy * inside`, `ds = sum of dy * (code - u inside, code outside)` per step, **without** LSQ's gradient scale. Both overwritten.
#[allow(clippy::too_many_arguments)]
pub fn lsq_backward<T: Real>(
    _pool: &Pool,
    _v: &[T],
    _rows: usize,
    _cols: usize,
    _steps: &[T],
    _partition: Partition,
    _grid: IntGrid,
    _edge: EdgeRule,
    _dy: &[T],
    _dv: &mut [T],
    _ds: &mut [T],
) {
    todo!()
}
