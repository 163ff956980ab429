//! Attention of the runtime: some queries over the cached keys and values of one key/value head, `y
//! = softmax(q k^T / sqrt(D)) v`.
//!
//! Float order depends on the number of keys a query sees and on D alone, never on the other
//! queries, so prefill and decode give the same bytes: a score is `lanes::dot`, an output a sum
//! over the keys in order, multiplied, then added. The rest is a choice of registers.
#![allow(unsafe_code)]

use super::lanes::{LANES, dot, maximum, sum};
use crate::dispatch;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::{Level, level};
use crate::math::exp_f32;
use std::cell::RefCell;

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

/// Keys that all queries work on in turn, so that they come from the first-level cache.
const TILE: usize = 64;

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

/// Queries q `[rows, group, D]` over cached keys; those of row r see the first `seen + r` keys. y
/// as q.
pub fn attend(q: &[f32], cached: Keys, seen: usize, group: usize, width: usize, y: &mut [f32]) {
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
    let mut scores = SCORES.take();
    scores.resize(rows * group * most, 0.0);
    let seen_by = |query: usize| seen + query / group;
    for first in (0..most).step_by(TILE) {
        for (i, scores) in scores.chunks_exact_mut(most).enumerate() {
            let last = seen_by(i).min(first + TILE);
            if first < last {
                score_keys(
                    &q[i * width..][..width],
                    &cached.keys[first * cached.stride..],
                    cached.stride,
                    &mut scores[first..last],
                );
            }
        }
    }
    for (i, scores) in scores.chunks_exact_mut(most).enumerate() {
        softmax(&mut scores[..seen_by(i)]);
    }
    y.fill(0.0);
    // Four queries together as far as they all see, then each by itself.
    for first in (0..most).step_by(TILE) {
        let values = &cached.values[first * cached.stride..];
        let mut at = 0;
        while at < rows * group {
            let run = if at + 4 <= rows * group { 4 } else { 1 };
            let (together, y) = (
                seen_by(at).clamp(first, first + TILE) - first,
                &mut y[at * width..][..run * width],
            );
            add_values(
                &scores[at * most + first..],
                most,
                values,
                cached.stride,
                together,
                y,
                width,
            );
            for i in 1..run {
                let own = seen_by(at + i).clamp(first, first + TILE) - first;
                if own > together {
                    let scores = &scores[(at + i) * most + first + together..];
                    add_values(
                        scores,
                        most,
                        &values[together * cached.stride..],
                        cached.stride,
                        own - together,
                        &mut y[i * width..][..width],
                        width,
                    );
                }
            }
            at += run;
        }
    }
    SCORES.replace(scores);
}

/// Computes `scores = q k^T / sqrt(D)` for as many keys as `scores` has elements.
fn score_keys(q: &[f32], keys: &[f32], stride: usize, scores: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 && q.len().is_multiple_of(LANES) {
        assert!(
            scores.is_empty() || (scores.len() - 1) * stride + q.len() <= keys.len(),
            "keys of score_keys"
        );
        // SAFETY: the level is one the CPU was found to have; all keys are there, as was just
        // checked.
        return unsafe { avx512::score_keys(q, keys, stride, scores) };
    }
    plain_scores(q, keys, stride, scores);
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
    fn plain_scores(q: &[f32], keys: &[f32], stride: usize, scores: &mut [f32]) {
        let scale = 1.0 / (q.len() as f32).sqrt();
        for s in 0..scores.len() {
            scores[s] = dot(q, &keys[s * stride..][..q.len()]) * scale;
        }
    }

    fn softmax(scores: &mut [f32]) {
        let max = maximum(scores);
        for s in 0..scores.len() {
            scores[s] = exp_f32(scores[s] - max);
        }
        let inverse = 1.0 / sum(scores);
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
    pub unsafe fn score_keys(q: &[f32], keys: &[f32], stride: usize, scores: &mut [f32]) {
        let scale = 1.0 / (q.len() as f32).sqrt();
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

    /// Row by row and query by query, as decoding does, on the weakest level.
    fn one_by_one(q: &[f32], cached: Keys, seen: usize, group: usize, width: usize) -> Vec<f32> {
        force(Level::Scalar);
        let mut y = vec![f32::NAN; q.len()];
        for (i, (q, y)) in q.chunks(width).zip(y.chunks_mut(width)).enumerate() {
            attend(q, cached, seen + i / group, 1, width, y);
        }
        y
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
            let want = one_by_one(&q, cached, seen, group, width);
            for level in available() {
                force(level);
                let mut y = vec![f32::NAN; q.len()];
                attend(&q, cached, seen, group, width, &mut y);
                assert!(
                    y.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{level:?} {rows} {group} {seen} {width}"
                );
            }
        }
    }
}
