//! The memory that a forward needs, in bytes.

use crate::host::Host;
use crate::{Error, Result};
use halfstep_formats::Architecture;

/// Without a system that tells: what training `learned` numbers takes, each with its gradient, two
/// moments, its unquantized twin and its value in the forward, beside `held` bytes and the forward
/// of `rows` tokens through `blocks` blocks.
pub(crate) fn estimate(
    a: &Architecture,
    held: u64,
    learned: u64,
    rows: usize,
    blocks: usize,
) -> u64 {
    held + 6 * size_of::<f32>() as u64 * learned
        + blocks as u64 * block_bytes(a, rows, size_of::<f32>())
}

/// Bytes of what one block's forward over `rows` tokens leaves for its backward, in numbers of
/// `size` bytes: the inputs of the norms, what attention reads and gives, gate and up. Of the
/// largest layer.
pub(crate) fn block_bytes(a: &Architecture, rows: usize, size: usize) -> u64 {
    let per_token = a.layers.iter().map(|layer| {
        let (q, kv) = (layer.attention.query_width(), layer.attention.key_width());
        let head_norms = if layer.attention.qk_norm.is_some() { q + kv } else { 0 };
        2 * a.hidden_size + 2 * q + 2 * kv + head_norms + 2 * layer.feed_forward.widest()
    });
    (rows * per_token.max().unwrap_or(0) * size) as u64
}

/// Refuses an f32 forward of `rows` tokens that cannot fit in the free memory even with
/// recomputation, where the system tells how much that is.
pub(crate) fn check(a: &Architecture, rows: usize, host: &Host) -> Result<()> {
    let inputs = (rows * a.layers.len() * a.hidden_size * size_of::<f32>()) as u64;
    let (least, free) = (block_bytes(a, rows, size_of::<f32>()) + inputs, host.memory.available());
    if free == 0 || least <= free {
        return Ok(());
    }
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let (least, free) = (gigabytes(least), gigabytes(free));
    let reason = format!(
        "a forward of {rows} tokens needs at least {least:.1} GB, and {free:.1} GB are free; use a smaller microBatch or batch"
    );
    Err(Error::config("batch", reason))
}
