//! The forward pass, read off the architecture.
//!
//! Per layer: `h = x + mix(n)` with `n = norm(x)`, then `y = h + Wdown act(Wgate m, Wup m)` with `m
//! = norm(h)`, each with what the fields of the layer say; in the end the final norm and the head.
//! The mixer is attention in most layers, `Wo attn(rope(Wq n), Qk(rope(Wk n)), Qv(Wv n))`.
//! Every row's numbers depend on the rows before it through the cache alone, and no operation's
//! order depends on the number of rows: prefill and decode give the same bytes.

mod attention;
mod build;
mod convolution;
mod delta_rule;
mod experts;
mod feed_forward;
mod mixer;
mod norm;
mod per_layer_input;
mod workspace;

use crate::cache::{Decoded, LayerCache};
use crate::matrix::Projection;
use crate::{Cache, Error, Result};
use feed_forward::FeedForward;
use halfstep_formats::Architecture;
use halfstep_formats::architecture::Rope;
use halfstep_kernels::Pool;
use halfstep_kernels::ops::rope::{RopeTable, turns};
use halfstep_kernels::ops::softcap::softcap;
use mixer::Mixer;
use norm::{NormLayer, add_and_norm};
use per_layer_input::{PerLayerGate, PerLayerInput};
use std::sync::Arc;
use workspace::{Run, Workspace};

/// Number of rows that pass through the layers together: bounds the memory of a long prefill.
pub(crate) const PREFILL_ROWS: usize = 256;
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
    per_layer_input: Option<PerLayerInput>,
    blocks: Vec<Block>,
    final_norm: NormLayer,
    /// The embedding itself when tied.
    head: Arc<Projection>,
    /// The rotations of the layers, each once.
    ropes: Vec<Rotation>,
}

/// A rotation of some layers.
struct Rotation {
    head_dim: usize,
    rope: Rope,
    /// Of sequences of any length, or where length changes the frequencies, of short ones.
    table: RopeTable,
}

/// A layer. Norms are None where there is none.
struct Block {
    attn_norm: Option<NormLayer>,
    mixer: Mixer,
    post_attention: Option<NormLayer>,
    ffn_norm: Option<NormLayer>,
    feed_forward: FeedForward,
    post_feed_forward: Option<NormLayer>,
    per_layer: Option<PerLayerGate>,
    output_scale: Option<f32>,
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
            + self.final_norm.bytes()
            + self.per_layer_input.as_ref().map_or(0, PerLayerInput::bytes)
            + self.blocks.iter().map(Block::bytes).sum::<usize>()
    }

    /// Appends `tokens` to the sequence in `cache` and returns logits `[rows, V]`. Errors, before
    /// anything is computed: no token, an id outside the vocabulary, a sequence longer than
    /// `max_positions`, or longer than the rotation that its cache was begun with is for.
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
        self.begin(tokens.len(), cache);
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
        self.begin(tokens.len(), cache);
        let mut out = Vec::with_capacity(tokens.len() * self.architecture.hidden_size);
        for piece in tokens.chunks(PREFILL_ROWS) {
            let x = self.blocks(piece, &mut [Run { cache, rows: piece.len() }], &mut |_, _| {});
            out.extend_from_slice(&self.normalize(&x));
        }
        Ok(out)
    }

    /// Logits `[rows, V]` of rows of [`Self::features`] `[rows, D]`.
    pub fn head(&self, features: &[f32], logits: &mut [f32]) {
        let (a, pool) = (&self.architecture, &self.pool);
        self.head.apply(pool, features, logits, features.len() / a.hidden_size);
        if a.logit_scale != 1.0 {
            let scale = a.logit_scale as f32;
            pool.chunks_mut(logits, PIECE, |_, logits| multiply(logits, scale));
        }
        if let Some(c) = a.logit_softcap {
            softcap(pool, c, logits);
        }
    }

    pub(crate) fn empty_layers(&self) -> Vec<LayerCache> {
        self.blocks.iter().map(|block| block.mixer.empty_cache()).collect()
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
        self.check_rotations(tokens.len(), cache)
    }

    /// Where the length of a sequence decides its rotation, one cache never holds both kinds.
    fn check_rotations(&self, tokens: usize, cache: &Cache) -> Result<()> {
        let (made_for, all) = (cache.made_for(tokens), cache.len() + tokens);
        let originals = self.ropes.iter().filter_map(|rotation| rotation.rope.original());
        match originals.filter(|&original| made_for <= original && all > original).min() {
            None => Ok(()),
            Some(original) => Err(Error::argument(
                "tokens",
                format!(
                    "{tokens} tokens after {} are more than the {original} for which the \
                     sequence's rotation is: begin it with Cache::for_length of {all} or more",
                    cache.len(),
                ),
            )),
        }
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
        self.final_norm.apply(&self.pool, x, &mut y);
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
            caches.iter_mut().for_each(|cache| self.begin(1, cache));
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
        let a = &self.architecture;
        let mut x = vec![0.0; tokens.len() * a.hidden_size];
        for (row, &id) in x.chunks_exact_mut(a.hidden_size).zip(tokens) {
            self.embedding.weight.row(id as usize, row);
        }
        if a.embed_scale != 1.0 {
            multiply(&mut x, a.embed_scale as f32);
        }
        let (normed, branch) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let mut work = Workspace { rows: tokens.len(), normed, branch, ..Workspace::default() };
        if let Some(input) = &self.per_layer_input {
            work.beside = input.rows(&self.pool, tokens, &x);
        }
        runs.iter_mut().for_each(|run| run.cache.make_room(run.rows));
        work.turns = self.turns(runs);
        work.decoded.resize_with(runs.len(), Decoded::new);
        for (layer, block) in self.blocks.iter().enumerate() {
            self.layer(layer, block, runs, &mut x, &mut work);
            observe(layer, &x);
        }
        runs.iter_mut().for_each(|run| run.cache.advance(run.rows));
        x
    }

    /// Gives a sequence that begins with so many tokens its rotations, where they depend on its
    /// length.
    fn begin(&self, tokens: usize, cache: &mut Cache) {
        cache.begin(tokens, |length| {
            let of = |Rotation { head_dim, rope, .. }: &Rotation| {
                let long = rope.original().is_some_and(|original| length > original);
                long.then(|| rope.table(*head_dim, length))
            };
            self.ropes.iter().map(of).collect()
        });
    }

    /// cos and sin of every row, of each rotation.
    fn turns(&self, runs: &[Run]) -> Vec<Vec<f32>> {
        let of = |(i, rotation): (usize, &Rotation)| {
            let mut all = vec![];
            for run in runs {
                let table = run.cache.rotation(i).unwrap_or(&rotation.table);
                all.append(&mut turns(table, run.positions()));
            }
            all
        };
        self.ropes.iter().enumerate().map(of).collect()
    }

    /// One layer, x being its input and then its output.
    fn layer(&self, i: usize, block: &Block, runs: &mut [Run], x: &mut [f32], w: &mut Workspace) {
        let (layer, pool) = (&self.architecture.layers[i], &self.pool);
        add_and_norm(pool, &block.attn_norm, x, None, &mut w.normed);
        match &block.mixer {
            Mixer::Attention(attention) => self.attention(attention, runs, w),
            Mixer::DeltaRule(delta) => delta.apply(pool, i, runs, w),
            Mixer::Convolution(convolution) => convolution.apply(pool, i, runs, w),
        }
        w.finish(pool, &block.post_attention, layer.residual_scale);
        let mut attended = vec![];
        if layer.parallel {
            if let Some(norm) = &block.ffn_norm {
                norm.apply(pool, x, &mut w.normed);
            }
            attended = w.branch.clone();
        } else {
            add_and_norm(pool, &block.ffn_norm, x, Some(&w.branch), &mut w.normed);
        }
        block.feed_forward.apply(pool, &w.normed, w.rows, &mut w.inner, &mut w.branch);
        w.finish(pool, &block.post_feed_forward, layer.residual_scale);
        if layer.parallel {
            add(pool, x, &attended);
        }
        add(pool, x, &w.branch);
        if let Some(gate) = &block.per_layer {
            let width = w.beside.len() / self.blocks.len();
            gate.add(pool, x, &w.beside[i * width..][..width], w.rows);
        }
        if let Some(scale) = block.output_scale {
            pool.chunks_mut(x, PIECE, |_, x| multiply(x, scale));
        }
    }
}

impl Block {
    /// Bytes of its weights in memory.
    fn bytes(&self) -> usize {
        let norms =
            [&self.attn_norm, &self.post_attention, &self.ffn_norm, &self.post_feed_forward];
        norms.into_iter().flatten().map(NormLayer::bytes).sum::<usize>()
            + self.mixer.bytes()
            + self.feed_forward.bytes()
            + self.per_layer.as_ref().map_or(0, PerLayerGate::bytes)
            + self.output_scale.as_ref().map_or(0, size_of_val)
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

/// `x = factor x`.
fn multiply(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}
