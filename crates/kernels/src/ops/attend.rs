//! Attention of the runtime: some queries over the cached keys and values of one key/value head, `y
//! = softmax(q k^T / sqrt(D)) v`, with what [`Scores`] says beyond that.
//!
//! Float order depends on the number of keys a query sees and on D alone, never on the other
//! queries nor on keys it does not see, so prefill and decode give the same bytes: a score is
//! `lanes::dot`, an output a sum over the keys in order, multiplied, then added. The rest is a
//! choice of registers.
#![allow(unsafe_code)]

use super::lanes::{LANES, dot, maximum, sum};
use super::softcap::cap;
use crate::dispatch;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::{Level, level};
use crate::math::exp_f32;
use std::cell::RefCell;
use std::ops::Range;

/// Keys and values of one key/value head: row s starts at `s * stride`.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// Keys after the rotary embedding, D values from the start of each row on.
    pub keys: &'a [f32],
    /// Values, D of them from the start of each row on.
    pub values: &'a [f32],
    /// Elements from the start of one row to that of the next, at least D; the same for both.
    pub stride: usize,
}

/// How scores differ from `q k^T / sqrt(D)` of all keys up to the query's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scores<'a> {
    /// What products are multiplied by. None: `1 / sqrt(D)`.
    pub scale: Option<f32>,
    /// c of `c tanh(s / c)`, after the scale.
    pub softcap: Option<f32>,
    /// Number of keys that a query sees, its own included. None: all up to it.
    pub window: Option<usize>,
    /// One more score for each query of a group, which joins the softmax and is dropped after it.
    pub sinks: Option<&'a [f32]>,
}

/// Keys that all queries work on in turn, so that they come from the first-level cache.
const TILE: usize = 64;

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

/// Queries q `[rows, group, D]` over cached keys; those of row r see the first `seen + r` keys. y
/// as q.
pub fn attend(q: &[f32], cached: Keys, seen: usize, group: usize, width: usize, y: &mut [f32]) {
    attend_with(q, cached, seen, [group, width], &Scores::default(), y);
}

/// [`attend`] with other scores; `[group, D]` are the last two sizes of q.
pub fn attend_with(
    q: &[f32],
    cached: Keys,
    seen: usize,
    [group, width]: [usize; 2],
    rules: &Scores,
    y: &mut [f32],
) {
    let rows = q.len() / (group * width);
    let most = seen + rows - 1;
    let holds = |x: &[f32]| most >= 1 && (most - 1) * cached.stride + width <= x.len();
    assert!(
        q.len() == rows * group * width && y.len() == q.len() && cached.stride >= width,
        "shapes of attend"
    );
    assert!(
        rows == 0 || seen > 0 && holds(cached.keys) && holds(cached.values),
        "attend: {most} keys"
    );
    assert!(rules.sinks.is_none_or(|sinks| sinks.len() == group), "sinks of attend");
    // Keys before the first row's window are those of no row.
    let before = rules.window.map_or(0, |window| seen.saturating_sub(window));
    let cached = Keys {
        keys: &cached.keys[before * cached.stride..],
        values: &cached.values[before * cached.stride..],
        ..cached
    };
    let sight = Sight { seen: seen - before, window: rules.window, group };
    let mut scores = SCORES.take();
    score(q, cached, sight, width, rules, &mut scores);
    y.fill(0.0);
    add_all(&scores, cached, sight, width, y);
    SCORES.replace(scores);
}

/// Which keys the queries of some rows see.
#[derive(Clone, Copy)]
struct Sight {
    /// Keys up to the first row's own.
    seen: usize,
    window: Option<usize>,
    /// Queries of a row.
    group: usize,
}

impl Sight {
    /// The keys of a query, cut to those from `first` to `last`.
    fn of(self, query: usize, first: usize, last: usize) -> Range<usize> {
        let end = self.seen + query / self.group;
        let start = self.window.map_or(0, |window| end.saturating_sub(window));
        start.clamp(first, last)..end.clamp(first, last)
    }
}

/// The probabilities `[rows * group, most]` of the keys that each query sees, most being the keys
/// of the last row.
fn score(
    q: &[f32],
    cached: Keys,
    sight: Sight,
    width: usize,
    rules: &Scores,
    scores: &mut Vec<f32>,
) {
    let queries = q.len() / width;
    let most = sight.seen + queries / sight.group - 1;
    let scale = rules.scale.unwrap_or_else(|| 1.0 / (width as f32).sqrt());
    scores.resize(queries * most, 0.0);
    for first in (0..most).step_by(TILE) {
        for (i, scores) in scores.chunks_exact_mut(most).enumerate() {
            let own = sight.of(i, first, first + TILE);
            if !own.is_empty() {
                score_keys(
                    &q[i * width..][..width],
                    &cached.keys[own.start * cached.stride..],
                    cached.stride,
                    scale,
                    &mut scores[own],
                );
            }
        }
    }
    for (i, scores) in scores.chunks_exact_mut(most).enumerate() {
        let scores = &mut scores[sight.of(i, 0, most)];
        if let Some(c) = rules.softcap {
            cap(c, scores);
        }
        softmax(scores, rules.sinks.map(|sinks| sinks[i % sight.group]));
    }
}

/// Adds the values of all keys to y: four queries together as far as they all see, each by itself
/// before and after.
fn add_all(scores: &[f32], cached: Keys, sight: Sight, width: usize, y: &mut [f32]) {
    let queries = y.len() / width;
    let most = sight.seen + queries / sight.group - 1;
    let mut add = |query: usize, run: usize, keys: Range<usize>| {
        if !keys.is_empty() {
            add_values(
                &scores[query * most + keys.start..],
                most,
                &cached.values[keys.start * cached.stride..],
                cached.stride,
                keys.len(),
                &mut y[query * width..][..run * width],
                width,
            );
        }
    };
    for first in (0..most).step_by(TILE) {
        let mut at = 0;
        while at < queries {
            let run = if at + 4 <= queries { 4 } else { 1 };
            let own = |query: usize| sight.of(query, first, first + TILE);
            // A later query's window begins and ends later.
            let together = own(at + run - 1).start..own(at).end;
            if together.is_empty() {
                (at..at + run).for_each(|query| add(query, 1, own(query)));
            } else {
                (at..at + run).for_each(|query| add(query, 1, own(query).start..together.start));
                add(at, run, together.clone());
                (at..at + run).for_each(|query| add(query, 1, together.end..own(query).end));
            }
            at += run;
        }
    }
}

/// Computes `scores = scale q k^T` for as many keys as `scores` has elements.
fn score_keys(q: &[f32], keys: &[f32], stride: usize, scale: f32, scores: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 && q.len().is_multiple_of(LANES) {
        assert!(
            scores.is_empty() || (scores.len() - 1) * stride + q.len() <= keys.len(),
            "keys of score_keys"
        );
        // SAFETY: the level is one the CPU was found to have; all keys are there, as was just
        // checked.
        return unsafe { avx512::score_keys(q, keys, stride, scale, scores) };
    }
    plain_scores(q, keys, stride, scale, scores);
}

/// `y += p v` for `count` keys: one query, or four (`p` `most` apart).
fn add_values(
    p: &[f32],
    most: usize,
    values: &[f32],
    stride: usize,
    count: usize,
    y: &mut [f32],
    width: usize,
) {
    if count == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 && width.is_multiple_of(LANES) {
        let queries = y.len() / width;
        assert!(
            (queries - 1) * most + count <= p.len() && (count - 1) * stride + width <= values.len(),
            "shapes of add_values"
        );
        // SAFETY: the level is one the CPU was found to have; probabilities and values are there,
        // as was just checked.
        return unsafe {
            if queries == 4 {
                avx512::add_values::<4>(p, most, values, stride, count, y, width)
            } else {
                avx512::add_values::<1>(p, most, values, stride, count, y, width)
            }
        };
    }
    for (i, y) in y.chunks_exact_mut(width).enumerate() {
        plain_values(&p[i * most..][..count], values, stride, y);
    }
}

dispatch! {
    fn plain_scores(q: &[f32], keys: &[f32], stride: usize, scale: f32, scores: &mut [f32]) {
        for s in 0..scores.len() {
            scores[s] = dot(q, &keys[s * stride..][..q.len()]) * scale;
        }
    }

    fn softmax(scores: &mut [f32], sink: Option<f32>) {
        let max = maximum(scores);
        let max = sink.map_or(max, |sink| if sink > max { sink } else { max });
        for s in 0..scores.len() {
            scores[s] = exp_f32(scores[s] - max);
        }
        let all = sum(scores);
        let all = sink.map_or(all, |sink| all + exp_f32(sink - max));
        let inverse = 1.0 / all;
        for s in 0..scores.len() {
            scores[s] *= inverse;
        }
    }

    fn plain_values(p: &[f32], values: &[f32], stride: usize, y: &mut [f32]) {
        let (wide, rest) = y.as_chunks_mut::<{ 4 * LANES }>();
        for block in 0..wide.len() {
            wide[block] = weighted(wide[block], p, &values[block * 4 * LANES..], stride);
        }
        let done = 4 * LANES * wide.len();
        for i in 0..rest.len() {
            [rest[i]] = weighted([rest[i]], p, &values[done + i..], stride);
        }
    }
}

/// `y + sum over keys of p v[..N]`.
#[inline(always)]
fn weighted<const N: usize>(mut y: [f32; N], p: &[f32], v: &[f32], stride: usize) -> [f32; N] {
    for s in 0..p.len() {
        let v: &[f32; N] = v[s * stride..].first_chunk().expect("a row holds D values");
        for i in 0..N {
            y[i] += p[s] * v[i];
        }
    }
    y
}

/// The same sums in registers: 16 keys at a time, whose lanes are folded together; 4 queries at a
/// time, which share a value's load.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::*;
    use std::arch::x86_64::*;

    /// # Safety
    /// D must be a multiple of 16, and `keys` hold a row for every score.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn score_keys(
        q: &[f32],
        keys: &[f32],
        stride: usize,
        scale: f32,
        scores: &mut [f32],
    ) {
        for (i, scores) in scores.chunks_mut(LANES).enumerate() {
            let count = scores.len();
            let first = &keys[i * LANES * stride..];
            // SAFETY: `count` rows from there on, of which the last stands in for those that there
            // are fewer than 16.
            let sums = unsafe {
                if count == LANES {
                    products::<true>(q, first, stride, LANES)
                } else {
                    products::<false>(q, first, stride, count)
                }
            };
            let folded = _mm512_mul_ps(fold(sums), _mm512_set1_ps(scale));
            let mask = ((1u32 << count) - 1) as __mmask16;
            // SAFETY: the mask leaves as many lanes as there are scores.
            unsafe { _mm512_mask_storeu_ps(scores.as_mut_ptr(), mask, folded) };
        }
    }

    /// The lanes of q times 16 rows, of which `count` are there; all of them, if `ALL`.
    ///
    /// # Safety
    /// As [`score_keys`], for `count` rows, at least one.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn products<const ALL: bool>(
        q: &[f32],
        keys: &[f32],
        stride: usize,
        count: usize,
    ) -> [__m512; LANES] {
        let mut sums = [_mm512_setzero_ps(); LANES];
        for block in (0..q.len()).step_by(LANES) {
            // SAFETY: block .. block + 16 of q, and of rows that are there.
            unsafe {
                let q = _mm512_loadu_ps(q.as_ptr().add(block));
                let mut key = keys.as_ptr().add(block);
                for s in 0..LANES {
                    sums[s] = _mm512_add_ps(sums[s], _mm512_mul_ps(q, _mm512_loadu_ps(key)));
                    if ALL && s + 1 < LANES || s + 1 < count {
                        key = key.add(stride);
                    }
                }
            }
        }
        sums
    }

    /// [`lanes::fold`](crate::ops::lanes::fold) of 16 vectors at once: lane i of the result is that
    /// of vector i. Each step adds the upper half of what is left of a vector to the lower and puts
    /// two vectors into one.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fold(x: [__m512; LANES]) -> __m512 {
        let (mut halves, mut quarters, mut pairs) = ([x[0]; 8], [x[0]; 4], [x[0]; 2]);
        // The order in which vectors meet, so that they end in order.
        for i in 0..8 {
            let (a, b) = (x[PLACES[2 * i]], x[PLACES[2 * i + 1]]);
            halves[i] = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(a, b),
                _mm512_shuffle_f32x4::<0xee>(a, b),
            );
        }
        for i in 0..4 {
            let (a, b) = (halves[2 * i], halves[2 * i + 1]);
            quarters[i] = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x88>(a, b),
                _mm512_shuffle_f32x4::<0xdd>(a, b),
            );
        }
        for i in 0..2 {
            let (a, b) = (_mm512_castps_pd(quarters[2 * i]), _mm512_castps_pd(quarters[2 * i + 1]));
            pairs[i] = _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)),
            );
        }
        _mm512_add_ps(
            _mm512_shuffle_ps::<0x88>(pairs[0], pairs[1]),
            _mm512_shuffle_ps::<0xdd>(pairs[0], pairs[1]),
        )
    }

    /// Vector of each leaf of the tree of [`fold`].
    const PLACES: [usize; LANES] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];

    /// # Safety
    /// D must be a multiple of 16; `p` must hold `count` probabilities for each of Q queries,
    /// `values` as many rows, y `[Q, D]`.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn add_values<const Q: usize>(
        p: &[f32],
        most: usize,
        values: &[f32],
        stride: usize,
        count: usize,
        y: &mut [f32],
        width: usize,
    ) {
        let mut block = 0;
        while block < width {
            // Registers side by side: as many as leave registers for the values.
            // SAFETY: the caller's promise; the blocks end at D.
            block += unsafe {
                match width - block {
                    64.. => columns::<Q, 4>(p, most, values, stride, count, y, width, block),
                    32.. => columns::<Q, 2>(p, most, values, stride, count, y, width, block),
                    _ => columns::<Q, 1>(p, most, values, stride, count, y, width, block),
                }
            };
        }
    }

    /// `C * 16` columns from `block` on; returns how many.
    ///
    /// # Safety
    /// As [`add_values`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    #[allow(clippy::too_many_arguments)]
    unsafe fn columns<const Q: usize, const C: usize>(
        p: &[f32],
        most: usize,
        values: &[f32],
        stride: usize,
        count: usize,
        y: &mut [f32],
        width: usize,
        block: usize,
    ) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); C]; Q];
            for i in 0..Q {
                for c in 0..C {
                    sums[i][c] = _mm512_loadu_ps(y.as_ptr().add(i * width + block + c * LANES));
                }
            }
            for s in 0..count {
                let row = values.as_ptr().add(s * stride + block);
                let mut v = [_mm512_setzero_ps(); C];
                for c in 0..C {
                    v[c] = _mm512_loadu_ps(row.add(c * LANES));
                }
                for i in 0..Q {
                    let p = _mm512_set1_ps(*p.as_ptr().add(i * most + s));
                    for c in 0..C {
                        sums[i][c] = _mm512_add_ps(sums[i][c], _mm512_mul_ps(p, v[c]));
                    }
                }
            }
            for i in 0..Q {
                for c in 0..C {
                    _mm512_storeu_ps(y.as_mut_ptr().add(i * width + block + c * LANES), sums[i][c]);
                }
            }
        }
        C * LANES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{Level, available, force};
    use crate::rng::Rng;

    fn numbers(stream: u64, n: usize) -> Vec<f32> {
        let mut rng = Rng::new(3, stream);
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    /// Row by row and query by query, on the weakest level, over the keys it sees alone.
    fn one_by_one(
        q: &[f32],
        cached: Keys,
        seen: usize,
        [group, width]: [usize; 2],
        rules: &Scores,
    ) -> Vec<f32> {
        force(Level::Scalar);
        let mut y = vec![f32::NAN; q.len()];
        for (i, (q, y)) in q.chunks(width).zip(y.chunks_mut(width)).enumerate() {
            let seen = seen + i / group;
            let hidden = rules.window.map_or(0, |window| seen.saturating_sub(window));
            let cached = Keys {
                keys: &cached.keys[hidden * cached.stride..],
                values: &cached.values[hidden * cached.stride..],
                ..cached
            };
            let sinks = rules.sinks.map(|sinks| &sinks[i % group..][..1]);
            let rules = Scores { window: None, sinks, ..*rules };
            attend_with(q, cached, seen - hidden, [1, width], &rules, y);
        }
        y
    }

    /// By the definition, in f64.
    fn naive(q: &[f32], cached: Keys, seen: usize, group: usize, rules: &Scores) -> Vec<f64> {
        let row = |i: usize| cached.keys[i * cached.stride..].iter().zip(q);
        let scale = rules.scale.map_or(1.0 / (q.len() as f64).sqrt(), f64::from);
        let score = |i: usize| {
            let s = scale * row(i).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
            rules.softcap.map_or(s, |c| (s / f64::from(c)).tanh() * f64::from(c))
        };
        let sees = rules.window.map_or(0, |window| seen.saturating_sub(window))..seen;
        let weights: Vec<f64> = sees.clone().map(|i| score(i).exp()).collect();
        let sink = rules.sinks.map_or(0.0, |sinks| f64::from(sinks[group]).exp());
        let all = weights.iter().sum::<f64>() + sink;
        let value = |i: usize, d: usize| f64::from(cached.values[i * cached.stride + d]);
        (0..q.len())
            .map(|d| sees.clone().zip(&weights).map(|(i, w)| w * value(i, d)).sum::<f64>() / all)
            .collect()
    }

    #[test]
    fn the_bytes_of_a_query_depend_on_no_other_query_at_any_level() {
        for (rows, group, seen, width) in [
            (1, 1, 1, 64),
            (1, 3, 200, 64),
            (17, 3, 1, 64),
            (16, 1, 63, 128),
            (9, 5, 65, 48),
            (5, 2, 31, 70),
            (3, 4, 257, 16),
            (2, 3, 15, 1),
        ] {
            let stride = width + 3;
            let (keys, values) =
                (numbers(1, (seen + rows) * stride), numbers(2, (seen + rows) * stride));
            let (q, cached) =
                (numbers(3, rows * group * width), Keys { keys: &keys, values: &values, stride });
            let sinks = numbers(4, group);
            let rules = |window, softcap: Option<f32>| Scores {
                scale: softcap.map(|_| 0.3),
                softcap,
                window,
                sinks: softcap.map(|_| &sinks[..]),
            };
            let windows = [None, Some(1), Some(7), Some(64), Some(100), Some(1000)];
            for rules in windows.map(|w| rules(w, w.map(|w| 2.0 + w as f32 / 99.0))) {
                let want = one_by_one(&q, cached, seen, [group, width], &rules);
                for level in available() {
                    force(level);
                    let mut y = vec![f32::NAN; q.len()];
                    attend_with(&q, cached, seen, [group, width], &rules, &mut y);
                    assert!(
                        y.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()),
                        "{level:?} {rows} {group} {seen} {width} {rules:?}"
                    );
                }
                for (i, (q, y)) in q.chunks(width).zip(want.chunks(width)).enumerate() {
                    let exact = naive(q, cached, seen + i / group, i % group, &rules);
                    let off = y.iter().zip(&exact).map(|(y, e)| (f64::from(*y) - e).abs());
                    assert!(off.fold(0.0, f64::max) < 1e-5, "{seen} {width} {rules:?}");
                }
            }
        }
    }
}
