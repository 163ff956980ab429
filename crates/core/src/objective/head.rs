//! The end of the model: final norm, head, loss and their backward in one pass over token chunks,
//! so that T x V logits never exist at once.

use super::cross_entropy::entropy;
use super::kl::{KlConfig, divergence};
use super::{TermConfig, WeightedTerm};
use crate::autograd::ops::linear::integer_products;
use crate::autograd::ops::weight::Weight;
use crate::autograd::ops::{Number, Sink};
use crate::layer::weights::Weights;
use halfstep_kernels::ops::gemm::{self, Dense, Precision, Prepared, Rows};
use halfstep_kernels::ops::linear::WeightPanels;
use halfstep_kernels::ops::loss::IGNORE_INDEX;
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::{ActivationSpec, Pool, Real, uninit_vec};
use std::sync::Arc;

/// What is minimised: kl_weight * KL(teacher || student) at `temperature` + ce_weight * next-token
/// cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    pub kl_weight: f64,
    pub ce_weight: f64,
    pub temperature: f64,
}

impl Objective {
    /// The terms that look at logits, where `progress` of the stage's steps is done.
    pub fn at(terms: &[WeightedTerm], progress: f64) -> Self {
        let mut objective = Self { kl_weight: 0.0, ce_weight: 0.0, temperature: 1.0 };
        for WeightedTerm { term, weight } in terms {
            match term {
                TermConfig::Kl(KlConfig { temperature }) => {
                    objective.kl_weight = weight.at(progress);
                    objective.temperature = *temperature;
                }
                TermConfig::CrossEntropy(_) => objective.ce_weight = weight.at(progress),
                _ => {}
            }
        }
        objective
    }
}

/// Head and loss of one micro-batch.
pub struct LossHead<'a, T> {
    pub pool: &'a Pool,
    pub norm_eps: f64,
    pub vocab: usize,
    pub hidden: usize,
    pub activation: ActivationSpec,
    pub precision: Precision,
    pub objective: Objective,
    /// Bytes of logits held at once (the teacher's, and the student's, which become their
    /// gradient). Where that makes chunks of the tokens, the heads are held as panels too.
    pub bytes: usize,
    pub weights: &'a Weights<T>,
    pub teacher: Option<&'a Weights<T>>,
    pub norm_sink: Option<&'a Sink<T>>,
    pub head_sink: Option<&'a Sink<T>>,
}

/// Divisors of the means over the whole optimizer step, so that micro-batches and chunks add up.
#[derive(Clone, Copy, Debug)]
pub struct Normalizers {
    pub kl: f64,
    pub ce: f64,
}

impl<T: Number> LossHead<'_, T> {
    /// `student` and `teacher_hidden` `[M, D]` are the last block's outputs; `targets[m]` is the
    /// next token or [`IGNORE_INDEX`]. Returns this micro-batch's share of the loss and dL/dstudent
    /// `[M, D]`.
    pub fn backward(
        &self,
        student: &[T],
        teacher_hidden: Option<&[T]>,
        targets: &[i64],
        normalizers: Normalizers,
    ) -> (f64, Vec<T>) {
        let (d, v) = (self.hidden, self.vocab);
        let m = student.len() / d;
        let mut normed = uninit_vec(m * d);
        rms_norm(self.pool, student, &self.weights.final_norm, self.norm_eps, &mut normed);
        let mut quantized = vec![];
        if self.activation != ActivationSpec::F32 {
            quantized = uninit_vec(m * d);
            fake_quant(self.pool, self.activation, &normed, d, None, &mut quantized);
        }
        let input = if quantized.is_empty() { &normed } else { &quantized };
        let rows = (self.bytes / (2 * v * size_of::<T>())).clamp(1, m);
        let chunks = m.div_ceil(rows);
        let teacher =
            self.teacher.zip(teacher_hidden).filter(|_| self.objective.kl_weight > 0.0).map(
                |(weights, hidden)| {
                    let mut normed = uninit_vec(m * d);
                    rms_norm(self.pool, hidden, &weights.final_norm, self.norm_eps, &mut normed);
                    (Prepared::linear(self.pool, self.precision, &weights.head, chunks), normed)
                },
            );
        let head = &self.weights.head;
        let forward = Prepared::linear(
            self.pool,
            self.precision,
            head,
            if self.integer_head().is_some() { 0 } else { chunks },
        );
        let backward = Prepared::linear_backward_input(self.pool, self.precision, head, chunks);
        let mut teacher_logits = uninit_vec(if teacher.is_some() { rows * v } else { 0 });
        let mut dinput = uninit_vec(m * d);
        let mut loss = 0.0;
        for first in (0..m).step_by(rows) {
            let part = first * d..(first + rows.min(m - first)) * d;
            let n = part.len() / d;
            let x = Dense::new(&input[part.clone()], d);
            let mut dlogits = self.logits(&x, &normed[part.clone()], n, &forward);
            if let Some((head, normed)) = &teacher {
                let teacher_logits = &mut teacher_logits[..n * v];
                gemm::linear(
                    self.pool,
                    self.precision,
                    &Dense::new(&normed[part.clone()], d),
                    head,
                    teacher_logits,
                );
                loss += self.loss(
                    Some(teacher_logits),
                    &mut dlogits,
                    &targets[first..first + n],
                    normalizers,
                );
            } else {
                loss += self.loss(None, &mut dlogits, &targets[first..first + n], normalizers);
            }
            let dlogits = Dense::new(&dlogits, v);
            gemm::linear_backward_input(
                self.pool,
                self.precision,
                &dlogits,
                &backward,
                &mut dinput[part],
                false,
            );
            if let Some(sink) = self.head_sink {
                sink.add(|dw, accumulate| {
                    gemm::linear_backward_weight(
                        self.pool,
                        self.precision,
                        &dlogits,
                        &x,
                        dw,
                        accumulate,
                    )
                });
            }
        }
        let (mut dstudent, mut dnorm) = (uninit_vec(m * d), vec![<T as Real>::ZERO; d]);
        rms_norm_backward(
            self.pool,
            student,
            &self.weights.final_norm,
            self.norm_eps,
            &dinput,
            &mut dstudent,
            &mut dnorm,
        );
        if let Some(sink) = self.norm_sink {
            sink.add_slice(&dnorm);
        }
        (loss, dstudent)
    }

    /// The student's head, where its logits are the packed runtime's integer products.
    fn integer_head(&self) -> Option<&Arc<WeightPanels>> {
        match &self.weights.head {
            Weight::Panels(panels) if self.activation != ActivationSpec::F32 => Some(panels),
            _ => None,
        }
    }

    /// The student's logits of a chunk: `x` as the head's weight sees it, `normed` before its
    /// quantizer.
    fn logits(&self, x: &Dense<T>, normed: &[T], rows: usize, head: &dyn Rows<T>) -> Vec<T> {
        if let Some(panels) = self.integer_head() {
            return integer_products(self.pool, normed, self.activation, None, &[panels])
                .swap_remove(0);
        }
        let mut logits = uninit_vec(rows * self.vocab);
        gemm::linear(self.pool, self.precision, x, head, &mut logits);
        logits
    }

    /// Loss of a chunk; the logits become its gradient.
    fn loss(
        &self,
        teacher: Option<&[T]>,
        logits: &mut [T],
        targets: &[i64],
        normalizers: Normalizers,
    ) -> f64 {
        let Objective { kl_weight, ce_weight, temperature } = self.objective;
        let (mut loss, mut ce_gradient) = (0.0, vec![]);
        if ce_weight > 0.0 {
            let (ce, gradient) = entropy(self.pool, logits, targets, self.vocab, normalizers.ce);
            loss += ce_weight * ce;
            ce_gradient = gradient;
        }
        match teacher {
            Some(teacher) => {
                loss += kl_weight
                    * divergence(
                        self.pool,
                        teacher,
                        logits,
                        self.vocab,
                        temperature,
                        normalizers.kl,
                    )
            }
            None => logits.fill(<T as Real>::ZERO),
        }
        if kl_weight != 1.0 || ce_weight > 0.0 {
            let [kl_weight, ce_weight] = [kl_weight, ce_weight].map(<T as Real>::from_f64);
            logits.iter_mut().for_each(|g| *g *= kl_weight);
            logits.iter_mut().zip(&ce_gradient).for_each(|(g, &c)| *g += ce_weight * c);
        }
        loss
    }
}

/// The next token at every position of `[batch, tokens]`, none at the last of each row.
pub fn next_tokens(batch: &[u32], tokens: usize) -> Vec<i64> {
    batch
        .chunks(tokens)
        .flat_map(|row| row[1..].iter().map(|&t| i64::from(t)).chain([IGNORE_INDEX]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::cross_entropy::CrossEntropyConfig;
    use super::super::weight::{Weight, WeightSchedule, WeightShape};
    use super::*;

    #[test]
    fn weights_of_terms_follow_the_stage() {
        let changing = WeightSchedule { from: 1.0, to: 0.0, shape: WeightShape::Linear };
        let terms = [
            WeightedTerm {
                term: TermConfig::Kl(KlConfig { temperature: 2.0 }),
                weight: Weight::Changing(changing),
            },
            WeightedTerm {
                term: TermConfig::CrossEntropy(CrossEntropyConfig {}),
                weight: Weight::Constant(0.5),
            },
        ];
        let at = |progress| {
            let Objective { kl_weight, ce_weight, temperature } = Objective::at(&terms, progress);
            [kl_weight, ce_weight, temperature]
        };
        assert_eq!([at(0.0), at(0.25)], [[1.0, 0.5, 2.0], [0.75, 0.5, 2.0]]);
    }
}
