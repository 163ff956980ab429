//! Losses on logits `[M, V]` with their gradients, row by row: KL to a teacher (distillation) and
//! cross-entropy.
//!
//! With `p = softmax(teacher / T)`, `q = softmax(student / T)`: `KL = sum p ln(p / q)`,
//! `dKL/dstudent = (q - p) / T`. A row's maximum is removed before exp; exp is taken in the logits'
//! type, its sums in f64 in a fixed lane order.

use super::lanes::{LANES, add_product_wide, add_wide, fold, maximum};
use crate::math::ln_f64;
use crate::{Pool, Real, dispatch};

/// Logits of a row at a time: a multiple of the lanes, small enough that what one loop writes is
/// still in the first cache for the next.
const TILE: usize = 1024;

/// A row of logits and what is taken off before exp.
#[derive(Clone, Copy)]
struct Row<'a, T> {
    logits: &'a [T],
    max: T,
    inverse_temperature: T,
}

impl<T: Real> Row<'_, T> {
    #[inline(always)]
    fn exponent(&self, i: usize) -> T {
        (self.logits[i] - self.max) * self.inverse_temperature
    }
}

/// The KL of a row, the sums of exp on both sides and the maxima that were taken off before.
#[derive(Clone, Copy)]
struct Kl<T> {
    value: f64,
    p_sum: f64,
    q_sum: f64,
    maxima: (T, T),
}

dispatch! {
    /// KL of one row, and what its gradient needs.
    fn kl_row[T: Real](teacher: &[T], student: &[T], inverse_temperature: T) -> Kl<T> {
        let teacher = Row { logits: teacher, max: maximum(teacher), inverse_temperature };
        let student = Row { logits: student, max: maximum(student), inverse_temperature };
        let (mut p_sum, mut q_sum, mut cross) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let (mut p, mut q, mut difference) = ([T::ZERO; TILE], [T::ZERO; TILE], [T::ZERO; TILE]);
        let width = student.logits.len();
        for at in (0..width).step_by(TILE) {
            let n = TILE.min(width - at);
            let (t, s) = (
                Row { logits: &teacher.logits[at..at + n], ..teacher },
                Row { logits: &student.logits[at..at + n], ..student },
            );
            for i in 0..n {
                let (a, b) = (t.exponent(i), s.exponent(i));
                (p[i], q[i]) = (a.exp(), b.exp());
                // 0 ln 0 = 0: a teacher of -inf adds nothing, whatever the student is.
                difference[i] = if p[i] > T::ZERO { a - b } else { T::ZERO };
            }
            p_sum = add_wide(p_sum, &p[..n]);
            q_sum = add_wide(q_sum, &q[..n]);
            cross = add_product_wide(cross, &p[..n], &difference[..n]);
        }
        let (p_sum, q_sum) = (fold(p_sum), fold(q_sum));
        Kl {
            value: fold(cross) / p_sum + ln_f64(q_sum / p_sum),
            p_sum,
            q_sum,
            maxima: (teacher.max, student.max),
        }
    }

    /// The student's logits become the gradient of their KL times `gain`. exp is taken again:
    /// cheaper than to keep a row of probabilities.
    fn kl_gradient_row[T: Real](
        teacher: &[T],
        student: &mut [T],
        inverse_temperature: T,
        gain: f64,
        kl: Kl<T>,
    ) {
        let (p_gain, q_gain) = (T::from_f64(gain / kl.p_sum), T::from_f64(gain / kl.q_sum));
        let ((p_max, q_max), teacher) = (kl.maxima, &teacher[..student.len()]);
        for i in 0..student.len() {
            let (p, q) = (
                ((teacher[i] - p_max) * inverse_temperature).exp(),
                ((student[i] - q_max) * inverse_temperature).exp(),
            );
            student[i] = q * q_gain - p * p_gain;
        }
    }

    /// -ln softmax(student)[target] of one row; the gradient, if wanted, times `gain`.
    fn nll_row[T: Real](
        student: &[T],
        target: usize,
        gain: f64,
        gradient: Option<&mut [T]>,
    ) -> f64 {
        let student = Row { logits: student, max: maximum(student), inverse_temperature: T::ONE };
        let (mut sum, mut q) = ([0.0; LANES], [T::ZERO; TILE]);
        let width = student.logits.len();
        for at in (0..width).step_by(TILE) {
            let n = TILE.min(width - at);
            let s = Row { logits: &student.logits[at..at + n], ..student };
            for i in 0..n {
                q[i] = s.exponent(i).exp();
            }
            sum = add_wide(sum, &q[..n]);
        }
        let sum = fold(sum);
        if let Some(gradient) = gradient {
            let q_gain = T::from_f64(gain / sum);
            let gradient = &mut gradient[..width];
            for i in 0..width {
                gradient[i] = student.exponent(i).exp() * q_gain;
            }
            gradient[target] -= T::from_f64(gain);
        }
        ln_f64(sum) - student.exponent(target).to_f64()
    }
}

/// Mean over kept rows of KL(softmax(teacher / T) || softmax(student / T)), without the factor T^2.
/// teacher, student `[M, V]`; `kept[m] == 0` drops row m; the mean divides by `normalizer` (the
/// number of kept rows of the whole batch, so that chunks add up). Writes per-row KL (0 where
/// dropped) to `row_kl` `[M]` and, if given, dL/dstudent to `dstudent` `[M, V]`. Returns this
/// chunk's share of the loss.
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
    assert_eq!(
        (teacher.len(), student.len()),
        (row_kl.len() * vocab, row_kl.len() * vocab),
        "kl_divergence: shapes"
    );
    let (inverse_temperature, gain) =
        (T::from_f64(1.0 / temperature), 1.0 / (temperature * normalizer));
    let counted = |m: usize| kept.is_none_or(|k| k[m] != 0);
    rows(pool, vocab, row_kl, dstudent, counted, |m, gradient| {
        let (teacher, student) = (&teacher[m * vocab..][..vocab], &student[m * vocab..][..vocab]);
        let kl = kl_row(teacher, student, inverse_temperature);
        if let Some(gradient) = gradient {
            gradient.copy_from_slice(student);
            kl_gradient_row(teacher, gradient, inverse_temperature, gain, kl);
        }
        kl.value
    });
    mean(row_kl, normalizer)
}

/// [`kl_divergence`] over all rows, whose gradient takes the place of the student's logits.
pub fn kl_divergence_in_place<T: Real>(
    pool: &Pool,
    teacher: &[T],
    student: &mut [T],
    vocab: usize,
    temperature: f64,
    normalizer: f64,
    row_kl: &mut [f64],
) -> f64 {
    assert_eq!(
        (teacher.len(), student.len()),
        (row_kl.len() * vocab, row_kl.len() * vocab),
        "kl_divergence_in_place: shapes"
    );
    let (inverse_temperature, gain) =
        (T::from_f64(1.0 / temperature), 1.0 / (temperature * normalizer));
    let parts = row_kl.iter_mut().zip(student.chunks_mut(vocab)).collect();
    pool.parts(parts, |m, (value, student)| {
        let teacher = &teacher[m * vocab..][..vocab];
        let kl = kl_row(teacher, student, inverse_temperature);
        kl_gradient_row(teacher, student, inverse_temperature, gain, kl);
        *value = kl.value;
    });
    mean(row_kl, normalizer)
}

/// Target that is not counted by [`cross_entropy`].
pub const IGNORE_INDEX: i64 = -100;

/// Mean over counted rows of `-ln softmax(student)[target]`; as [`kl_divergence`] otherwise.
/// `row_nll` `[M]`. A target is [`IGNORE_INDEX`] or below V.
pub fn cross_entropy<T: Real>(
    pool: &Pool,
    student: &[T],
    targets: &[i64],
    vocab: usize,
    normalizer: f64,
    row_nll: &mut [f64],
    dstudent: Option<&mut [T]>,
) -> f64 {
    assert_eq!(
        (student.len(), targets.len()),
        (row_nll.len() * vocab, row_nll.len()),
        "cross_entropy: shapes"
    );
    let counted = |m: usize| targets[m] != IGNORE_INDEX;
    rows(pool, vocab, row_nll, dstudent, counted, |m, gradient| {
        nll_row(&student[m * vocab..][..vocab], targets[m] as usize, 1.0 / normalizer, gradient)
    });
    mean(row_nll, normalizer)
}

/// Runs `row(m, gradient of row m)` for the counted rows in parallel; the others have value and
/// gradient 0.
fn rows<T: Real>(
    pool: &Pool,
    vocab: usize,
    values: &mut [f64],
    dstudent: Option<&mut [T]>,
    counted: impl Fn(usize) -> bool + Send + Sync,
    row: impl Fn(usize, Option<&mut [T]>) -> f64 + Send + Sync,
) {
    match dstudent {
        Some(dstudent) => {
            assert_eq!(dstudent.len(), values.len() * vocab, "loss: shape of the gradient");
            let parts = values.iter_mut().zip(dstudent.chunks_mut(vocab)).collect();
            pool.parts(parts, |m, (value, gradient)| {
                if counted(m) {
                    *value = row(m, Some(gradient));
                } else {
                    *value = 0.0;
                    gradient.fill(T::ZERO);
                }
            });
        }
        None => pool.chunks_mut(values, 1, |m, value| {
            value[0] = if counted(m) { row(m, None) } else { 0.0 }
        }),
    }
}

/// A batch with no counted row has loss 0.
fn mean(values: &[f64], normalizer: f64) -> f64 {
    let sum: f64 = values.iter().sum();
    if sum == 0.0 { 0.0 } else { sum / normalizer }
}
