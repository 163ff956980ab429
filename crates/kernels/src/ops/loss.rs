//! Losses on logits `[M, V]` with their gradients, row by row: KL to a teacher (distillation) and cross-entropy.
//!
//! With `p = softmax(teacher / T)`, `q = softmax(student / T)`: `KL = sum p ln(p / q)`, `dKL/dstudent = (q - p) / T`.
//! A row's maximum is removed before exp; exp is taken in the logits' type, its sums in f64 in a fixed lane order.

use super::lanes::{LANES, fold, maximum};
use crate::math::ln_f64;
use crate::{Pool, Real, dispatch};

dispatch! {
    /// KL of one row; the gradient times `gain`. `p` is scratch of the row's length.
    fn kl_row[T: Real](teacher: &[T], student: &[T], inverse_temperature: T, gain: f64, p: &mut [T], dstudent: &mut [T]) -> f64 {
        let (teacher_max, student_max) = (maximum(teacher), maximum(student));
        let (mut p_sum, mut q_sum, mut cross) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let blocks = teacher.chunks(LANES).zip(student.chunks(LANES)).zip(p.chunks_mut(LANES).zip(dstudent.chunks_mut(LANES)));
        for ((teacher, student), (p, q)) in blocks {
            for (i, (((&t, &s), p), q)) in teacher.iter().zip(student).zip(p.iter_mut()).zip(q.iter_mut()).enumerate() {
                let (a, b) = ((t - teacher_max) * inverse_temperature, (s - student_max) * inverse_temperature);
                (*p, *q) = (a.exp(), b.exp());
                p_sum[i] += p.to_f64();
                q_sum[i] += q.to_f64();
                // 0 ln 0 = 0: a teacher of -inf adds nothing, whatever the student says.
                cross[i] += if *p > T::ZERO { p.to_f64() * (a - b).to_f64() } else { 0.0 };
            }
        }
        let (p_sum, q_sum) = (fold(p_sum), fold(q_sum));
        let (p_gain, q_gain) = (T::from_f64(gain / p_sum), T::from_f64(gain / q_sum));
        for (q, &p) in dstudent.iter_mut().zip(p.iter()) {
            *q = *q * q_gain - p * p_gain;
        }
        fold(cross) / p_sum + ln_f64(q_sum / p_sum)
    }

    /// -ln softmax(student)[target] of one row; the gradient times `gain`.
    fn nll_row[T: Real](student: &[T], target: usize, gain: f64, dstudent: &mut [T]) -> f64 {
        let max = maximum(student);
        let mut sum = [0.0; LANES];
        for (student, q) in student.chunks(LANES).zip(dstudent.chunks_mut(LANES)) {
            for (i, (&s, q)) in student.iter().zip(q.iter_mut()).enumerate() {
                *q = (s - max).exp();
                sum[i] += q.to_f64();
            }
        }
        let sum = fold(sum);
        let q_gain = T::from_f64(gain / sum);
        for q in dstudent.iter_mut() {
            *q = *q * q_gain;
        }
        dstudent[target] -= T::from_f64(gain);
        ln_f64(sum) - (student[target] - max).to_f64()
    }
}

/// Mean over kept rows of KL(softmax(teacher / T) || softmax(student / T)), without the factor T^2.
/// teacher, student `[M, V]`; `kept[m] == 0` drops row m; the mean divides by `normalizer` (the number of kept rows of the whole batch,
/// so that chunks add up). Writes per-row KL (0 where dropped) to `row_kl` `[M]` and, if given, dL/dstudent to `dstudent` `[M, V]`. Returns this chunk's share of the loss.
#[allow(clippy::too_many_arguments)]
pub fn kl_divergence<T: Real>(
    pool: &Pool,
    teacher: &[T],
    student: &[T],
    vocab: usize,
    temperature: f64,
    kept: Option<&[u8]>,
    normalizer: f64,
    row_kl: &mut [f64],
    dstudent: Option<&mut [T]>,
) -> f64 {
    assert_eq!((teacher.len(), student.len()), (row_kl.len() * vocab, row_kl.len() * vocab), "kl_divergence: shapes");
    let (inverse_temperature, gain) = (T::from_f64(1.0 / temperature), 1.0 / (temperature * normalizer));
    rows(pool, vocab, row_kl, dstudent, |m, gradient| {
        kept.is_none_or(|k| k[m] != 0).then(|| {
            let (teacher, student) = (&teacher[m * vocab..][..vocab], &student[m * vocab..][..vocab]);
            kl_row(teacher, student, inverse_temperature, gain, &mut vec![T::ZERO; vocab], gradient)
        })
    });
    mean(row_kl, normalizer)
}

/// Target that is not counted by [`cross_entropy`].
pub const IGNORE_INDEX: i64 = -100;

/// Mean over counted rows of -ln softmax(student)[target]; as [`kl_divergence`] otherwise. `row_nll` `[M]`.
pub fn cross_entropy<T: Real>(
    pool: &Pool,
    student: &[T],
    targets: &[i64],
    vocab: usize,
    normalizer: f64,
    row_nll: &mut [f64],
    dstudent: Option<&mut [T]>,
) -> f64 {
    assert_eq!((student.len(), targets.len()), (row_nll.len() * vocab, row_nll.len()), "cross_entropy: shapes");
    rows(pool, vocab, row_nll, dstudent, |m, gradient| {
        (targets[m] != IGNORE_INDEX).then(|| nll_row(&student[m * vocab..][..vocab], targets[m] as usize, 1.0 / normalizer, gradient))
    });
    mean(row_nll, normalizer)
}

/// Runs `row(m, gradient of row m)` for all rows in parallel; a row that gives None counts 0 and has no gradient.
fn rows<T: Real>(pool: &Pool, vocab: usize, values: &mut [f64], dstudent: Option<&mut [T]>, row: impl Fn(usize, &mut [T]) -> Option<f64> + Send + Sync) {
    match dstudent {
        Some(dstudent) => {
            assert_eq!(dstudent.len(), values.len() * vocab, "loss: shape of the gradient");
            let parts = values.iter_mut().zip(dstudent.chunks_mut(vocab)).collect();
            pool.parts(parts, |m, (value, gradient)| {
                *value = row(m, gradient).unwrap_or_else(|| {
                    gradient.fill(T::ZERO);
                    0.0
                })
            });
        }
        None => pool.chunks_mut(values, 1, |m, value| value[0] = row(m, &mut vec![T::ZERO; vocab]).unwrap_or(0.0)),
    }
}

/// A batch with no counted row has loss 0.
fn mean(values: &[f64], normalizer: f64) -> f64 {
    let sum: f64 = values.iter().sum();
    if sum == 0.0 { 0.0 } else { sum / normalizer }
}
