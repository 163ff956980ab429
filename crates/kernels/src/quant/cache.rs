//! Cache quantizers: K after RoPE and V, per token.
use crate::{CacheQuantizer, Pool, Real};

/// Fake-quant of rows `[M, K * D]`: y = what a cache of this kind gives back. `step` for static sites. F32 copies, F16 rounds.
pub fn fake_quant<T: Real>(_pool: &Pool, _quantizer: CacheQuantizer, _x: &[T], _kv_heads: usize, _head_dim: usize, _step: Option<T>, _y: &mut [T]) {
    todo!()
}
