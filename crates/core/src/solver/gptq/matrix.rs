//! GPTQ: Accurate Post-training Compression for Generative Pretrained Transformers, 2022, arXiv
//! 2210.17323, algorithm 1. No gradient.
//!
//! Columns are rounded one after the other; the columns still free make up for each error as well
//! as their correlations allow:
//!
//!     H^-1 = U^T U                        H damped, U upper triangular
//!     q_j = Q(w_j);   e_j = (w_j - q_j) / U_jj;   W[:, j:] -= e_j U[j, j:]
//!
//! With E = [e_1 .. e_I] it follows that `W0 - Wq = E U`, so `||E||^2 = tr((W0 - Wq) H (W0 -
//! Wq)^T)`: the running loss is the layer's error.
//!
//! Unlike the authors' code: weights of dead columns are kept; running groups take their scale from
//! weights with all feedback so far, also that of their own block; act-order has the scales of the
//! original weights in storage order (no per-column index); U comes from one factorization of H in
//! reverse order, H^-1 is never formed.
use crate::solver::Part;
use crate::solver::cholesky::inverse_factor;
use crate::solver::{check_finite, quadratic_errors};
use crate::statistics::hessian::Hessian;
use crate::{Error, Result};
use halfstep_kernels::ops::gemm::{Dense, Precision, linear_backward_input};
use halfstep_kernels::quant::nearest::quantize;
use halfstep_kernels::quant::observer::{Observer, find_scales};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Granularity, Int, Pool, QuantSpec, Real, ScaleCodec};
use std::borrow::Cow;
use std::ops::Range;

/// How a group's range is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GroupRange {
    /// By one of the rules that plain rounding has; `Absmax` on an affine grid is min-max widened
    /// to hold 0.
    Rule(Observer),
    /// The authors' symmetric form, on affine grids: `s = 2 max|w| / (2^b - 1)`, `z = 2^(b-1)`.
    Centred,
}

/// Which weights a group's range is found from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScales {
    /// The original ones, all groups before the first column.
    Static,
    /// Those with the feedback so far, when the group's first column is taken. Static where no
    /// group has a first column: under act-order, and for scales of whole rows or the whole matrix.
    Running,
}

/// What becomes of the weights of a column whose input was always 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadColumns {
    /// Rounded like any other.
    Keep,
    /// Set to 0 before any scale is found (authors' code).
    Zero,
}

/// How GPTQ goes through a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqOptions {
    /// Added to the diagonal of H, as a share of its mean. Default 0.01. More pulls towards plain
    /// rounding.
    pub damping: f64,
    /// Take the columns by falling diagonal of H, the most used ones while all others are free.
    /// Default true.
    pub act_order: bool,
    /// Default static.
    pub groups: GroupScales,
    /// Default `Absmax`.
    pub range: GroupRange,
    /// Columns whose feedback goes to the rest of the matrix at once. Default 128. Speed only.
    pub block: usize,
    /// Default keep.
    pub dead: DeadColumns,
}

impl Default for GptqOptions {
    fn default() -> Self {
        let range = GroupRange::Rule(Observer::Absmax);
        Self {
            damping: 0.01,
            act_order: true,
            groups: GroupScales::Static,
            range,
            block: 128,
            dead: DeadColumns::Keep,
        }
    }
}

/// A solved layer.
#[derive(Clone, Debug)]
pub struct Solved {
    /// Codes, scales and zero points.
    pub packed: QuantTensor,
    /// `tr((W0 - Wq) H (W0 - Wq)^T)` under damped H.
    pub error: f64,
    /// The same for plain rounding with the same scales.
    pub nearest_error: f64,
    /// Columns in the order they were taken `[I]`.
    pub order: Vec<usize>,
    /// The damping used: more than was asked for if H had no factor with that.
    pub damping: f64,
}

/// A pivot below this part of its diagonal entry is rounding: H is made of f32 sums.
const LEAST_PIVOT: f64 = 1.0 / (1 << 22) as f64;
/// The damping is raised no further than this.
const MOST_DAMPING: f64 = 10.0;
/// Elements that [`single`] rounds at a time.
const PIECE_FREED: usize = 1 << 22;
/// Elements a task holds at least.
const PIECE: usize = 16384;

/// Codes of w `[O, I]` by GPTQ.
///
/// Errors: `Data` naming the first weight that is not finite, a Hessian without tokens, a scale too
/// large for its codec, an H without a factor however damped; `Config` for options out of range.
pub fn gptq(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    quantizer: QuantSpec,
    hessian: &Hessian,
    options: GptqOptions,
) -> Result<Solved> {
    assert_eq!((w.len(), hessian.cols()), (rows * cols, cols), "shapes of gptq");
    check(quantizer, hessian, options)?;
    check_finite("weights", w, cols)?;
    let mut diagonal = hessian.diagonal();
    let w = without_dead(w, &diagonal, options.dead);
    diagonal.iter_mut().filter(|h| **h == 0.0).for_each(|h| *h = 1.0);
    let order = order(&diagonal, options.act_order);
    let (upper, damping) = factor(pool, hessian, &order, &diagonal, options.damping)?;

    let running = options.groups == GroupScales::Running
        && !options.act_order
        && matches!(quantizer.granularity, Granularity::Group(_));
    let n = quantizer.granularity.scales(rows, cols);
    let (scales, zero_points) = if running {
        (vec![0.0; n], vec![0; n])
    } else {
        stored_scales(pool, &w, rows, cols, quantizer, options.range)?
    };
    let group = if running { quantizer.granularity.group_size(cols) } else { cols };
    let now = w.chunks_exact(cols).flat_map(|row| order.iter().map(|&j| row[j])).collect();
    let by = Rounding { cols, quantizer, order: &order, upper: &upper, scales, zero_points };
    let codes = vec![0; rows * cols];
    let mut columns = Columns { by, now, codes, error: 0.0, feedback: vec![] };
    let mut start = 0;
    while start < cols {
        if running && start % group == 0 {
            columns.find_scales(pool, start, options.range)?;
        }
        // A block ends with its group, so that the next group's weights have all feedback when its
        // scales are found.
        let end = (start + options.block).min((start / group + 1) * group).min(cols);
        columns.take(pool, start..end);
        start = end;
    }
    let Columns { by: Rounding { scales, mut zero_points, .. }, codes, error, .. } = columns;
    if !quantizer.has_zero_point() {
        zero_points.clear();
    }
    let nearest = quantize(pool, &w, rows, cols, quantizer, &scales, &zero_points);
    let nearest_error = damped_error(pool, &w, &nearest, hessian, &diagonal, damping);
    let packed = QuantTensor::from_codes(quantizer, rows, cols, &codes, scales, zero_points);
    Ok(Solved { packed, error, nearest_error, order, damping })
}

fn check(quantizer: QuantSpec, hessian: &Hessian, options: GptqOptions) -> Result<()> {
    if !(0.0..=MOST_DAMPING).contains(&options.damping) {
        return Err(Error::config(
            "damping",
            format!("{} is not between 0 and {MOST_DAMPING}", options.damping),
        ));
    }
    if options.block == 0 {
        return Err(Error::config("block", "a block has at least one column"));
    }
    if options.range == GroupRange::Centred && !quantizer.has_zero_point() {
        return Err(Error::config(
            "range",
            "a centred range needs an affine grid; on symmetric ones use absmax",
        ));
    }
    if hessian.tokens() == 0 {
        return Err(Error::Data {
            data: "calibration input".into(),
            reason: "no token was seen".into(),
        });
    }
    Ok(())
}

fn without_dead<'a>(w: &'a [f32], diagonal: &[f64], dead: DeadColumns) -> Cow<'a, [f32]> {
    if dead == DeadColumns::Keep {
        return Cow::Borrowed(w);
    }
    let rows = w.chunks_exact(diagonal.len());
    rows.flat_map(|row| row.iter().zip(diagonal).map(|(&w, &h)| if h == 0.0 { 0.0 } else { w }))
        .collect()
}

/// Columns as they are taken; equal ones in their own order.
fn order(diagonal: &[f64], act_order: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..diagonal.len()).collect();
    if act_order {
        order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    }
    order
}

/// H `[I, I]` with this diagonal, damped, its rows and columns in `order`.
fn damped<T: Real>(
    pool: &Pool,
    hessian: &Hessian,
    order: &[usize],
    diagonal: &[f64],
    damping: f64,
) -> Vec<T> {
    let (cols, lift) =
        (diagonal.len(), damping * diagonal.iter().sum::<f64>() / diagonal.len() as f64);
    let mut h = vec![T::ZERO; cols * cols];
    pool.chunks_mut(&mut h, cols, |i, row| {
        for (j, h) in row.iter_mut().enumerate() {
            *h = T::from_f64(if i == j {
                diagonal[order[i]] + lift
            } else {
                hessian.at(order[i], order[j])
            });
        }
    });
    h
}

/// U `[I, I]` of damped H, and the damping with which there is one: what was asked for, else ten
/// times more until it is enough.
fn factor(
    pool: &Pool,
    hessian: &Hessian,
    order: &[usize],
    diagonal: &[f64],
    asked: f64,
) -> Result<(Vec<f32>, f64)> {
    let mut damping = asked;
    loop {
        let mut h: Vec<f64> = damped(pool, hessian, order, diagonal, damping);
        match inverse_factor(pool, &mut h, order.len(), LEAST_PIVOT) {
            Ok(()) => return Ok((single(h), damping)),
            Err(pivot) if damping >= MOST_DAMPING => {
                let reason = format!(
                    "its Hessian is not positive definite at column {} even with damping {damping}",
                    order[pivot.index]
                );
                return Err(Error::Data { data: "calibration input".into(), reason });
            }
            Err(_) => damping = (10.0 * damping).clamp(1e-4, MOST_DAMPING),
        }
    }
}

/// The values rounded to f32. Those of a wide matrix are hundreds of megabytes, which are not held
/// twice: what is done goes back piece by piece, from the end.
fn single(mut values: Vec<f64>) -> Vec<f32> {
    let mut rounded = vec![0.0; values.len()];
    while let Some(first) = values.len().checked_sub(1).map(|last| last / PIECE_FREED * PIECE_FREED) {
        let rest = rounded[first..].iter_mut().zip(&values[first..]);
        rest.for_each(|(rounded, &value)| *rounded = value as f32);
        values.truncate(first);
        values.shrink_to_fit();
    }
    rounded
}

/// Scales as stored, and zero points (0 on grids without).
fn stored_scales(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    quantizer: QuantSpec,
    range: GroupRange,
) -> Result<(Vec<f32>, Vec<u8>)> {
    let (mut scales, mut zero_points) = match range {
        GroupRange::Rule(rule) => find_scales(pool, w, rows, cols, quantizer, rule),
        GroupRange::Centred => {
            // The largest code of two bits is 1: the scale is max|w|.
            let most = find_scales(
                pool,
                w,
                rows,
                cols,
                quantizer.with_int(Int::symmetric(2)),
                Observer::Absmax,
            )
            .0;
            let zero_points = vec![1 << (quantizer.bits() - 1); most.len()];
            (
                most.iter().map(|most| 2.0 * (most / quantizer.max_code() as f32)).collect(),
                zero_points,
            )
        }
    };
    scales.iter_mut().for_each(|s| *s = quantizer.scale.store(*s));
    zero_points.resize(scales.len(), 0);
    match scales.iter().position(|s| !s.is_finite()) {
        None => Ok((scales, zero_points)),
        Some(at) => {
            let kind = if quantizer.scale == ScaleCodec::F16 { "f16" } else { "f32" };
            Err(Error::Data {
                data: "weights".into(),
                reason: format!(
                    "row {}: the scale is too large for {kind}",
                    at * rows / scales.len()
                ),
            })
        }
    }
}

/// `tr((w - wq) H (w - wq)^T)` under damped H.
fn damped_error(
    pool: &Pool,
    w: &[f32],
    packed: &QuantTensor,
    hessian: &Hessian,
    diagonal: &[f64],
    damping: f64,
) -> f64 {
    let mut difference = vec![0.0; w.len()];
    packed.decode(pool, &mut difference);
    difference.iter_mut().zip(w).for_each(|(d, w)| *d = w - *d);
    let h: Vec<f32> = damped(pool, hessian, &order(diagonal, false), diagonal, damping);
    quadratic_errors(pool, &difference, &h, diagonal.len()).iter().sum()
}

/// What a row's codes are made with.
struct Rounding<'a> {
    cols: usize,
    quantizer: QuantSpec,
    /// Columns as they are taken.
    order: &'a [usize],
    /// U `[I, I]`.
    upper: &'a [f32],
    scales: Vec<f32>,
    zero_points: Vec<u8>,
}

/// The matrix on its way. `now` has its columns as they are taken, `codes` as they are stored; both
/// `[O, I]`.
struct Columns<'a> {
    by: Rounding<'a>,
    now: Vec<f32>,
    codes: Vec<i16>,
    error: f64,
    /// Of the errors of a block on the columns after it.
    feedback: Vec<f32>,
}

impl Columns<'_> {
    /// Scales of the group that begins at column `start`, from its weights as they are now. The
    /// columns are in storage order.
    fn find_scales(&mut self, pool: &Pool, start: usize, range: GroupRange) -> Result<()> {
        let (cols, granularity) = (self.by.cols, self.by.quantizer.granularity);
        let end = cols.min(start + granularity.group_size(cols));
        let w: Vec<f32> =
            self.now.chunks_exact(cols).flat_map(|row| &row[start..end]).copied().collect();
        let quantizer = QuantSpec { granularity: Granularity::Channel, ..self.by.quantizer };
        let (scales, zero_points) =
            stored_scales(pool, &w, w.len() / (end - start), end - start, quantizer, range)?;
        for (row, (scale, zero)) in scales.into_iter().zip(zero_points).enumerate() {
            let index = granularity.scale_index(row, start, cols);
            (self.by.scales[index], self.by.zero_points[index]) = (scale, zero);
        }
        Ok(())
    }

    /// Rounds a block of columns and passes its errors on to those after it.
    fn take(&mut self, pool: &Pool, block: Range<usize>) {
        let (cols, width, rest) = (self.by.cols, block.len(), self.by.cols - block.end);
        let rows_a_task = (PIECE / cols).max(1);
        let mut errors = vec![0.0; self.now.len() / cols * width];
        let now = self.now.chunks_mut(rows_a_task * cols);
        let parts = now
            .zip(errors.chunks_mut(rows_a_task * width))
            .zip(self.codes.chunks_mut(rows_a_task * cols));
        pool.parts(parts.collect(), |i, ((now, errors), codes)| {
            let rows = now
                .chunks_exact_mut(cols)
                .zip(errors.chunks_exact_mut(width))
                .zip(codes.chunks_exact_mut(cols));
            for (j, ((now, errors), codes)) in rows.enumerate() {
                self.by.take_row(i * rows_a_task + j, &block, now, errors, codes);
            }
        });
        self.error += errors.iter().map(|&e| e as f64 * e as f64).sum::<f64>();
        if rest == 0 {
            return;
        }
        // The first is the largest.
        let mut feedback = std::mem::take(&mut self.feedback);
        feedback.resize(errors.len() / width * rest, 0.0);
        let upper = Part::new(self.by.upper, cols, block.clone(), block.end..cols);
        linear_backward_input(
            pool,
            Precision::F32,
            &Dense::new(&errors, width),
            &upper,
            &mut feedback,
            false,
        );
        pool.chunks_mut(&mut self.now, rows_a_task * cols, |i, now| {
            for (now, feedback) in now
                .chunks_exact_mut(cols)
                .zip(feedback[i * rows_a_task * rest..].chunks_exact(rest))
            {
                now[block.end..].iter_mut().zip(feedback).for_each(|(w, f)| *w -= f);
            }
        });
        self.feedback = feedback;
    }
}

impl Rounding<'_> {
    /// One row of a block: all of `now` and `codes`, the block's `errors`.
    fn take_row(
        &self,
        row: usize,
        block: &Range<usize>,
        now: &mut [f32],
        errors: &mut [f32],
        codes: &mut [i16],
    ) {
        let (n, p) = (self.quantizer.min_code() as f32, self.quantizer.max_code() as f32);
        for (j, error) in block.clone().zip(errors) {
            let column = self.order[j];
            let index = self.quantizer.granularity.scale_index(row, column, self.cols);
            let (scale, zero, u) = (
                self.scales[index],
                self.zero_points[index] as f32,
                &self.upper[j * self.cols..][..block.end],
            );
            // The code less z. A group of zeros has scale 0: whatever feedback reaches it, its
            // values stay 0.
            let steps = if scale == 0.0 {
                0.0
            } else {
                (now[j] / scale).clamp(n - zero, p - zero).round_ties_even()
            };
            codes[column] = (steps + zero) as i16;
            *error = (now[j] - steps * scale) / u[j];
            for (w, u) in now[j + 1..block.end].iter_mut().zip(&u[j + 1..]) {
                *w -= *error * u;
            }
        }
    }
}

#[cfg(test)]
mod tests;
