//! The memory that a forward needs, in bytes.

use crate::engine::side_streams;
use crate::host::Host;
use crate::{Error, Result};
use halfstep_formats::Architecture;
use halfstep_formats::architecture::{Attention, Dense, FeedForward, Layer, Mixer};

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
/// `size` bytes: the inputs of the norms, what the mixer reads and gives, gate and up. Of the
/// largest layer.
pub(crate) fn block_bytes(a: &Architecture, rows: usize, size: usize) -> u64 {
    let per_token = a.layers.iter().map(|layer| numbers(a, layer));
    (rows * per_token.max().unwrap_or(0) * size) as u64
}

/// Numbers of a token that the backward of a layer reads.
fn numbers(a: &Architecture, layer: &Layer) -> usize {
    let d = a.hidden_size;
    let mixer = match &layer.mixer {
        Mixer::Attention(attention) => attention_numbers(attention),
        // What is convolved, what the rule gives, what gates that, and what its own gates are of.
        Mixer::DeltaRule(delta) => {
            delta.channels() + 2 * delta.value_width() + 2 * delta.value_heads
        }
        Mixer::Convolution(_) => 3 * d,
    };
    let after =
        usize::from(layer.norms.post_attention) + usize::from(layer.norms.post_feed_forward);
    let dense = |dense: &Dense| {
        let parts = 1 + usize::from(dense.gated) + usize::from(dense.sub_norm);
        parts * dense.intermediate_size
    };
    let feed_forward = match &layer.feed_forward {
        FeedForward::Dense(of) => dense(of),
        // Rows of each expert, what it gives, and the scores.
        FeedForward::Experts(experts) => {
            let shared = experts.shared.as_ref().map_or(0, |shared| d + dense(shared));
            experts.count + experts.used * (2 * d + dense(&experts.expert)) + d + shared
        }
    };
    let second = a.per_layer_input.map_or(0, |input| 2 * input.width + 2 * d);
    2 * d + mixer + after * d + feed_forward + second
}

fn attention_numbers(attention: &Attention) -> usize {
    let q = attention.query_width();
    let kv = if attention.kv_from.is_none() { attention.key_width() } else { 0 };
    let of_heads = if attention.qk_norm.is_some() { q + kv } else { 0 };
    let values = if attention.v_norm { kv } else { 0 };
    let [inner, gate] = [attention.sub_norm, attention.gate].map(|on| if on { q } else { 0 });
    2 * q + 2 * kv + of_heads + values + inner + gate
}

/// Numbers of a token that a forward keeps between layers: their inputs, keys and values that later
/// layers read, and the pieces of a second embedding.
fn kept_numbers(a: &Architecture) -> usize {
    a.layers.len() * a.hidden_size + side_streams::width(a)
}

/// Refuses an f32 forward of `rows` tokens that cannot fit in the free memory even with
/// recomputation, where the system tells how much that is.
pub(crate) fn check(a: &Architecture, rows: usize, host: &Host) -> Result<()> {
    let inputs = (rows * kept_numbers(a) * size_of::<f32>()) as u64;
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
