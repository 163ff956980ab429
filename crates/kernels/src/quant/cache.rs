//! Cache quantizers: K after RoPE and V, per token and key/value head, by the rules of
//! [`super::activation`] along the head width.
use super::activation;
use super::scale::round_f16;
use crate::{ActivationQuantizer, CacheQuantizer, Pool, Real, dispatch};

/// Fake-quant of rows `[M, K * D]`: y = what a cache of this kind gives back. `step` for static
/// sites. F32 copies, F16 rounds.
pub fn fake_quant<T: Real>(
    pool: &Pool,
    quantizer: CacheQuantizer,
    x: &[T],
    kv_heads: usize,
    head_dim: usize,
    step: Option<T>,
    y: &mut [T],
) {
    assert_eq!(x.len(), y.len(), "shapes of the cache");
    assert_eq!(x.len() % (kv_heads * head_dim).max(1), 0, "whole rows of the cache");
    match quantizer {
        CacheQuantizer::F32 => y.copy_from_slice(x),
        CacheQuantizer::F16 => pool.chunks_mut(y, PIECE, |i, y| halves(&x[i * PIECE..], y)),
        CacheQuantizer::DynamicHead { bits } => activation::fake_quant(
            pool,
            ActivationQuantizer::DynamicToken { bits },
            x,
            head_dim,
            None,
            y,
        ),
        CacheQuantizer::Q8_0 => {
            activation::fake_quant(pool, ActivationQuantizer::DynamicBlock32, x, head_dim, None, y)
        }
        CacheQuantizer::Static { bits } => {
            activation::fake_quant(pool, ActivationQuantizer::Static { bits }, x, head_dim, step, y)
        }
    }
}

const PIECE: usize = 16384;

dispatch! {
    fn halves[T: Real](x: &[T], y: &mut [T]) {
        let x = &x[..y.len()];
        for i in 0..y.len() {
            y[i] = round_f16(x[i]);
        }
    }
}
