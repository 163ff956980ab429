use crate::{Pool, Real};

/// Mean over kept rows of KL(softmax(teacher / T) || softmax(student / T)), without the factor T^2.
/// teacher, student `[M, V]`; `kept[m] == 0` drops row m; the mean divides by `normalizer` (the number of kept rows of the whole batch,
/// so that chunks add up). Writes per-row KL (0 where dropped) to `row_kl` `[M]` and, if given, dL/dstudent to `dstudent` `[M, V]`. Returns this chunk's share of the loss.
#[allow(clippy::too_many_arguments)]
pub fn kl_divergence<T: Real>(
    _pool: &Pool,
    _teacher: &[T],
    _student: &[T],
    _vocab: usize,
    _temperature: f64,
    _kept: Option<&[u8]>,
    _normalizer: f64,
    _row_kl: &mut [f64],
    _dstudent: Option<&mut [T]>,
) -> f64 {
    todo!()
}

/// Target that is not counted by [`cross_entropy`].
pub const IGNORE_INDEX: i64 = -100;

/// Mean over counted rows of -ln softmax(student)[target]; as [`kl_divergence`] otherwise. `row_nll` `[M]`.
pub fn cross_entropy<T: Real>(
    _pool: &Pool,
    _student: &[T],
    _targets: &[i64],
    _vocab: usize,
    _normalizer: f64,
    _row_nll: &mut [f64],
    _dstudent: Option<&mut [T]>,
) -> f64 {
    todo!()
}
