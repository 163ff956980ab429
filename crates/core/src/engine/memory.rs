//! What the system says about memory, in bytes (0 where it says nothing), and what a forward needs
//! of it.

use crate::{Error, Result};
use halfstep_formats::Architecture;

/// Memory that can be had without swapping.
pub fn available_bytes() -> u64 {
    field("/proc/meminfo", "MemAvailable:")
}

/// Peak resident memory of this process.
pub fn peak_bytes() -> u64 {
    field("/proc/self/status", "VmHWM:")
}

/// Resident memory of this process now.
pub fn resident_bytes() -> u64 {
    field("/proc/self/status", "VmRSS:")
}

/// Counts the peak from now on; false where the system cannot.
pub fn reset_peak() -> bool {
    // proc(5), clear_refs: 5 resets the high water mark.
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Without a system that tells: what training `learned` numbers takes, each with its gradient, two
/// moments, its unquantized twin and its value in the forward, beside `held` bytes and the forward
/// of `rows` tokens through `blocks` blocks.
pub fn estimate(a: &Architecture, held: u64, learned: u64, rows: usize, blocks: usize) -> u64 {
    held + 6 * size_of::<f32>() as u64 * learned
        + blocks as u64 * block_bytes(a, rows, size_of::<f32>())
}

/// Bytes of what one block's forward over `rows` tokens leaves for its backward, in numbers of
/// `size` bytes: the inputs of the norms, what attention reads and gives, gate and up. Of the
/// largest layer.
pub fn block_bytes(a: &Architecture, rows: usize, size: usize) -> u64 {
    let per_token = a.layers.iter().map(|layer| {
        let (q, kv) = (layer.attention.query_width(), layer.attention.key_width());
        let head_norms = if layer.attention.qk_norm.is_some() { q + kv } else { 0 };
        2 * a.hidden_size + 2 * q + 2 * kv + head_norms + 2 * layer.feed_forward.intermediate_size
    });
    (rows * per_token.max().unwrap_or(0) * size) as u64
}

/// Refuses an f32 forward of `rows` tokens that cannot fit in the free memory even with
/// recomputation, where the system tells how much that is.
pub fn check(a: &Architecture, rows: usize) -> Result<()> {
    let inputs = (rows * a.layers.len() * a.hidden_size * size_of::<f32>()) as u64;
    let (least, free) = (block_bytes(a, rows, size_of::<f32>()) + inputs, available_bytes());
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

fn field(file: &str, name: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string(file) else { return 0 };
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
        * 1024
}
