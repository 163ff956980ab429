use crate::{Pool, Real};

/// Causal grouped-query attention: q `[B, T, H, D]`, k and v `[B, S, K, D]`, y `[B, T, H, D]`, S >= T;
/// query t stands at key position S - T + t. Scores are scaled by 1/sqrt(D).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// Training forward. `log_sum_exp` `[B, T, H]` is what the backward needs of the softmax.
pub fn attention<T: Real>(_pool: &Pool, _shape: AttentionShape, _q: &[T], _k: &[T], _v: &[T], _y: &mut [T], _log_sum_exp: &mut [T]) {
    todo!()
}

/// Gradients of [`attention`]; dq, dk, dv are overwritten. Memory beyond them is bounded by a block of query rows, never T x T.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<T: Real>(
    _pool: &Pool,
    _shape: AttentionShape,
    _q: &[T],
    _k: &[T],
    _v: &[T],
    _y: &[T],
    _log_sum_exp: &[T],
    _dy: &[T],
    _dq: &mut [T],
    _dk: &mut [T],
    _dv: &mut [T],
) {
    todo!()
}

/// Inference: one query row `[H, D]` at absolute position `keys - 1` over `keys` cached rows, k and v `[keys, K, D]` (row stride K*D).
/// Float order depends on `keys` and D alone, so prefill and decode give the same bytes. `scores` is scratch `[keys]`.
#[allow(clippy::too_many_arguments)]
pub fn attend(_q: &[f32], _k: &[f32], _v: &[f32], _keys: usize, _heads: usize, _kv_heads: usize, _head_dim: usize, _scores: &mut [f32], _y: &mut [f32]) {
    todo!()
}
