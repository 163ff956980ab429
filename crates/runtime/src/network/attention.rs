//! Attention over the cache.

use super::norm::NormLayer;
use super::{ATTEND_ROWS, Network, Run, Workspace, multiply};
use crate::cache::{AttentionCache, Kept, LayerCache};
use crate::matrix::{Projection, apply_all};
use halfstep_formats::architecture::{self as graph, Temper};
use halfstep_kernels::math::ln_f64;
use halfstep_kernels::ops::activation::{Activation, gated};
use halfstep_kernels::ops::attend::{Keys, Scores, attend_with};
use halfstep_kernels::ops::rope::turn;

pub(super) struct Attention {
    pub graph: graph::Attention,
    pub q: Projection,
    /// None: the keys and values of an earlier layer are read.
    pub own: Option<KeysAndValues>,
    pub o: Projection,
    pub query_norm: Option<NormLayer>,
    /// Of what the heads give.
    pub sub_norm: Option<NormLayer>,
    pub sinks: Option<Vec<f32>>,
    /// Index of its rotation among those of the network; None: there is none.
    pub rope: Option<usize>,
    /// The layer whose keys and values are read: itself, or an earlier one.
    pub source: usize,
}

pub(super) struct KeysAndValues {
    pub k: Projection,
    pub v: Projection,
    pub key_norm: Option<NormLayer>,
    /// Of each head, without a weight.
    pub value_norm: Option<NormLayer>,
    /// How the cache keeps what is new of this layer.
    pub keys: Kept,
    pub values: Kept,
    /// The largest window of the layers that read them; None: one of them sees all.
    pub window: Option<usize>,
}

impl Attention {
    /// Nothing is kept of a layer that reads the keys and values of another one.
    pub fn empty_cache(&self) -> LayerCache {
        let Some(own) = &self.own else { return LayerCache::Nothing };
        let (heads, width) = (self.graph.kv_heads, self.graph.head_dim);
        let kept = AttentionCache::new(heads, width, own.keys, own.values);
        LayerCache::Attention(kept.of_window(own.window))
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        let own = self.own.as_ref();
        let linears = [&self.q, &self.o].into_iter().chain(own.iter().flat_map(|o| [&o.k, &o.v]));
        let key_norm = own.and_then(|own| own.key_norm.as_ref());
        let norms = [self.query_norm.as_ref(), self.sub_norm.as_ref(), key_norm];
        linears.map(Projection::bytes).sum::<usize>()
            + norms.into_iter().flatten().map(NormLayer::bytes).sum::<usize>()
            + self.sinks.as_deref().map_or(0, size_of_val)
    }
}

impl Network {
    /// Wo attn(...) of the normalised rows, the new keys and values going into the caches first.
    pub(super) fn attention(&self, block: &Attention, runs: &mut [Run], w: &mut Workspace) {
        let (a, pool) = (&block.graph, &self.pool);
        w.fit_attention(a);
        self.project(block, w);
        if let Some(norm) = &block.query_norm {
            norm.apply_to(pool, &mut w.q, &mut w.q_turned);
        }
        self.turn(block.rope, &w.turns, a.heads, &mut w.q, &mut w.q_turned);
        if let Some(temper) = a.temper {
            let positions = runs.iter().flat_map(Run::positions);
            for (q, position) in w.q_turned.chunks_exact_mut(a.query_width()).zip(positions) {
                multiply(q, tempered(temper, position));
            }
        }
        let (width, mut from) = (a.key_width(), 0);
        for (run, decoded) in runs.iter_mut().zip(&mut w.decoded) {
            let kept = run.cache.layers[block.source].attention_mut();
            if block.own.is_some() {
                let rows = from * width..(from + run.rows) * width;
                kept.append(pool, &w.k_turned[rows.clone()], &w.v[rows]);
            }
            kept.decode(pool, decoded);
            from += run.rows;
        }
        self.attend(block, runs, w);
        if a.gate {
            gated(pool, Activation::Sigmoid, &w.gate, &w.attended, &mut w.q);
            std::mem::swap(&mut w.attended, &mut w.q);
        }
        if let Some(norm) = &block.sub_norm {
            norm.apply_to(pool, &mut w.attended, &mut w.q);
        }
        block.o.apply(pool, &w.attended, &mut w.branch, w.rows);
    }

    /// Queries and gates; new keys and values as they are kept.
    fn project(&self, block: &Attention, w: &mut Workspace) {
        let (a, pool) = (&block.graph, &self.pool);
        let q = if a.gate { &mut w.q_and_gate } else { &mut w.q };
        match &block.own {
            Some(own) => {
                let outputs = [(&block.q, &mut q[..]), (&own.k, &mut w.k), (&own.v, &mut w.v)];
                apply_all(pool, &w.normed, w.rows, outputs);
                if let Some(norm) = &own.key_norm {
                    norm.apply_to(pool, &mut w.k, &mut w.k_turned);
                }
                self.turn(block.rope, &w.turns, a.kv_heads, &mut w.k, &mut w.k_turned);
                if let Some(norm) = &own.value_norm {
                    norm.apply_to(pool, &mut w.v, &mut w.k);
                }
            }
            None => block.q.apply(pool, &w.normed, q, w.rows),
        }
        if a.gate {
            let heads = w.q.chunks_exact_mut(a.head_dim).zip(w.gate.chunks_exact_mut(a.head_dim));
            for (both, (q, gate)) in w.q_and_gate.chunks_exact(2 * a.head_dim).zip(heads) {
                let (queries, gates) = both.split_at(a.head_dim);
                q.copy_from_slice(queries);
                gate.copy_from_slice(gates);
            }
        }
    }

    /// `turned` is x rotated; x itself, if nothing turns, and x is then whatever it was.
    fn turn(
        &self,
        rope: Option<usize>,
        turns: &[Vec<f32>],
        heads: usize,
        x: &mut Vec<f32>,
        turned: &mut Vec<f32>,
    ) {
        match rope {
            Some(rope) => turn(&self.pool, &self.ropes[rope].table, &turns[rope], x, heads, turned),
            None => std::mem::swap(x, turned),
        }
    }

    /// One task per block of rows and key/value head; the query heads that share it are adjacent
    /// in memory. Where that gives few tasks, each query head is one.
    fn attend(&self, block: &Attention, runs: &[Run], w: &mut Workspace) {
        let a = &block.graph;
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
        let scores = Scores {
            scale: a.scale.map(|scale| scale as f32),
            softcap: a.softcap.map(|c| c as f32),
            window: a.window,
            sinks: None,
        };
        let (q, decoded) = (&w.q_turned, &w.decoded);
        self.pool.parts(
            parts,
            |_, (r, first, row, piece, mut y): (usize, usize, usize, usize, Vec<&mut [f32]>)| {
                let kept = runs[r].cache.layers[block.source].attention();
                let (keys, values) = kept.head(piece * group * a.kv_heads / a.heads, &decoded[r]);
                let cached = Keys { keys, values, stride: a.head_dim };
                let seen = runs[r].cache.len() + first + 1 - kept.forgotten();
                let sinks = block.sinks.as_ref().map(|sinks| &sinks[piece * group..][..group]);
                let (scores, sizes) = (Scores { sinks, ..scores }, [group, a.head_dim]);
                let queries = |i: usize| &q[((row + i) * pieces + piece) * width..][..width];
                if let [y] = &mut y[..] {
                    return attend_with(queries(0), cached, seen, sizes, &scores, y);
                }
                let mut gathered = Vec::with_capacity(y.len() * width);
                (0..y.len()).for_each(|i| gathered.extend_from_slice(queries(i)));
                let mut out = vec![0.0; gathered.len()];
                attend_with(&gathered, cached, seen, sizes, &scores, &mut out);
                y.iter_mut()
                    .zip(out.chunks_exact(width))
                    .for_each(|(y, out)| y.copy_from_slice(out));
            },
        );
    }
}

/// What the query of a position is multiplied by.
fn tempered(temper: Temper, position: usize) -> f32 {
    (1.0 + temper.beta * ln_f64(1.0 + (position / temper.length) as f64)) as f32
}
