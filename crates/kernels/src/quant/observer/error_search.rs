//! The scale of least squared error of a symmetric grid, exactly: the minimiser over all s > 0, not
//! the best of some candidates.
//!
//!     E(s) = sum_i (w_i - s c_i(s))^2,     c_i(s) = clip(rnd(w_i / s), n, p)
//!
//! Between two steps where some code changes, at |w_i| / (k + 1/2), the codes are fixed and E is a
//! parabola with its minimum at `sum w c / sum c c`; E is the lower envelope of these parabolas, so
//! the best parabola is the global minimum. A sweep over all such points costs N 2^(b-1) log, too
//! much at 8 bits; so it is a branch and bound. Steps that clip, or round to zero, more than the
//! best known error are left out at once. An interval [a, b] is left out when its floor is no
//! better than that error: weights whose code stays the same add a parabola, which has a minimum on
//! [a, b]; a weight that passes one border between codes is nearest to a level at a or at b. What
//! remains is halved, and swept when few codes change.
use super::{Group, Observe, Scratch, absmax, convex};
use crate::quant::element::Table;
use crate::quant::rounding::clip_round;
use crate::{Granularity, Int, QuantSpec, ScaleCodec, dispatch};

pub(super) struct ErrorSearch;

/// Ranges that are tried where there are zero points, or a table.
const CANDIDATES: usize = 80;

impl Observe for ErrorSearch {
    fn scale(group: Group, scratch: &mut Scratch) -> f32 {
        if let Some(table) = group.spec.table() {
            return of_table(group, table);
        }
        let limits = limits(group.spec);
        let best =
            minimum(group, scratch, limits, None).expect("a group with an entry that is not 0");
        // A negative scale sees the mirrored weights: the side with one code more changes.
        match minimum(group, scratch, limits.mirrored(), Some(best)) {
            Some(mirrored) => -mirrored.step as f32,
            None => best.step as f32,
        }
    }

    fn range(group: Group) -> (f32, u8) {
        absmax::min_max(group, CANDIDATES)
    }
}

/// The best of shrunken scales of a table; the error is taken as stored.
fn of_table(group: Group, table: Table) -> f32 {
    let (widest, nearest) = (group.largest / group.p(), table.nearest());
    let error = |scale: f32| {
        let stored = group.spec.scale.store(scale);
        let of_one = |&w: &f32| {
            let level = table.levels()[usize::from(nearest.code(w / stored))];
            f64::from(w - f32::from(level) * stored).powi(2)
        };
        group.w.iter().map(of_one).sum::<f64>()
    };
    let scales = (0..CANDIDATES).map(|i| widest * (1.0 - i as f32 * 0.01));
    let errors = scales.map(|scale| (error(scale), scale));
    errors.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(widest, |best| best.1)
}

fn limits(spec: QuantSpec) -> Limits {
    Limits { negative: -spec.min_code(), positive: spec.max_code() }
}

/// The best scale above 0 with these limits, if it is better than the one that is known. Sorts the
/// magnitudes first.
fn minimum(
    group: Group,
    scratch: &mut Scratch,
    limits: Limits,
    known: Option<Best>,
) -> Option<Best> {
    if known.is_none() {
        scratch.sort(group.w);
    }
    let start = convex::minimum(&scratch.sorted, f64::from(group.spec.max_code()));
    scratch.search.minimum(group.w, &scratch.sorted, limits, start, known)
}

/// The scale above 0 of least squared error of a row on the symmetric grid (golden: mse_s). 0 for a
/// row of zeros.
pub fn error_step(row: &[f32], bits: u8) -> f64 {
    if row.iter().all(|&w| w == 0.0) {
        return 0.0;
    }
    let spec = QuantSpec::int(Int::symmetric(bits), Granularity::Channel, ScaleCodec::F32);
    let group = Group { w: row, largest: 0.0, spec };
    let best = minimum(group, &mut Scratch::default(), limits(spec), None);
    best.map_or(0.0, |best| best.step)
}

/// Scratch space of the search, reused from group to group.
#[derive(Default)]
pub(super) struct Search {
    magnitudes: Vec<f64>,
    limits: Vec<f64>,
    breaks: Vec<Break>,
    open: Vec<(f64, f64)>,
}

/// A step at which the code magnitude of one weight falls from k + 1 to k.
#[derive(Clone, Copy)]
struct Break {
    at: f64,
    magnitude: f64,
    k: f64,
}

/// A step and its squared error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Best {
    pub step: f64,
    pub error: f64,
}

/// Codes of positive weights reach `positive`, of negative ones `-negative`.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub negative: i32,
    pub positive: i32,
}

impl Limits {
    /// The limits seen by the mirrored weights, that is for a step of the other sign.
    pub fn mirrored(self) -> Self {
        Self { negative: self.positive, positive: self.negative }
    }
}

/// What is known of E on an interval [a, b].
struct Bounds {
    /// The parabola of the codes at a: its minimum is somewhere, and E there is no larger.
    at_low: Best,
    /// E is nowhere smaller on the interval.
    floor: f64,
    /// Code changes inside.
    breaks: f64,
}

impl Search {
    /// The best step over all s > 0, if one has a smaller error than `known`. `sorted`: |w|
    /// ascending, its last entry above 0; `start`: a step to begin from (any positive one).
    pub fn minimum(
        &mut self,
        w: &[f32],
        sorted: &[f32],
        limits: Limits,
        start: f64,
        known: Option<Best>,
    ) -> Option<Best> {
        let squares: f64 = sorted.iter().map(|&a| f64::from(a) * f64::from(a)).sum();
        // Step 0 leaves everything: its error is that of a step too large for any code.
        let nothing = Best { step: 3.0 * f64::from(sorted[sorted.len() - 1]), error: squares };
        self.take(w, limits);
        let before = known.unwrap_or(nothing);
        let (mut best, mut step) = (before, start);
        for _ in 0..3 {
            let found = bounds(&self.magnitudes, &self.limits, step, step).at_low;
            best = if found.error < best.error { found } else { best };
            step = found.step;
        }
        let slack = best.error * (1.0 + 1e-9) + squares * 1e-13;
        let limit = f64::from(limits.negative.max(limits.positive));
        let (low, high) = (smallest_step(sorted, limit, slack), largest_step(sorted, slack));
        self.open.clear();
        // Pieces on which a code of half the limit changes by a half.
        let mut at = low;
        while at < high {
            let next = (at * (1.0 + 1.0 / limit)).min(high);
            self.open.push((at, next));
            at = next;
        }
        while let Some((low, high)) = self.open.pop() {
            let interval = bounds(&self.magnitudes, &self.limits, low, high);
            best = if interval.at_low.error < best.error { interval.at_low } else { best };
            if interval.floor >= best.error * (1.0 - 1e-10) {
                continue;
            }
            if interval.breaks <= 8.0 + w.len() as f64 / 32.0 || high < low * (1.0 + 1e-12) {
                self.sweep(low, high, squares, &mut best);
                continue;
            }
            let middle = (low * high).sqrt();
            self.open.push((low, middle));
            self.open.push((middle, high));
        }
        (best != before || known.is_none()).then_some(best)
    }

    fn take(&mut self, w: &[f32], limits: Limits) {
        let whole = w.len().next_multiple_of(PIECE);
        self.magnitudes.clear();
        self.magnitudes.extend(w.iter().map(|w| f64::from(w.abs())));
        self.magnitudes.resize(whole, 0.0);
        self.limits.clear();
        self.limits.extend(
            w.iter().map(|&w| f64::from(if w > 0.0 { limits.positive } else { limits.negative })),
        );
        self.limits.resize(whole, 1.0);
    }

    /// Every parabola between two steps.
    fn sweep(&mut self, low: f64, high: f64, squares: f64, best: &mut Best) {
        let (mut wc, mut cc, per_low, per_high) = (0.0, 0.0, 1.0 / low, 1.0 / high);
        self.breaks.clear();
        for (&magnitude, &limit) in self.magnitudes.iter().zip(&self.limits) {
            let (mut code, last) = (
                clip_round(magnitude * per_low, 0.0, limit),
                clip_round(magnitude * per_high, 0.0, limit),
            );
            wc += magnitude * code;
            cc += code * code;
            while code > last {
                code -= 1.0;
                self.breaks.push(Break { at: magnitude / (code + 0.5), magnitude, k: code });
            }
        }
        self.breaks.sort_unstable_by(|a, b| a.at.total_cmp(&b.at));
        let mut from = low;
        for i in 0..=self.breaks.len() {
            let to = self.breaks.get(i).map_or(high, |b| b.at);
            if cc > 0.0 {
                let step = wc / cc;
                if step >= from * (1.0 - 1e-12)
                    && step <= to * (1.0 + 1e-12)
                    && squares - wc * step < best.error
                {
                    *best = Best { step, error: (squares - wc * step).max(0.0) };
                }
            }
            if let Some(b) = self.breaks.get(i) {
                wc -= b.magnitude;
                cc -= 2.0 * b.k + 1.0;
                from = to;
            }
        }
    }
}

/// Weights of one piece of [`bounds`]; a sum has a lane for each.
const PIECE: usize = 32;

/// What [`bounds`] sums over the weights.
#[derive(Clone, Copy)]
enum Sum {
    /// Under the codes of the lower end: w w, w c, c c.
    Ww,
    Wc,
    Cc,
    /// Of the weights whose code stays, with r = w - low c: r r, r c, c c.
    StayRr,
    StayRc,
    StayCc,
    /// Floors of the others.
    Passing,
    Breaks,
}

dispatch! {
    /// The bounds of [low, high]: |w| and code limits in whole pieces (filled up with zeros, which
    /// add nothing).
    fn bounds(magnitudes: &[f64], limits: &[f64], low: f64, high: f64) -> Bounds {
        let (per_low, per_high) = (1.0 / low, 1.0 / high);
        let mut sums = [[0.0; PIECE]; 8];
        for (m, limit) in
            magnitudes.as_chunks::<PIECE>().0.iter().zip(limits.as_chunks::<PIECE>().0)
        {
            for i in 0..PIECE {
                let code = clip_round(m[i] * per_low, 0.0, limit[i]);
                let later = clip_round(m[i] * per_high, 0.0, limit[i]);
                let (r, r_later) = (m[i] - low * code, m[i] - high * later);
                // Past one border, and no level met on the way to it or from it: nearest at an end.
                let nearest = if r < 0.0 && r_later > 0.0 && code - later == 1.0 {
                    (r * r).min(r_later * r_later)
                } else {
                    0.0
                };
                let stays = if code == later { 1.0 } else { 0.0 };
                sums[Sum::Ww as usize][i] += m[i] * m[i];
                sums[Sum::Wc as usize][i] += m[i] * code;
                sums[Sum::Cc as usize][i] += code * code;
                sums[Sum::StayRr as usize][i] += stays * (r * r);
                sums[Sum::StayRc as usize][i] += stays * (r * code);
                sums[Sum::StayCc as usize][i] += stays * (code * code);
                sums[Sum::Passing as usize][i] += nearest;
                sums[Sum::Breaks as usize][i] += code - later;
            }
        }
        let total = |sum: Sum| sums[sum as usize].iter().sum::<f64>();
        let (ww, wc, cc) = (total(Sum::Ww), total(Sum::Wc), total(Sum::Cc));
        let at_low = if cc > 0.0 {
            Best { step: wc / cc, error: (ww - wc * (wc / cc)).max(0.0) }
        } else {
            Best { step: low, error: ww }
        };
        // The parabola of those that stay, h above `low`.
        let (rc, cc) = (total(Sum::StayRc), total(Sum::StayCc));
        let h = if cc > 0.0 { (rc / cc).clamp(0.0, high - low) } else { 0.0 };
        let floor = total(Sum::StayRr) - 2.0 * h * rc + h * h * cc + total(Sum::Passing);
        Bounds { at_low, floor, breaks: total(Sum::Breaks) }
    }
}

/// Below this step the clipped weights alone cost more than `error`: sum over |w| > s P of (|w| - s
/// P)^2. Never 0: a millionth of the step that just holds the largest weight clips nearly all there
/// is.
fn smallest_step(sorted: &[f32], limit: f64, error: f64) -> f64 {
    let least = f64::from(sorted[sorted.len() - 1]) / limit * 1e-6;
    let (mut sum, mut squares) = (0.0, 0.0);
    for (i, &a) in sorted.iter().enumerate().rev() {
        let a = f64::from(a);
        sum += a;
        squares += a * a;
        let next = if i > 0 { f64::from(sorted[i - 1]) / limit } else { 0.0 };
        let clipped = (sorted.len() - i) as f64;
        if squares - 2.0 * next * limit * sum + clipped * (next * limit).powi(2) > error {
            let root = (sum * sum - clipped * (squares - error)).max(0.0).sqrt();
            return ((sum - root) / (clipped * limit)).max(next).max(least) * (1.0 - 1e-9);
        }
    }
    least
}

/// From this step on the weights that round to zero, |w| <= s/2, alone cost more than `error`.
fn largest_step(sorted: &[f32], error: f64) -> f64 {
    let mut squares = 0.0;
    for &a in sorted {
        squares += f64::from(a) * f64::from(a);
        if squares > error {
            return 2.0 * f64::from(a) * (1.0 + 1e-9);
        }
    }
    2.1 * f64::from(sorted[sorted.len() - 1])
}
