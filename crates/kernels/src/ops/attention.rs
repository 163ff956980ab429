//! Causal grouped-query attention: `y = softmax(q k^T / sqrt(D)) v`, each query seeing the keys up
//! to its own position; [`Scores`] are the variations.
//!
//! Training works on blocks of query rows, so that memory never holds T x S scores (as
//! FlashAttention, Dao et al., 2022, arXiv 2205.14135, but with whole key rows per block): with `P
//! = softmax(S)` remade from the saved log-sum-exp and `delta = rowsum(dy y)`,
//!
//!     dV += P^T dY;   dP = dY V^T;   dS = P (dP - delta);   dQ = dS K / sqrt(D)
//!     dK += dS^T Q / sqrt(D)
//!
//! Where scores are capped, `c tanh(S / c)`, dS is multiplied by `1 - tanh(S / c)^2`. A sink z, one
//! more score of a head whose probability nothing reads, has `dz = -sum exp(z - log-sum-exp) delta`.
//!
//! One task owns one (batch, key/value head) with all its query heads, so dK and dV need no atomics
//! and their order is fixed.

use super::gemm::{View, product};
use super::lanes::{dot, maximum, sum};
use super::softcap::cap;
use crate::{Pool, Real, dispatch, uninit_vec};
use std::ops::Range;

/// Causal grouped-query attention: q `[B, T, H, D]`, k and v `[B, S, K, D]`, y `[B, T, H, D]`, S >=
/// T; query t stands at key position S - T + t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// B: sequences that do not see each other.
    pub batch: usize,
    /// T: query tokens of each sequence, at most `keys`.
    pub queries: usize,
    /// S: key tokens of each sequence.
    pub keys: usize,
    /// H: query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// K: key/value heads; query head h reads head `h / (H / K)`.
    pub kv_heads: usize,
    /// D: elements of a head.
    pub head_dim: usize,
    /// What becomes of the products of queries and keys.
    pub scores: Scores,
}

/// What becomes of products of queries and keys before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// What they are multiplied by; None: `1 / sqrt(D)`.
    pub scale: Option<f64>,
    /// c of `c tanh(score / c)`, applied after the scale.
    pub softcap: Option<f64>,
    /// Number of keys that a query sees, that at its own position included; None: all before it.
    pub window: Option<usize>,
}

impl Scores {
    /// Scaled by `1 / sqrt(D)`.
    pub const PLAIN: Self = Self { scale: None, softcap: None, window: None };
}

/// Query tokens per block.
const BLOCK: usize = 64;

impl AttentionShape {
    /// Query heads that read one key/value head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
    fn check(&self, q: usize, k: usize, v: usize) {
        assert!(
            self.keys >= self.queries && self.heads.is_multiple_of(self.kv_heads),
            "attention: {self:?}"
        );
        let keys = self.batch * self.keys * self.kv_heads * self.head_dim;
        assert_eq!([q, k, v], [self.query_len(), keys, keys], "attention: shapes");
    }
    fn query_len(&self) -> usize {
        self.batch * self.queries * self.heads * self.head_dim
    }
    /// Keys the query t sees.
    fn seen(&self, t: usize) -> Range<usize> {
        let end = self.keys - self.queries + t + 1;
        end - self.scores.window.unwrap_or(end).clamp(1, end)..end
    }
    /// Keys that some of the queries of a block see.
    fn seen_by(&self, block: &QueryBlock) -> Range<usize> {
        self.seen(block.first).start..self.seen(block.first + block.count - 1).end
    }
    fn scale<T: Real>(&self) -> T {
        T::from_f64(self.scores.scale.unwrap_or(1.0 / (self.head_dim as f64).sqrt()))
    }
    fn softcap<T: Real>(&self) -> Option<T> {
        self.scores.softcap.map(T::from_f64)
    }
    /// Offset of (batch, token, head) in q, and of (batch, key, kv head) in k.
    fn query_at(&self, b: usize, t: usize, head: usize) -> usize {
        ((b * self.queries + t) * self.heads + head) * self.head_dim
    }
    fn key_at(&self, b: usize, s: usize, head: usize) -> usize {
        ((b * self.keys + s) * self.kv_heads + head) * self.head_dim
    }
}

/// A block of query tokens `first .. first + count` of one (batch, kv head): rows (token, head of
/// the group), `[rows, D]` contiguous.
struct QueryBlock {
    b: usize,
    kv: usize,
    first: usize,
    count: usize,
}

impl QueryBlock {
    fn gather<T: Real>(&self, shape: &AttentionShape, x: &[T], scale: T, out: &mut [T]) {
        let width = shape.group() * shape.head_dim;
        for (i, out) in out.chunks_exact_mut(width).take(self.count).enumerate() {
            let at = shape.query_at(self.b, self.first + i, self.kv * shape.group());
            scaled(scale, &x[at..at + width], out);
        }
    }
}

dispatch! {
    /// `y = a x`.
    fn scaled[T: Real](a: T, x: &[T], y: &mut [T]) {
        let x = &x[..y.len()];
        for i in 0..y.len() {
            y[i] = x[i] * a;
        }
    }

    /// `y += x`.
    fn add[T: Real](x: &[T], y: &mut [T]) {
        let x = &x[..y.len()];
        for i in 0..y.len() {
            y[i] += x[i];
        }
    }

    fn scale_in_place[T: Real](a: T, x: &mut [T]) {
        for i in 0..x.len() {
            x[i] *= a;
        }
    }

    /// Scores become probabilities beside that of a sink; keys that are not `seen` get 0. Returns
    /// the log of the sum of exp.
    fn softmax[T: Real](scores: &mut [T], seen: Range<usize>, sink: Option<T>) -> T {
        let scores = only_seen(scores, seen);
        let n = scores.len();
        let max = maximum(scores);
        let max = if let Some(sink) = sink { max.maximum(sink) } else { max };
        for i in 0..n {
            scores[i] = (scores[i] - max).exp();
        }
        let total = sum(scores);
        let total = if let Some(sink) = sink { total + (sink - max).exp() } else { total };
        let inverse = T::ONE / total;
        for i in 0..n {
            scores[i] *= inverse;
        }
        max + total.ln()
    }

    /// Scores become the probabilities of the forward, from its log-sum-exp.
    fn softmax_again[T: Real](scores: &mut [T], seen: Range<usize>, log_sum_exp: T) {
        let scores = only_seen(scores, seen);
        for i in 0..scores.len() {
            scores[i] = (scores[i] - log_sum_exp).exp();
        }
    }

    /// As [`softmax_again`] of capped scores; dP becomes dS.
    fn capped_again[T: Real](
        scores: &mut [T],
        dp: &mut [T],
        seen: Range<usize>,
        c: T,
        log_sum_exp: T,
        delta: T,
    ) {
        let (scores, dp) = (only_seen(scores, seen.clone()), only_seen(dp, seen));
        let dp = &mut dp[..scores.len()];
        for i in 0..scores.len() {
            let t = (scores[i] / c).tanh();
            scores[i] = (c * t - log_sum_exp).exp();
            dp[i] = scores[i] * (dp[i] - delta) * (T::ONE - t * t);
        }
    }

    /// dP becomes dS = P (dP - delta).
    fn score_gradient[T: Real](p: &[T], dp: &mut [T], delta: T) {
        let p = &p[..dp.len()];
        for i in 0..dp.len() {
            dp[i] = p[i] * (dp[i] - delta);
        }
    }
}

/// The values at the keys that are seen; the others become 0.
#[inline(always)]
fn only_seen<T: Real>(values: &mut [T], seen: Range<usize>) -> &mut [T] {
    let (values, after) = values.split_at_mut(seen.end);
    let (before, values) = values.split_at_mut(seen.start);
    before.fill(T::ZERO);
    after.fill(T::ZERO);
    values
}

/// Training forward; `sinks` `[H]` where heads have one. `log_sum_exp` `[B, T, H]` is what the backward needs of the softmax.
#[allow(clippy::too_many_arguments)]
pub fn attention<T: Real>(
    pool: &Pool,
    shape: AttentionShape,
    q: &[T],
    k: &[T],
    v: &[T],
    sinks: Option<&[T]>,
    y: &mut [T],
    log_sum_exp: &mut [T],
) {
    shape.check(q.len(), k.len(), v.len());
    assert_eq!(
        (y.len(), log_sum_exp.len()),
        (q.len(), q.len() / shape.head_dim),
        "attention: shapes of the results"
    );
    let (d, group, stride) = (shape.head_dim, shape.group(), shape.kv_heads * shape.head_dim);
    let blocks = shape.queries.div_ceil(BLOCK);
    // One result buffer per task, [rows, D] and [rows]; scattered afterwards, since a head's rows
    // are not contiguous in y.
    let mut results: Vec<(Vec<T>, Vec<T>)> =
        vec![Default::default(); shape.batch * shape.kv_heads * blocks];
    pool.chunks_mut(&mut results, 1, |i, result| {
        let first = i % blocks * BLOCK;
        let block = QueryBlock {
            b: i / blocks / shape.kv_heads,
            kv: i / blocks % shape.kv_heads,
            first,
            count: BLOCK.min(shape.queries - first),
        };
        let keys = shape.seen_by(&block);
        let (rows, n) = (block.count * group, keys.len());
        let mut q_block = uninit_vec(rows * d);
        block.gather(&shape, q, shape.scale(), &mut q_block);
        let at = shape.key_at(block.b, keys.start, block.kv);
        let mut p = uninit_vec(rows * n);
        product(
            &mut p,
            n,
            View::rows(&q_block, d),
            View::transposed(&k[at..], stride),
            rows,
            n,
            d,
            false,
        );
        let sums = p
            .chunks_exact_mut(n)
            .enumerate()
            .map(|(r, p)| {
                let seen = within(shape.seen(first + r / group), &keys);
                if let Some(c) = shape.softcap() {
                    cap(c, &mut p[seen.clone()]);
                }
                softmax(p, seen, sinks.map(|sinks| sinks[block.kv * group + r % group]))
            })
            .collect();
        product(
            &mut q_block,
            d,
            View::rows(&p, n),
            View::rows(&v[at..], stride),
            rows,
            d,
            n,
            false,
        );
        result[0] = (q_block, sums);
    });
    let width = group * d;
    let parts = y.chunks_mut(shape.heads * d).zip(log_sum_exp.chunks_mut(shape.heads)).collect();
    pool.parts(parts, |row, (y, sums)| {
        let (b, t) = (row / shape.queries, row % shape.queries);
        for kv in 0..shape.kv_heads {
            let (from, from_sums) = &results[(b * shape.kv_heads + kv) * blocks + t / BLOCK];
            y[kv * width..][..width].copy_from_slice(&from[t % BLOCK * width..][..width]);
            sums[kv * group..][..group].copy_from_slice(&from_sums[t % BLOCK * group..][..group]);
        }
    });
}

/// Keys as numbers from the first one of some.
fn within(seen: Range<usize>, keys: &Range<usize>) -> Range<usize> {
    seen.start - keys.start..seen.end - keys.start
}

/// Gradients of sinks `[H]` from what the forward gave; added up over the rows in their order.
pub fn sinks_backward<T: Real>(
    shape: AttentionShape,
    sinks: &[T],
    y: &[T],
    log_sum_exp: &[T],
    dy: &[T],
) -> Vec<T> {
    let (d, mut dsinks) = (shape.head_dim, vec![T::ZERO; sinks.len()]);
    for (row, (y, dy)) in y.chunks_exact(d).zip(dy.chunks_exact(d)).enumerate() {
        let head = row % shape.heads;
        dsinks[head] -= (sinks[head] - log_sum_exp[row]).exp() * dot(y, dy);
    }
    dsinks
}

/// Tasks of the backward, about. Where there are fewer (batch, kv head) pairs, the query blocks of
/// each are dealt out to several tasks, whose dK and dV are added in order.
const TASKS: usize = 16;

/// What one task gives: dq of its query blocks `[its T, group, D]`, dk and dv `[S, D]`.
#[derive(Clone, Default)]
struct HeadGradients<T> {
    dq: Vec<T>,
    dk: Vec<T>,
    dv: Vec<T>,
}

/// The tensors [`attention_backward`] reads.
struct Saved<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    y: &'a [T],
    log_sum_exp: &'a [T],
    dy: &'a [T],
}

/// Gradients of [`attention`]; dq, dk, dv are overwritten; those of sinks are
/// [`sinks_backward`]'s. Memory beyond them is bounded by a block
/// of query rows, never T x T.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<T: Real>(
    pool: &Pool,
    shape: AttentionShape,
    q: &[T],
    k: &[T],
    v: &[T],
    y: &[T],
    log_sum_exp: &[T],
    dy: &[T],
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
) {
    shape.check(q.len(), k.len(), v.len());
    assert_eq!(
        [y.len(), dy.len(), dq.len(), log_sum_exp.len() * shape.head_dim],
        [q.len(); 4],
        "attention_backward: shapes of the queries"
    );
    assert_eq!([dk.len(), dv.len()], [k.len(); 2], "attention_backward: shapes of the keys");
    let saved = Saved { q, k, v, y, log_sum_exp, dy };
    let pairs = shape.batch * shape.kv_heads;
    // Dealt like cards, so that each hand has early blocks, which see few keys, and late ones.
    let hands = TASKS.div_ceil(pairs).min(shape.queries.div_ceil(BLOCK));
    let mut results: Vec<HeadGradients<T>> = vec![HeadGradients::default(); pairs * hands];
    pool.chunks_mut(&mut results, 1, |i, result| {
        let pair = i / hands;
        result[0] = head_backward(
            &shape,
            &saved,
            pair / shape.kv_heads,
            pair % shape.kv_heads,
            i % hands,
            hands,
        );
    });
    let (d, width) = (shape.head_dim, shape.group() * shape.head_dim);
    pool.chunks_mut(dq, shape.heads * d, |row, dq| {
        let (b, block, t) =
            (row / shape.queries, row % shape.queries / BLOCK, row % shape.queries % BLOCK);
        for (kv, dq) in dq.chunks_exact_mut(width).enumerate() {
            let from = &results[(b * shape.kv_heads + kv) * hands + block % hands];
            dq.copy_from_slice(&from.dq[(block / hands * BLOCK + t) * width..][..width]);
        }
    });
    let parts = dk.chunks_mut(shape.kv_heads * d).zip(dv.chunks_mut(shape.kv_heads * d)).collect();
    pool.parts(parts, |row, (dk, dv)| {
        for (kv, (dk, dv)) in dk.chunks_exact_mut(d).zip(dv.chunks_exact_mut(d)).enumerate() {
            let pair = row / shape.keys * shape.kv_heads + kv;
            dk.fill(T::ZERO);
            dv.fill(T::ZERO);
            for from in &results[pair * hands..][..hands] {
                add(&from.dk[row % shape.keys * d..][..d], dk);
                add(&from.dv[row % shape.keys * d..][..d], dv);
            }
        }
    });
}

/// The query blocks `hand`, `hand + hands`, ... of one (batch, kv head).
fn head_backward<T: Real>(
    shape: &AttentionShape,
    saved: &Saved<T>,
    b: usize,
    kv: usize,
    hand: usize,
    hands: usize,
) -> HeadGradients<T> {
    let (d, group, stride) = (shape.head_dim, shape.group(), shape.kv_heads * shape.head_dim);
    let at = shape.key_at(b, 0, kv);
    let (k, v) = (&saved.k[at..], &saved.v[at..]);
    let zeros = |n: usize| vec![T::ZERO; n];
    let mine = (hand * BLOCK..shape.queries).step_by(hands * BLOCK);
    let mut out = HeadGradients {
        dq: zeros(mine.len() * BLOCK * group * d),
        dk: zeros(shape.keys * d),
        dv: zeros(shape.keys * d),
    };
    let most = BLOCK.min(shape.queries) * group;
    let (mut q_block, mut y_block, mut dy_block) =
        (zeros(most * d), zeros(most * d), zeros(most * d));
    let (mut p, mut dp) = (zeros(most * shape.keys), zeros(most * shape.keys));
    for (turn, first) in mine.enumerate() {
        let block = QueryBlock { b, kv, first, count: BLOCK.min(shape.queries - first) };
        let keys = shape.seen_by(&block);
        let (rows, n) = (block.count * group, keys.len());
        let (k, v) = (&k[keys.start * stride..], &v[keys.start * stride..]);
        block.gather(shape, saved.q, shape.scale(), &mut q_block);
        block.gather(shape, saved.y, T::ONE, &mut y_block);
        block.gather(shape, saved.dy, T::ONE, &mut dy_block);
        product(&mut p, n, View::rows(&q_block, d), View::transposed(k, stride), rows, n, d, false);
        product(
            &mut dp,
            n,
            View::rows(&dy_block, d),
            View::transposed(v, stride),
            rows,
            n,
            d,
            false,
        );
        for (r, (p, dp)) in p.chunks_exact_mut(n).zip(dp.chunks_exact_mut(n)).take(rows).enumerate()
        {
            let t = first + r / group;
            let row = (b * shape.queries + t) * shape.heads + kv * group + r % group;
            let (seen, sum) = (within(shape.seen(t), &keys), saved.log_sum_exp[row]);
            let delta = dot(&y_block[r * d..][..d], &dy_block[r * d..][..d]);
            if let Some(c) = shape.softcap() {
                capped_again(p, dp, seen, c, sum, delta);
            } else {
                softmax_again(p, seen, sum);
                score_gradient(p, dp, delta);
            }
        }
        let (dk, dv) = (&mut out.dk[keys.start * d..], &mut out.dv[keys.start * d..]);
        product(dv, d, View::transposed(&p, n), View::rows(&dy_block, d), n, d, rows, true);
        product(dk, d, View::transposed(&dp, n), View::rows(&q_block, d), n, d, rows, true);
        let dq = &mut out.dq[turn * BLOCK * group * d..][..rows * d];
        product(dq, d, View::rows(&dp, n), View::rows(k, stride), rows, d, n, false);
        scale_in_place(shape.scale(), dq);
    }
    out
}
