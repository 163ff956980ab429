//! The step of least squared error of a symmetric grid, exactly: the minimiser over all s > 0, not the best of some candidates.
//!
//!     E(s) = sum_i (w_i - s c_i(s))^2,     c_i(s) = clip(rnd(w_i / s), n, p)
//!
//! Between two steps where some code changes, at |w_i| / (k + 1/2), the codes are fixed and E is a parabola with its minimum at
//! `sum w c / sum c c`; E is the lower envelope of these parabolas, so the best parabola is the global minimum. A sweep over all such
//! points costs N 2^(b-1) log: too much at 8 bits. Intervals that cannot hold the minimum are left out first, by three bounds:
//! too small a step clips more than the best known error, too large a one rounds more than that to zero, and `d = sqrt(E)`, being the
//! distance from w to the points the grid can reach, changes on [a, b] by at most |c(a)| per unit of s.

/// Scratch space of the search, reused from group to group.
#[derive(Default)]
pub struct ErrorSearch {
    breaks: Vec<Break>,
    open: Vec<Interval>,
}

/// A step at which the code magnitude of one weight falls from k + 1 to k.
#[derive(Clone, Copy)]
struct Break {
    at: f64,
    magnitude: f32,
    k: u32,
}

#[derive(Clone, Copy)]
struct Interval {
    low: Fit,
    high: Fit,
}

/// E and its parabola at one step.
#[derive(Clone, Copy)]
struct Fit {
    step: f64,
    error: f64,
    /// sum w c and sum c c.
    wc: f64,
    cc: f64,
}

/// A step and its squared error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    pub step: f64,
    pub error: f64,
}

/// Codes of positive weights reach `positive`, of negative ones `-negative`.
#[derive(Clone, Copy)]
pub struct Limits {
    pub negative: i32,
    pub positive: i32,
}

impl Limits {
    /// The limits seen by the mirrored weights, that is for a step of the other sign.
    pub fn mirrored(self) -> Self {
        Self { negative: self.positive, positive: self.negative }
    }
}

impl ErrorSearch {
    /// The best step over all s > 0, if one has a smaller error than `known`. `sorted`: |w| ascending, its last entry above 0;
    /// `start`: a step to begin from (any positive one).
    pub fn minimum(&mut self, w: &[f32], sorted: &[f32], limits: Limits, start: f64, known: Option<Best>) -> Option<Best> {
        let squares: f64 = sorted.iter().map(|&a| a as f64 * a as f64).sum();
        let mut best = known.unwrap_or(Best { step: start, error: f64::INFINITY });
        let before = best;
        let mut step = start;
        for _ in 0..4 {
            let fit = measure(w, step, limits);
            step = consider(&mut best, fit, squares);
        }
        let slack = best.error * (1.0 + 1e-9) + squares * 1e-13;
        let low = smallest_step(sorted, limits.negative.max(limits.positive) as f64, slack);
        let high = largest_step(sorted, slack);
        let total: f64 = sorted.iter().map(|&a| a as f64).sum();
        self.open.clear();
        if low < high {
            self.open.push(Interval { low: measure(w, low, limits), high: measure(w, high, limits) });
        }
        while let Some(Interval { low, high }) = self.open.pop() {
            let nearest = (low.error.sqrt() + high.error.sqrt() - (high.step - low.step) * low.cc.sqrt()) / 2.0;
            if nearest > 0.0 && nearest * nearest > best.error * (1.0 + 1e-9) {
                continue;
            }
            let expected = total * (1.0 / low.step - 1.0 / high.step);
            if expected <= (w.len() as f64 / 4.0).max(512.0) || high.step / low.step < 1.0 + 1e-9 {
                self.sweep(w, low.step, high.step, limits, squares, &mut best);
                continue;
            }
            let middle = measure(w, (low.step * high.step).sqrt(), limits);
            consider(&mut best, middle, squares);
            self.open.push(Interval { low: middle, high });
            self.open.push(Interval { low, high: middle });
        }
        (best != before).then_some(best)
    }

    /// Every parabola between two steps.
    fn sweep(&mut self, w: &[f32], low: f64, high: f64, limits: Limits, squares: f64, best: &mut Best) {
        let (mut wc, mut cc) = (0.0, 0.0);
        self.breaks.clear();
        for &w in w {
            let limit = if w > 0.0 { limits.positive } else { limits.negative };
            let magnitude = w.abs() as f64;
            // Breaks in (low, high) are those of k = first ..= last; just above `low` the code is last + 1 (or the limit).
            let last = ((magnitude / low - 0.5).floor() as i64).min(limit as i64 - 1);
            let first = ((magnitude / high - 0.5).ceil() as i64).max(0);
            let code = (last + 1).max(0) as f64;
            wc += magnitude * code;
            cc += code * code;
            for k in first..=last {
                self.breaks.push(Break { at: magnitude / (k as f64 + 0.5), magnitude: w.abs(), k: k as u32 });
            }
        }
        self.breaks.sort_unstable_by(|a, b| a.at.total_cmp(&b.at));
        let mut from = low;
        for i in 0..=self.breaks.len() {
            if cc == 0.0 {
                return;
            }
            let to = self.breaks.get(i).map_or(high, |b| b.at);
            let step = wc / cc;
            if step >= from * (1.0 - 1e-12) && step <= to * (1.0 + 1e-12) && squares - wc * step < best.error {
                *best = Best { step, error: (squares - wc * step).max(0.0) };
            }
            if let Some(b) = self.breaks.get(i) {
                wc -= b.magnitude as f64;
                cc -= (2 * b.k + 1) as f64;
                wc *= f64::from(cc > 0.0);
                from = to;
            }
        }
    }
}

/// Notes the bottom of the parabola of a fit (whose codes are one choice, so E there is no larger) and returns its step.
fn consider(best: &mut Best, fit: Fit, squares: f64) -> f64 {
    if fit.error < best.error {
        *best = Best { step: fit.step, error: fit.error };
    }
    if fit.cc == 0.0 || fit.wc <= 0.0 {
        return fit.step;
    }
    let (step, error) = (fit.wc / fit.cc, (squares - fit.wc * fit.wc / fit.cc).max(0.0));
    if error < best.error {
        *best = Best { step, error };
    }
    step
}

/// E(s) and its parabola, in f64 lanes.
fn measure(w: &[f32], step: f64, limits: Limits) -> Fit {
    const LANES: usize = 8;
    let inverse = 1.0 / step;
    let (low, high) = (-(limits.negative as f64), limits.positive as f64);
    let (mut error, mut wc, mut cc) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let mut take = |l: usize, w: f32| {
        let w = w as f64;
        let code = (w * inverse).round_ties_even().max(low).min(high);
        let rest = w - step * code;
        error[l] += rest * rest;
        wc[l] += w * code;
        cc[l] += code * code;
    };
    let (whole, tail) = w.as_chunks::<LANES>();
    for w in whole {
        for (l, &w) in w.iter().enumerate() {
            take(l, w);
        }
    }
    for (l, &w) in tail.iter().enumerate() {
        take(l, w);
    }
    Fit { step, error: error.iter().sum(), wc: wc.iter().sum(), cc: cc.iter().sum() }
}

/// Below this step the clipped weights alone cost more than `error`: sum over |w| > s P of (|w| - s P)^2.
fn smallest_step(sorted: &[f32], limit: f64, error: f64) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for (i, &a) in sorted.iter().enumerate().rev() {
        sum += a as f64;
        squares += a as f64 * a as f64;
        let next = if i > 0 { sorted[i - 1] as f64 / limit } else { 0.0 };
        let clipped = (sorted.len() - i) as f64;
        if squares - 2.0 * next * limit * sum + clipped * (next * limit).powi(2) > error {
            let root = (sum * sum - clipped * (squares - error)).max(0.0).sqrt();
            return ((sum - root) / (clipped * limit)).max(next) * (1.0 - 1e-9);
        }
    }
    sorted[sorted.len() - 1] as f64 / limit * 1e-3
}

/// From this step on the weights that round to zero, |w| <= s/2, alone cost more than `error`.
fn largest_step(sorted: &[f32], error: f64) -> f64 {
    let mut squares = 0.0;
    for &a in sorted {
        squares += a as f64 * a as f64;
        if squares > error {
            return 2.0 * a as f64 * (1.0 + 1e-9);
        }
    }
    2.1 * sorted[sorted.len() - 1] as f64
}
