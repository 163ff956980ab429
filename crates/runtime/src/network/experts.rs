//! A mixture of experts: each token finds some of them by the scores of a float linear, and what
//! they give is added in the order of their rank.

use super::feed_forward::{Dense, Inner};
use super::multiply;
use halfstep_kernels::Pool;
use halfstep_kernels::math::exp_f32;
use halfstep_kernels::ops::linear::linear_ordered;
use halfstep_kernels::ops::routing::Routing;

pub(super) struct Experts {
    /// `[E, D]`.
    pub router: Vec<f32>,
    pub router_bias: Option<Vec<f32>>,
    pub choice_bias: Option<Vec<f32>>,
    pub routing: Routing,
    pub experts: Vec<Dense>,
    pub shared: Option<Dense>,
    /// `[D]`: the logit of how much the shared one counts.
    pub shared_gate: Option<Vec<f32>>,
}

impl Experts {
    /// Of rows x `[M, D]`, y as x. The rows of an expert are computed together; no row's numbers
    /// depend on which others those are.
    pub fn apply(&self, pool: &Pool, x: &[f32], rows: usize, inner: &mut Inner, y: &mut [f32]) {
        let d = x.len() / rows;
        let used = self.routing.used;
        let (chosen, weights) = self.route(pool, x, rows);
        let mut given = vec![0.0; chosen.len() * d];
        let (mut gathered, mut out) = (vec![], vec![]);
        for (e, expert) in self.experts.iter().enumerate() {
            let places: Vec<usize> =
                (0..chosen.len()).filter(|&i| chosen[i] as usize == e).collect();
            if places.is_empty() {
                continue;
            }
            gathered.clear();
            for i in &places {
                gathered.extend_from_slice(&x[i / used * d..][..d]);
            }
            out.resize(gathered.len(), 0.0);
            expert.apply(pool, &gathered, places.len(), inner, &mut out);
            for (&i, out) in places.iter().zip(out.chunks_exact(d)) {
                given[i * d..(i + 1) * d].copy_from_slice(out);
            }
        }
        y.fill(0.0);
        let all = given.chunks_exact(used * d).zip(weights.chunks_exact(used));
        for (y, (given, weights)) in y.chunks_exact_mut(d).zip(all) {
            for (given, weight) in given.chunks_exact(d).zip(weights) {
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

    /// The experts of every row, best first, and their weights: `[M, used]` each.
    fn route(&self, pool: &Pool, x: &[f32], rows: usize) -> (Vec<u32>, Vec<f32>) {
        let (count, used) = (self.experts.len(), self.routing.used);
        let mut outputs = vec![0.0; rows * count];
        linear_ordered(pool, x, &self.router, &mut outputs, rows, count, x.len() / rows);
        if let Some(bias) = &self.router_bias {
            super::add_rows(pool, &mut outputs, bias);
        }
        let (mut chosen, mut weights) = (vec![0; rows * used], vec![0.0; rows * used]);
        let parts = chosen.chunks_exact_mut(used).zip(weights.chunks_exact_mut(used));
        for (outputs, (chosen, weights)) in outputs.chunks_exact(count).zip(parts) {
            self.routing.choose(outputs, self.choice_bias.as_deref(), chosen);
            self.routing.weigh(outputs, chosen, weights);
        }
        (chosen, weights)
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
