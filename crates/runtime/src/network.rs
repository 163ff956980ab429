//! The forward pass, read off the architecture.
//!
//! Per layer: `h = x + Wo attn(rope(Wq n), Qk(rope(Wk n)), Qv(Wv n))` with `n = norm(x)`, queries
//! and keys normalised before the rotation if the architecture has such norms, then `y = h + Wdown
//! swiglu(Wgate m, Wup m)` with `m = norm(h)`; in the end the final norm and the head.
//! Every row's numbers depend on the rows before it through the cache alone, and no operation's
//! order depends on the number of rows: prefill and decode give the same bytes.

mod build;

use crate::cache::{Decoded, Kept, LayerCache};
use crate::matrix::{Projection, apply_all};
use crate::{Cache, Error, Result};
use halfstep_formats::Architecture;
use halfstep_formats::architecture::Layer;
use halfstep_kernels::Pool;
use halfstep_kernels::ops::attend::{Keys, attend};
use halfstep_kernels::ops::rms_norm::rms_norm;
use halfstep_kernels::ops::rope::{RopeTable, turn, turns};
use halfstep_kernels::ops::swiglu::swiglu;
use std::sync::Arc;

/// Number of rows that pass through the layers together: bounds the memory of a long prefill.
const PREFILL_ROWS: usize = 256;
/// Number of rows whose attention is computed together.
const ATTEND_ROWS: usize = 16;

/// How packed weights are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Integer if the model has `Model::quantization`, otherwise float.
    #[default]
    Auto,
    /// Weights decoded to f32, activations and cache in f32, whatever the file contains.
    Float,
    /// The model's own integer arithmetic; an error if it has none.
    Integer,
}

/// Which rows of logits a forward returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// The logits of every token.
    All,
    /// The logits of the last token.
    Last,
    /// No logits: only the cache is filled.
    None,
}

/// Called after each layer with its number and the rows of its output, `[rows, D]`; a long prefill
/// comes in several pieces per layer.
pub type Observer<'a> = dyn FnMut(usize, &[f32]) + 'a;

/// A model ready to run. Immutable and shareable; all changing state is in [`Cache`].
pub struct Network {
    architecture: Architecture,
    pool: Pool,
    embedding: Arc<Projection>,
    blocks: Vec<Block>,
    final_norm: Vec<f32>,
    /// The embedding itself when tied.
    head: Arc<Projection>,
    /// The rotations of the layers, each once.
    ropes: Vec<RopeTable>,
}

struct Block {
    attn_norm: Vec<f32>,
    /// Of each head, shared by all of them: `[head width]`.
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    ffn_norm: Vec<f32>,
    q: Projection,
    k: Projection,
    v: Projection,
    o: Projection,
    gate: Projection,
    up: Projection,
    down: Projection,
    /// Index of its rotation among those of the network.
    rope: usize,
    /// How the cache keeps what is new of this layer.
    keys: Kept,
    values: Kept,
}

/// A sequence whose last `rows` rows pass through the layers; `cache` will hold all of them.
struct Run<'a> {
    cache: &'a mut Cache,
    rows: usize,
}

/// Rows on their way through a layer. Widths of the layer it was fitted to last: D model, Q = H *
/// head width, C = K * head width, F intermediate.
#[derive(Default)]
struct Workspace {
    rows: usize,
    normed: Vec<f32>,    // [M, D]
    branch: Vec<f32>,    // [M, D]
    q: Vec<f32>,         // [M, Q]
    q_turned: Vec<f32>,  // [M, Q]
    attended: Vec<f32>,  // [M, Q]
    k: Vec<f32>,         // [M, C]
    k_turned: Vec<f32>,  // [M, C]
    v: Vec<f32>,         // [M, C]
    gate: Vec<f32>,      // [M, F]
    up: Vec<f32>,        // [M, F]
    activated: Vec<f32>, // [M, F]
    /// `[M, 2, head width / 2]` of each of the network's ropes.
    turns: Vec<Vec<f32>>,
    /// Of each run.
    decoded: Vec<Decoded>,
}

impl Network {
    /// The architecture of the model.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The threads that computations use.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Bytes of the weights held in memory (a tied head counts once).
    pub fn memory_bytes(&self) -> usize {
        let head = if self.architecture.tied_head { 0 } else { self.head.weight.bytes() };
        self.embedding.weight.bytes()
            + head
            + size_of_val(self.final_norm.as_slice())
            + self.blocks.iter().map(Block::bytes).sum::<usize>()
    }

    /// Appends `tokens` to the sequence in `cache` and returns logits `[rows, V]`. Errors, before
    /// anything is computed: no token, an id outside the vocabulary, a sequence longer than
    /// `max_positions`.
    pub fn forward(&self, tokens: &[u32], cache: &mut Cache, logits: Logits) -> Result<Vec<f32>> {
        self.forward_with(tokens, cache, logits, &mut |_, _| {})
    }

    /// [`Self::forward`], showing the hidden state after each layer.
    pub fn forward_with(
        &self,
        tokens: &[u32],
        cache: &mut Cache,
        logits: Logits,
        observe: &mut Observer,
    ) -> Result<Vec<f32>> {
        self.check(tokens, cache)?;
        let (d, mut out) = (self.architecture.hidden_size, vec![]);
        let pieces = tokens.len().div_ceil(PREFILL_ROWS);
        for (i, piece) in tokens.chunks(PREFILL_ROWS).enumerate() {
            let x = self.blocks(piece, &mut [Run { cache, rows: piece.len() }], observe);
            let requested = match logits {
                Logits::All => &x[..],
                Logits::Last if i + 1 == pieces => &x[x.len() - d..],
                _ => continue,
            };
            let held = out.len();
            out.resize(held + requested.len() / d * self.architecture.vocab_size, 0.0);
            self.head(&self.normalize(requested), &mut out[held..]);
        }
        Ok(out)
    }

    /// Appends `tokens` and returns what the head reads: the rows after the final norm, `[rows,
    /// D]`. With [`Self::head`], logits of any rows without holding all of them.
    pub fn features(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        self.check(tokens, cache)?;
        let mut out = Vec::with_capacity(tokens.len() * self.architecture.hidden_size);
        for piece in tokens.chunks(PREFILL_ROWS) {
            let x = self.blocks(piece, &mut [Run { cache, rows: piece.len() }], &mut |_, _| {});
            out.extend_from_slice(&self.normalize(&x));
        }
        Ok(out)
    }

    /// Logits `[rows, V]` of rows of [`Self::features`] `[rows, D]`.
    pub fn head(&self, features: &[f32], logits: &mut [f32]) {
        self.head.apply(
            &self.pool,
            features,
            logits,
            features.len() / self.architecture.hidden_size,
        );
    }

    pub(crate) fn empty_layers(&self) -> Vec<LayerCache> {
        let layers = self.architecture.layers.iter().zip(&self.blocks);
        layers
            .map(|(layer, b)| {
                let a = &layer.attention;
                LayerCache::new(a.kv_heads, a.head_dim, b.keys, b.values)
            })
            .collect()
    }

    /// Whether `tokens` may follow what is in the cache.
    fn check(&self, tokens: &[u32], cache: &Cache) -> Result<()> {
        let a = &self.architecture;
        if tokens.is_empty() {
            return Err(Error::argument("tokens", "is empty"));
        }
        self.check_ids("tokens", tokens)?;
        if cache.len() + tokens.len() > a.max_positions {
            let reason = format!(
                "{} tokens after {} are more than the model's {} positions",
                tokens.len(),
                cache.len(),
                a.max_positions
            );
            return Err(Error::argument("tokens", reason));
        }
        Ok(())
    }

    pub(crate) fn check_ids(&self, field: &str, tokens: &[u32]) -> Result<()> {
        let vocab_size = self.architecture.vocab_size;
        match tokens.iter().position(|&id| id as usize >= vocab_size) {
            Some(i) => Err(Error::argument(
                field,
                format!("id {} at {i} is outside the vocabulary of {vocab_size}", tokens[i]),
            )),
            None => Ok(()),
        }
    }

    fn normalize(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        rms_norm(&self.pool, x, &self.final_norm, self.architecture.norm.eps, &mut y);
        y
    }

    /// Appends one token to each of several sequences; their logits `[sequences, V]`, the bytes
    /// that [`Self::forward`] gives for each alone. Errors, before anything is computed: as
    /// [`Self::forward`]; not as many caches as tokens.
    pub fn forward_each(&self, tokens: &[u32], caches: &mut [&mut Cache]) -> Result<Vec<f32>> {
        if tokens.len() != caches.len() {
            return Err(Error::argument(
                "tokens",
                format!("{} for {} sequences", tokens.len(), caches.len()),
            ));
        }
        for (token, cache) in tokens.iter().zip(caches.iter()) {
            self.check(std::slice::from_ref(token), cache)?;
        }
        let mut out = Vec::with_capacity(tokens.len() * self.architecture.vocab_size);
        for (tokens, caches) in tokens.chunks(PREFILL_ROWS).zip(caches.chunks_mut(PREFILL_ROWS)) {
            let mut runs: Vec<Run> =
                caches.iter_mut().map(|cache| Run { cache, rows: 1 }).collect();
            let x = self.normalize(&self.blocks(tokens, &mut runs, &mut |_, _| {}));
            let held = out.len();
            out.resize(held + tokens.len() * self.architecture.vocab_size, 0.0);
            self.head(&x, &mut out[held..]);
        }
        Ok(out)
    }

    /// Runs checked tokens, run after run, through all layers; their hidden states `[rows, D]`.
    fn blocks(&self, tokens: &[u32], runs: &mut [Run], observe: &mut Observer) -> Vec<f32> {
        let d = self.architecture.hidden_size;
        let mut x = vec![0.0; tokens.len() * d];
        for (row, &id) in x.chunks_exact_mut(d).zip(tokens) {
            self.embedding.weight.row(id as usize, row);
        }
        let mut work = Workspace { rows: tokens.len(), ..Workspace::default() };
        let positions = || runs.iter().flat_map(|run| run.cache.len()..run.cache.len() + run.rows);
        work.turns = self.ropes.iter().map(|rope| turns(rope, positions())).collect();
        work.decoded.resize_with(runs.len(), Decoded::new);
        let norm = |x: &mut [f32], branch: Option<&[f32]>, weight: &[f32], y: &mut [f32]| {
            add_and_norm(&self.pool, x, branch, weight, self.architecture.norm.eps, y)
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            work.fit(d, &self.architecture.layers[layer]);
            norm(&mut x, None, &block.attn_norm, &mut work.normed);
            self.attention(layer, block, runs, &mut work);
            norm(&mut x, Some(&work.branch), &block.ffn_norm, &mut work.normed);
            self.feed_forward(block, &mut work);
            add(&self.pool, &mut x, &work.branch);
            observe(layer, &x);
        }
        runs.iter_mut().for_each(|run| run.cache.advance(run.rows));
        x
    }

    /// Wo attn(...) of the normalised rows, the new keys and values going into the caches first.
    fn attention(&self, layer: usize, block: &Block, runs: &mut [Run], w: &mut Workspace) {
        let (a, pool) = (&self.architecture.layers[layer].attention, &self.pool);
        apply_all(
            pool,
            &w.normed,
            w.rows,
            [(&block.q, &mut w.q), (&block.k, &mut w.k), (&block.v, &mut w.v)],
        );
        self.normalize_heads(&block.query_norm, &mut w.q, &mut w.q_turned);
        self.normalize_heads(&block.key_norm, &mut w.k, &mut w.k_turned);
        let (table, turns) = (&self.ropes[block.rope], &w.turns[block.rope]);
        turn(pool, table, turns, &w.q, a.heads, &mut w.q_turned);
        turn(pool, table, turns, &w.k, a.kv_heads, &mut w.k_turned);
        let (width, mut from) = (a.key_width(), 0);
        for (run, decoded) in runs.iter_mut().zip(&mut w.decoded) {
            let kept = &mut run.cache.layers[layer];
            let rows = from * width..(from + run.rows) * width;
            kept.append(pool, &w.k_turned[rows.clone()], &w.v[rows]);
            kept.decode(pool, decoded);
            from += run.rows;
        }
        self.attend(layer, runs, w);
        block.o.apply(pool, &w.attended, &mut w.branch, w.rows);
    }

    /// Each head of x by itself, if there is a weight; `other` is as long as x and overwritten.
    fn normalize_heads(&self, weight: &Option<Vec<f32>>, x: &mut Vec<f32>, other: &mut Vec<f32>) {
        if let Some(weight) = weight {
            rms_norm(&self.pool, x, weight, self.architecture.norm.eps, other);
            std::mem::swap(x, other);
        }
    }

    /// One task per block of rows and key/value head; the query heads that share it are adjacent
    /// in memory. Where that gives few tasks, each query head is one.
    fn attend(&self, layer: usize, runs: &[Run], w: &mut Workspace) {
        let a = &self.architecture.layers[layer].attention;
        let tasks =
            runs.iter().map(|run| run.rows.div_ceil(ATTEND_ROWS)).sum::<usize>() * a.kv_heads;
        let group = if tasks < 2 * self.pool.threads() { 1 } else { a.heads / a.kv_heads };
        let (pieces, width) = (a.heads / group, group * a.head_dim);
        let mut rows = w.attended.chunks_mut(width);
        let (mut parts, mut from) = (vec![], 0);
        for (r, run) in runs.iter().enumerate() {
            for first in (0..run.rows).step_by(ATTEND_ROWS) {
                let count = ATTEND_ROWS.min(run.rows - first);
                let start = parts.len();
                parts.extend(
                    (0..pieces)
                        .map(|piece| (r, first, from + first, piece, Vec::with_capacity(count))),
                );
                for (i, y) in rows.by_ref().take(count * pieces).enumerate() {
                    parts[start + i % pieces].4.push(y);
                }
            }
            from += run.rows;
        }
        let (q, decoded) = (&w.q_turned, &w.decoded);
        self.pool.parts(
            parts,
            |_, (r, first, row, piece, mut y): (usize, usize, usize, usize, Vec<&mut [f32]>)| {
                let kept = &runs[r].cache.layers[layer];
                let (keys, values) = kept.head(piece * group * a.kv_heads / a.heads, &decoded[r]);
                let (cached, seen) =
                    (Keys { keys, values, stride: a.head_dim }, runs[r].cache.len() + first + 1);
                let queries = |i: usize| &q[((row + i) * pieces + piece) * width..][..width];
                if let [y] = &mut y[..] {
                    return attend(queries(0), cached, seen, group, a.head_dim, y);
                }
                let mut gathered = Vec::with_capacity(y.len() * width);
                (0..y.len()).for_each(|i| gathered.extend_from_slice(queries(i)));
                let mut out = vec![0.0; gathered.len()];
                attend(&gathered, cached, seen, group, a.head_dim, &mut out);
                y.iter_mut()
                    .zip(out.chunks_exact(width))
                    .for_each(|(y, out)| y.copy_from_slice(out));
            },
        );
    }

    /// Wdown swiglu(Wgate m, Wup m) of the normalised rows m.
    fn feed_forward(&self, block: &Block, w: &mut Workspace) {
        let pool = &self.pool;
        apply_all(pool, &w.normed, w.rows, [(&block.gate, &mut w.gate), (&block.up, &mut w.up)]);
        swiglu(pool, &w.gate, &w.up, &mut w.activated);
        block.down.apply(pool, &w.activated, &mut w.branch, w.rows);
    }
}

impl Workspace {
    /// Gives every buffer the width that this layer needs; nothing moves where layers are alike.
    fn fit(&mut self, d: usize, layer: &Layer) {
        let (q, c) = (layer.attention.query_width(), layer.attention.key_width());
        let f = layer.feed_forward.widest();
        for (buffer, width) in [
            (&mut self.normed, d),
            (&mut self.branch, d),
            (&mut self.q, q),
            (&mut self.q_turned, q),
            (&mut self.attended, q),
            (&mut self.k, c),
            (&mut self.k_turned, c),
            (&mut self.v, c),
            (&mut self.gate, f),
            (&mut self.up, f),
            (&mut self.activated, f),
        ] {
            buffer.resize(self.rows * width, 0.0);
        }
    }
}

impl Block {
    /// Bytes of its weights in memory.
    fn bytes(&self) -> usize {
        let norms = [Some(&self.attn_norm), self.query_norm.as_ref(), self.key_norm.as_ref()];
        let linears = [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down];
        norms.into_iter().flatten().map(|norm| size_of_val(norm.as_slice())).sum::<usize>()
            + size_of_val(self.ffn_norm.as_slice())
            + linears.into_iter().map(Projection::bytes).sum::<usize>()
    }
}

/// Elements that one task adds or normalises, about.
const PIECE: usize = 1 << 13;

/// `x += branch`.
pub(crate) fn add(pool: &Pool, x: &mut [f32], branch: &[f32]) {
    pool.chunks_mut(x, PIECE, |i, x| {
        x.iter_mut().zip(&branch[i * PIECE..]).for_each(|(x, b)| *x += b)
    });
}

/// Adds `row` to every row of `x`.
pub(crate) fn add_rows(pool: &Pool, x: &mut [f32], row: &[f32]) {
    let run = PIECE.div_ceil(row.len()) * row.len();
    pool.chunks_mut(x, run, |_, x| {
        for x in x.chunks_exact_mut(row.len()) {
            x.iter_mut().zip(row).for_each(|(x, r)| *x += r);
        }
    });
}

/// `x += branch`, if there is one; then y is the norm of x.
fn add_and_norm(
    pool: &Pool,
    x: &mut [f32],
    branch: Option<&[f32]>,
    weight: &[f32],
    eps: f64,
    y: &mut [f32],
) {
    let run = PIECE.div_ceil(weight.len()) * weight.len();
    let serial = Pool::serial();
    pool.parts(x.chunks_mut(run).zip(y.chunks_mut(run)).collect(), |i, (x, y)| {
        if let Some(branch) = branch {
            x.iter_mut().zip(&branch[i * run..]).for_each(|(x, b)| *x += b);
        }
        rms_norm(&serial, x, weight, eps, y);
    });
}
