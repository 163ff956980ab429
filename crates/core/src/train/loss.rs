//! The end of the model: final norm, head, loss and their backward in one pass over token chunks, so that T x V logits never exist at once.

use super::weights::Weights;
use crate::ops::{Number, Sink};
use halfstep_kernels::ops::gemm;
use halfstep_kernels::ops::loss::{IGNORE_INDEX, cross_entropy, kl_divergence};
use halfstep_kernels::ops::rms_norm::{rms_norm, rms_norm_backward};
use halfstep_kernels::quant::activation::fake_quant;
use halfstep_kernels::{ActivationQuantizer, Pool, Real};

/// What is minimised: kl_weight * KL(teacher || student) at `temperature` + ce_weight * next-token cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    pub kl_weight: f64,
    pub ce_weight: f64,
    pub temperature: f64,
}

/// Head and loss of one micro-batch.
pub struct LossHead<'a, T> {
    pub pool: &'a Pool,
    pub norm_eps: f64,
    pub vocab: usize,
    pub hidden: usize,
    pub activation: ActivationQuantizer,
    pub objective: Objective,
    /// Bytes of logits held at once (teacher, student and gradient).
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
    /// `student` and `teacher_hidden` `[M, D]` are the last block's outputs; `targets[m]` is the next token or [`IGNORE_INDEX`].
    /// Returns this micro-batch's share of the loss and dL/dstudent `[M, D]`.
    pub fn backward(&self, student: &[T], teacher_hidden: Option<&[T]>, targets: &[i64], normalizers: Normalizers) -> (f64, Vec<T>) {
        let (d, v) = (self.hidden, self.vocab);
        let m = student.len() / d;
        let zeros = |n: usize| vec![<T as Real>::ZERO; n];
        let mut normed = zeros(m * d);
        rms_norm(self.pool, student, &self.weights.final_norm, self.norm_eps, &mut normed);
        let mut input = normed;
        if self.activation != ActivationQuantizer::None {
            let mut quantized = zeros(m * d);
            fake_quant(self.pool, self.activation, &input, d, None, &mut quantized);
            input = quantized;
        }
        let teacher = self.teacher.zip(teacher_hidden).filter(|_| self.objective.kl_weight > 0.0).map(|(weights, hidden)| {
            let mut normed = zeros(m * d);
            rms_norm(self.pool, hidden, &weights.final_norm, self.norm_eps, &mut normed);
            (weights, normed)
        });
        let rows = (self.bytes / (3 * v * size_of::<T>())).clamp(1, m);
        let (mut logits, mut teacher_logits, mut dlogits) = (zeros(rows * v), zeros(if teacher.is_some() { rows * v } else { 0 }), zeros(rows * v));
        let mut dinput = zeros(m * d);
        let mut loss = 0.0;
        for first in (0..m).step_by(rows) {
            let n = rows.min(m - first);
            let (x, logits, dlogits) = (&input[first * d..(first + n) * d], &mut logits[..n * v], &mut dlogits[..n * v]);
            gemm::linear(self.pool, &gemm::Dense::new(x, d), &gemm::Dense::new(&self.weights.head, d), logits);
            if let Some((weights, normed)) = &teacher {
                let teacher_logits = &mut teacher_logits[..n * v];
                gemm::linear(self.pool, &gemm::Dense::new(&normed[first * d..(first + n) * d], d), &gemm::Dense::new(&weights.head, d), teacher_logits);
                loss += self.loss(Some(teacher_logits), logits, &targets[first..first + n], normalizers, dlogits);
            } else {
                loss += self.loss(None, logits, &targets[first..first + n], normalizers, dlogits);
            }
            gemm::linear_backward_input(
                self.pool,
                &gemm::Dense::new(dlogits, v),
                &gemm::Dense::new(&self.weights.head, d),
                &mut dinput[first * d..(first + n) * d],
                false,
            );
            if let Some(sink) = self.head_sink {
                sink.add(|dw, accumulate| gemm::linear_backward_weight(self.pool, &gemm::Dense::new(dlogits, v), &gemm::Dense::new(x, d), dw, accumulate));
            }
        }
        let (mut dstudent, mut dnorm) = (zeros(m * d), zeros(d));
        rms_norm_backward(self.pool, student, &self.weights.final_norm, self.norm_eps, &dinput, &mut dstudent, &mut dnorm);
        if let Some(sink) = self.norm_sink {
            sink.add_slice(&dnorm);
        }
        (loss, dstudent)
    }

    /// Loss of a chunk and dL/dlogits (overwritten).
    fn loss(&self, teacher: Option<&mut [T]>, logits: &mut [T], targets: &[i64], normalizers: Normalizers, dlogits: &mut [T]) -> f64 {
        let Objective { kl_weight, ce_weight, temperature } = self.objective;
        let mut per_row = vec![0.0; targets.len()];
        let mut loss = 0.0;
        if let Some(teacher) = teacher {
            loss += kl_weight * kl_divergence(self.pool, teacher, logits, self.vocab, temperature, None, normalizers.kl, &mut per_row, Some(dlogits));
            if kl_weight != 1.0 {
                let scale = <T as Real>::from_f64(kl_weight);
                dlogits.iter_mut().for_each(|g| *g *= scale);
            }
        } else {
            dlogits.fill(<T as Real>::ZERO);
        }
        if ce_weight > 0.0 {
            let mut gradient = vec![<T as Real>::ZERO; logits.len()];
            loss += ce_weight * cross_entropy(self.pool, logits, targets, self.vocab, normalizers.ce, &mut per_row, Some(&mut gradient));
            let scale = <T as Real>::from_f64(ce_weight);
            dlogits.iter_mut().zip(&gradient).for_each(|(g, &c)| *g += scale * c);
        }
        loss
    }
}

/// The next token at every position of `[batch, tokens]`, none at the last of each row.
pub fn next_tokens(batch: &[u32], tokens: usize) -> Vec<i64> {
    batch.chunks(tokens).flat_map(|row| row[1..].iter().map(|&t| i64::from(t)).chain([IGNORE_INDEX])).collect()
}
