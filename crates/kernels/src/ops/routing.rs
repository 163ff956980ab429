//! How a token finds its experts: some of the largest scores are chosen, and become weights. The
//! choice has no gradient, the weights have one.
//!
//! With raw weights `s_j` of the chosen j (`exp(z_j) / sum exp(z)` over all experts or over the
//! chosen, or `sigmoid(z_j)`), the weights are `w = scale s`, or `scale s / sum s` where they are
//! normalised.

use super::swiglu::sigmoid;
use crate::Real;

/// How outputs of a router become chosen experts and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// Number of experts of a token.
    pub used: usize,
    /// What becomes of the outputs.
    pub score: Score,
    /// Number of groups of experts, and number of those that a token may choose from: the ones with
    /// the largest sum of their two best scores.
    pub groups: Option<[usize; 2]>,
    /// Whether the weights are divided by their sum.
    pub normalise: bool,
    /// What weights are multiplied by in the end.
    pub scale: f64,
}

/// What becomes of a router's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Softmax over all experts.
    Softmax,
    /// Softmax over the chosen alone.
    SoftmaxOfChosen,
    /// A sigmoid of each.
    Sigmoid,
}

impl Routing {
    /// The experts of a token from a router's `outputs` `[E]`, best first, of equal ones the first;
    /// `bias` `[E]` is added to the scores for the choice alone.
    pub fn choose<T: Real>(&self, outputs: &[T], bias: Option<&[T]>, chosen: &mut [u32]) {
        let mut allowed: Vec<u32> = (0..outputs.len() as u32).collect();
        let mut scores = outputs.to_vec();
        // Other scores are in the order of the outputs, which differ where scores are rounded to
        // the same.
        let plain = bias.is_none() && self.groups.is_none();
        if self.score == Score::Sigmoid || (self.score == Score::Softmax && !plain) {
            self.raw_weights(outputs, &allowed, &mut scores);
        }
        if let Some(bias) = bias {
            scores.iter_mut().zip(bias).for_each(|(score, &bias)| *score += bias);
        }
        if let Some([count, kept]) = self.groups {
            let width = outputs.len() / count.max(1);
            let best_two = |group: &[T]| {
                let order = descending(group);
                order.iter().take(2).fold(T::ZERO, |sum, &at| sum + group[at as usize])
            };
            let sums: Vec<T> = scores.chunks(width.max(1)).map(best_two).collect();
            let groups = &descending(&sums)[..kept.min(sums.len())];
            allowed.retain(|e| groups.contains(&(*e / width.max(1) as u32)));
        }
        let of_allowed: Vec<T> = allowed.iter().map(|&e| scores[e as usize]).collect();
        for (chosen, at) in chosen.iter_mut().zip(descending(&of_allowed)) {
            *chosen = allowed[at as usize];
        }
    }

    /// Weights of the `chosen` experts of a token.
    pub fn weigh<T: Real>(&self, outputs: &[T], chosen: &[u32], weights: &mut [T]) {
        self.raw_weights(outputs, chosen, weights);
        let total = weights.iter().fold(T::ZERO, |sum, &w| sum + w);
        let scale = T::from_f64(self.scale);
        for w in weights {
            *w = if self.normalise { *w / total } else { *w } * scale;
        }
    }

    /// The gradient of [`Self::weigh`] by the outputs, which is overwritten.
    pub fn weigh_backward<T: Real>(
        &self,
        outputs: &[T],
        chosen: &[u32],
        dweights: &[T],
        doutputs: &mut [T],
    ) {
        let mut raw = vec![T::ZERO; chosen.len()];
        self.raw_weights(outputs, chosen, &mut raw);
        let scale = T::from_f64(self.scale);
        let mut draw: Vec<T> = dweights.iter().map(|&d| d * scale).collect();
        if self.normalise {
            let total = raw.iter().fold(T::ZERO, |sum, &s| sum + s);
            let along = dot(&draw, &raw) / total;
            draw.iter_mut().for_each(|d| *d = (*d - along) / total);
        }
        doutputs.fill(T::ZERO);
        let along = dot(&draw, &raw);
        match self.score {
            Score::Sigmoid => {
                for ((&e, &d), &s) in chosen.iter().zip(&draw).zip(&raw) {
                    doutputs[e as usize] = d * s * (T::ONE - s);
                }
            }
            Score::SoftmaxOfChosen => {
                for ((&e, &d), &s) in chosen.iter().zip(&draw).zip(&raw) {
                    doutputs[e as usize] = s * (d - along);
                }
            }
            Score::Softmax => {
                let all: Vec<u32> = (0..outputs.len() as u32).collect();
                self.raw_weights(outputs, &all, doutputs);
                doutputs.iter_mut().for_each(|p| *p = -(*p * along));
                for ((&e, &d), &s) in chosen.iter().zip(&draw).zip(&raw) {
                    doutputs[e as usize] += s * d;
                }
            }
        }
    }

    fn raw_weights<T: Real>(&self, outputs: &[T], chosen: &[u32], weights: &mut [T]) {
        let of_chosen = || chosen.iter().map(|&e| outputs[e as usize]);
        match self.score {
            Score::Sigmoid => {
                weights.iter_mut().zip(of_chosen()).for_each(|(w, z)| *w = sigmoid(z));
            }
            Score::SoftmaxOfChosen => softmax_of(of_chosen(), of_chosen(), weights),
            Score::Softmax => softmax_of(outputs.iter().copied(), of_chosen(), weights),
        }
    }
}

/// `exp(z) / sum exp(all)` of each z.
fn softmax_of<T: Real>(
    all: impl Iterator<Item = T> + Clone,
    of: impl Iterator<Item = T>,
    weights: &mut [T],
) {
    let most = all.clone().fold(T::from_f64(f64::NEG_INFINITY), T::maximum);
    let total = all.fold(T::ZERO, |sum, z| sum + (z - most).exp());
    weights.iter_mut().zip(of).for_each(|(w, z)| *w = (z - most).exp() / total);
}

/// Places of values by falling value, of equal ones the first.
fn descending<T: Real>(values: &[T]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    let value = |at: &u32| values[*at as usize].to_f64();
    order.sort_by(|a, b| value(b).total_cmp(&value(a)));
    order
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).fold(T::ZERO, |sum, (&a, &b)| sum + a * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Routing =
        Routing { used: 2, score: Score::Softmax, groups: None, normalise: false, scale: 1.0 };

    fn chosen(routing: Routing, outputs: &[f64], bias: Option<&[f64]>) -> Vec<u32> {
        let mut chosen = vec![0; routing.used];
        routing.choose(outputs, bias, &mut chosen);
        chosen
    }

    #[test]
    fn the_largest_are_chosen_and_of_equal_ones_the_first() {
        assert_eq!(chosen(PLAIN, &[1.0, 3.0, 3.0, 2.0], None), [1, 2]);
        assert_eq!(chosen(PLAIN, &[1.0, 1.0, 1.0], None), [0, 1]);
    }

    #[test]
    fn a_bias_changes_the_choice_and_no_weight() {
        let outputs = [1.0, 3.0, 2.0];
        let routing = Routing { score: Score::Sigmoid, ..PLAIN };
        assert_eq!(chosen(routing, &outputs, Some(&[1.0, 0.0, 0.0])), [0, 1]);
        let mut weights = [0.0; 2];
        routing.weigh(&outputs, &[0, 1], &mut weights);
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        assert!((weights[0] - sigmoid(1.0)).abs() + (weights[1] - sigmoid(3.0)).abs() < 1e-12);
    }

    #[test]
    fn experts_of_groups_that_are_not_kept_are_not_chosen() {
        let routing = Routing { score: Score::Sigmoid, groups: Some([3, 1]), ..PLAIN };
        // The best expert stands alone in its group; the sum of two is larger in another.
        assert_eq!(chosen(routing, &[9.0, -9.0, 4.0, 5.0, 1.0, 1.0], None), [3, 2]);
    }

    #[test]
    fn gradients_are_finite_differences() {
        let outputs = [0.3, -0.8, 1.1, 0.2, -0.1];
        let (chosen, dweights) = ([2u32, 3, 0], [0.7, -1.3, 0.4]);
        for score in [Score::Softmax, Score::SoftmaxOfChosen, Score::Sigmoid] {
            for normalise in [false, true] {
                let routing = Routing { used: 3, score, normalise, scale: 2.5, groups: None };
                let loss = |outputs: &[f64]| {
                    let mut weights = [0.0; 3];
                    routing.weigh(outputs, &chosen, &mut weights);
                    dot(&weights, &dweights)
                };
                let mut gradient = [9.0; 5];
                routing.weigh_backward(&outputs, &chosen, &dweights, &mut gradient);
                for (i, got) in gradient.into_iter().enumerate() {
                    let moved = |by: f64| {
                        let mut moved = outputs;
                        moved[i] += by;
                        loss(&moved)
                    };
                    let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!((got - want).abs() < 1e-9, "{score:?} {normalise} {i}: {got} {want}");
                }
            }
        }
    }
}
