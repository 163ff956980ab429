//! A mixture of experts: each token finds some of them by the scores of a float linear, and what
//! they give is added in the order of their rank.

use super::feed_forward::{Dense, Inner};
use super::multiply;
use halfstep_formats::architecture::{Routing, Score};
use halfstep_kernels::Pool;
use halfstep_kernels::math::exp_f32;
use halfstep_kernels::ops::linear::linear_ordered;

pub(super) struct Experts {
    /// `[E, D]`.
    pub router: Vec<f32>,
    pub router_bias: Option<Vec<f32>>,
    pub choice_bias: Option<Vec<f32>>,
    pub routing: Routing,
    /// How many of them a token uses.
    pub used: usize,
    pub experts: Vec<Dense>,
    pub shared: Option<Dense>,
    /// `[D]`: the logit of how much the shared one counts.
    pub shared_gate: Option<Vec<f32>>,
}

/// Added to the sum of weights that is divided by, so that weights of 0 stay 0.
const NOTHING: f32 = 1e-20;

impl Experts {
    /// Of rows x `[M, D]`, y as x. The rows of an expert are computed together; no row's numbers
    /// depend on which others those are.
    pub fn apply(&self, pool: &Pool, x: &[f32], rows: usize, inner: &mut Inner, y: &mut [f32]) {
        let d = x.len() / rows;
        let chosen = self.route(pool, x, rows);
        let mut given = vec![0.0; chosen.len() * d];
        let (mut gathered, mut out) = (vec![], vec![]);
        for (e, expert) in self.experts.iter().enumerate() {
            let places: Vec<usize> = (0..chosen.len()).filter(|&i| chosen[i].0 == e).collect();
            if places.is_empty() {
                continue;
            }
            gathered.clear();
            for i in &places {
                gathered.extend_from_slice(&x[i / self.used * d..][..d]);
            }
            out.resize(gathered.len(), 0.0);
            expert.apply(pool, &gathered, places.len(), inner, &mut out);
            for (&i, out) in places.iter().zip(out.chunks_exact(d)) {
                given[i * d..(i + 1) * d].copy_from_slice(out);
            }
        }
        y.fill(0.0);
        let all = given.chunks_exact(self.used * d).zip(chosen.chunks_exact(self.used));
        for (y, (given, chosen)) in y.chunks_exact_mut(d).zip(all) {
            for (given, (_, weight)) in given.chunks_exact(d).zip(chosen) {
                y.iter_mut().zip(given).for_each(|(y, g)| *y += weight * g);
            }
        }
        self.add_shared(pool, x, rows, inner, y);
    }

    fn add_shared(&self, pool: &Pool, x: &[f32], rows: usize, inner: &mut Inner, y: &mut [f32]) {
        let Some(shared) = &self.shared else { return };
        let d = x.len() / rows;
        let mut out = vec![0.0; x.len()];
        shared.apply(pool, x, rows, inner, &mut out);
        if let Some(gate) = &self.shared_gate {
            let mut logits = vec![0.0; rows];
            linear_ordered(pool, x, gate, &mut logits, rows, 1, d);
            for (out, logit) in out.chunks_exact_mut(d).zip(logits) {
                multiply(out, sigmoid(logit));
            }
        }
        super::add(pool, y, &out);
    }

    /// The experts of every row with their weights, `[M, used]`, best first.
    fn route(&self, pool: &Pool, x: &[f32], rows: usize) -> Vec<(usize, f32)> {
        let count = self.experts.len();
        let mut logits = vec![0.0; rows * count];
        linear_ordered(pool, x, &self.router, &mut logits, rows, count, x.len() / rows);
        if let Some(bias) = &self.router_bias {
            super::add_rows(pool, &mut logits, bias);
        }
        logits.chunks_exact(count).flat_map(|logits| self.choose(logits)).collect()
    }

    /// The experts of a row with their weights, best first.
    fn choose(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        let Routing { score, groups, normalise, scale, .. } = self.routing;
        let scores = match score {
            Score::Softmax => softmax(logits),
            Score::SoftmaxOfChosen => logits.to_vec(),
            Score::Sigmoid => logits.iter().map(|&x| sigmoid(x)).collect(),
        };
        // Scores are in the order of the logits, which differ where scores are rounded to the same.
        let mut choice = match (&self.choice_bias, groups) {
            (Some(bias), _) => scores.iter().zip(bias).map(|(s, b)| s + b).collect(),
            (None, Some(_)) => scores.clone(),
            (None, None) => logits.to_vec(),
        };
        if let Some(groups) = groups {
            leave_groups(&mut choice, groups);
        }
        let chosen = largest(&choice, self.used);
        let mut weights: Vec<f32> = chosen.iter().map(|&e| scores[e]).collect();
        if score == Score::SoftmaxOfChosen {
            weights = softmax(&weights);
        }
        if normalise {
            let sum = weights.iter().sum::<f32>() + NOTHING;
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        if scale != 1.0 {
            multiply(&mut weights, scale as f32);
        }
        chosen.into_iter().zip(weights).collect()
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        let vectors = [&self.router_bias, &self.choice_bias, &self.shared_gate];
        let floats = vectors.into_iter().flatten().chain([&self.router]);
        floats.map(|v| size_of_val(v.as_slice())).sum::<usize>()
            + self.experts.iter().chain(&self.shared).map(Dense::bytes).sum::<usize>()
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp_f32(-x))
}

fn softmax(x: &[f32]) -> Vec<f32> {
    let max = x.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    let mut y: Vec<f32> = x.iter().map(|x| exp_f32(x - max)).collect();
    let inverse = 1.0 / y.iter().sum::<f32>();
    multiply(&mut y, inverse);
    y
}

/// Indices of the `count` largest numbers, the largest first, the earlier first among equals.
fn largest(x: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].total_cmp(&x[a]));
    order.truncate(count);
    order
}

/// Leaves the scores of those of `count` groups that have the largest sum of their two best ones;
/// the others become as small as a number can be.
fn leave_groups(scores: &mut [f32], [count, kept]: [usize; 2]) {
    let width = scores.len() / count;
    let best = |scores: &[f32]| largest(scores, 2).into_iter().map(|i| scores[i]).sum::<f32>();
    let sums: Vec<f32> = scores.chunks_exact(width).map(best).collect();
    let allowed = largest(&sums, kept);
    for (group, scores) in scores.chunks_exact_mut(width).enumerate() {
        if !allowed.contains(&group) {
            scores.fill(f32::NEG_INFINITY);
        }
    }
}
