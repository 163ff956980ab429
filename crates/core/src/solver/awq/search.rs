//! AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration, 2023, arXiv
//! 2306.00978. Forward passes only.
//!
//! Input channels that carry much are made larger before rounding, so that they lose less (section
//! 3.2; constants of the authors' code):
//!
//!     m_j = mean_t |x_tj|;   v = max(m^a, 1e-4);   v <- v / sqrt(max v min v);   Wq = Q(W diag(v)) diag(v)^-1
//!
//! with the ratio a that leaves the least error of whatever the channels feed. Afterwards ranges
//! are clipped, group by group.
use crate::solver::Part;
use crate::solver::{check_finite, quadratic_errors};
use crate::{Error, Result};
use halfstep_kernels::ops::gemm::{Precision, linear_backward_weight};
use halfstep_kernels::quant::observer::{Observer, quantize_by};
use halfstep_kernels::{Granularity, Pool, QuantSpec};

/// v `[I]` of the magnitudes m `[I]` for a ratio; all 1 for ratio 0.
pub fn channel_scales(m: &[f64], ratio: f64) -> Vec<f32> {
    let v: Vec<f64> = m.iter().map(|m| m.powf(ratio).max(1e-4)).collect();
    let (least, most) =
        v.iter().fold((f64::INFINITY, 0.0f64), |(least, most), &v| (least.min(v), most.max(v)));
    v.iter().map(|v| (v / (most * least).sqrt()) as f32).collect()
}

/// The ratios that are tried: 0, .05, ... .95.
pub fn ratios() -> impl Iterator<Item = f64> {
    (0..20).map(|i| i as f64 / 20.0)
}

/// What [`search_scales`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelScales {
    /// The best ratio.
    pub ratio: f64,
    /// v `[I]`.
    pub scales: Vec<f32>,
    /// The error that it leaves.
    pub error: f64,
    /// The error of every ratio; the first is that of plain rounding.
    pub errors: Vec<f64>,
}

/// The ratio whose v leaves the least error, the smaller one if two do. `error(v)` quantizes under
/// v and says how far the output is off.
///
/// An error that is NaN never wins. Errors: `Data` if no candidate's is one.
pub fn search_scales(m: &[f64], mut error: impl FnMut(&[f32]) -> f64) -> Result<ChannelScales> {
    let mut best: Option<ChannelScales> = None;
    let mut errors = vec![];
    for ratio in ratios() {
        let scales = channel_scales(m, ratio);
        let error = error(&scales);
        errors.push(error);
        if error.is_finite() && best.as_ref().is_none_or(|best| error < best.error) {
            best = Some(ChannelScales { ratio, scales, error, errors: vec![] });
        }
    }
    match best {
        Some(best) => Ok(ChannelScales { errors, ..best }),
        None => Err(Error::Data {
            data: "channel scales".into(),
            reason: "the error is not finite under any of them, nor without".into(),
        }),
    }
}

/// What [`search_clip`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Clipped {
    /// Clipped weights `[O, I]`: to be quantized by the rule that was searched with.
    pub weights: Vec<f32>,
    /// The limit of each group `[O, G]`, as a share of its max|w|.
    pub limits: Vec<f32>,
}

/// Most tokens the clip search looks at, evenly spread.
const CLIP_TOKENS: usize = 512;
/// Limits that are tried: 1, .95, ... .55.
const CLIP_LIMITS: usize = 10;

/// Clips the weights w `[O, I]` of each group at the part of its max|w| that leaves the least
/// squared error of the group's share of the output (section 4.1 and authors' code), for the inputs
/// x `[T, I]`. Both are those after the channel scales: w times v, x divided by v.
///
/// The largest limit wins a tie. Not for queries and keys (authors' code). Errors: `Data` naming
/// the first weight or input that is not finite, or no input at all; `Config` for one scale per
/// tensor, which no group has for itself.
pub fn search_clip(
    pool: &Pool,
    w: &[f32],
    rows: usize,
    cols: usize,
    quantizer: QuantSpec,
    rule: Observer,
    x: &[f32],
) -> Result<Clipped> {
    assert_eq!(w.len(), rows * cols, "shape of search_clip");
    assert!(x.len().is_multiple_of(cols), "shape of an input");
    if quantizer.granularity == Granularity::Tensor {
        return Err(Error::config(
            "groupSize",
            "a clip search needs scales per row or per group of columns, not one per tensor",
        ));
    }
    check_finite("weights", w, cols)?;
    check_finite("calibration input", x, cols)?;
    let x = sample(x, cols);
    if x.is_empty() {
        return Err(Error::Data {
            data: "calibration input".into(),
            reason: "no token was seen".into(),
        });
    }
    let (group, groups) =
        (quantizer.granularity.group_size(cols), quantizer.granularity.groups(cols));
    let mut found = Clipped { weights: w.to_vec(), limits: vec![1.0; rows * groups] };
    for (g, first) in (0..cols).step_by(group).enumerate() {
        let end = cols.min(first + group);
        let part: Vec<f32> =
            w.chunks_exact(cols).flat_map(|row| &row[first..end]).copied().collect();
        // sum_t (x_t . d)^2 = d (sum_t x_t x_t^T) d^T, so the tokens are summed once for all rows
        // and limits.
        let mut h = vec![0.0; (end - first) * (end - first)];
        let inputs = Part::new(&x, cols, 0..x.len() / cols, first..end);
        linear_backward_weight(pool, Precision::F32, &inputs, &inputs, &mut h, false);
        let limits = group_limits(pool, &part, end - first, quantizer, rule, &h);
        for (row, &limit) in limits.iter().enumerate() {
            clip(&mut found.weights[row * cols + first..row * cols + end], limit);
            found.limits[row * groups + g] = limit;
        }
    }
    Ok(found)
}

/// At most [`CLIP_TOKENS`] of the tokens, at equal distances.
fn sample(x: &[f32], cols: usize) -> Vec<f32> {
    let step = (x.len() / cols).div_ceil(CLIP_TOKENS).max(1);
    x.chunks_exact(cols).step_by(step).flatten().copied().collect()
}

/// Clips at a part of max|w|.
fn clip(w: &mut [f32], limit: f32) {
    let most = limit * w.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    w.iter_mut().for_each(|w| *w = w.clamp(-most, most));
}

/// The best limit of each row of one group w `[O, g]`, errors weighted by h `[g, g]`.
fn group_limits(
    pool: &Pool,
    w: &[f32],
    width: usize,
    quantizer: QuantSpec,
    rule: Observer,
    h: &[f32],
) -> Vec<f32> {
    let (rows, quantizer) =
        (w.len() / width, QuantSpec { granularity: Granularity::Channel, ..quantizer });
    let mut best = vec![(f64::INFINITY, 1.0); rows];
    for i in 0..CLIP_LIMITS {
        let limit = 1.0 - i as f32 / 20.0;
        let mut clipped = w.to_vec();
        clipped.chunks_exact_mut(width).for_each(|row| clip(row, limit));
        let mut difference = vec![0.0; w.len()];
        quantize_by(pool, &clipped, rows, width, quantizer, rule).decode(pool, &mut difference);
        difference.iter_mut().zip(w).for_each(|(d, w)| *d -= w);
        for (best, error) in best.iter_mut().zip(quadratic_errors(pool, &difference, h, width)) {
            if error < best.0 {
                *best = (error, limit);
            }
        }
    }
    best.into_iter().map(|(_, limit)| limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::AbsMean;
    use halfstep_kernels::rng::Rng;
    use halfstep_kernels::{Int, ScaleCodec};

    fn normals(stream: u64, count: usize) -> Vec<f32> {
        let mut rng = Rng::new(7, stream);
        (0..count).map(|_| rng.normal() as f32).collect()
    }

    fn affine(bits: u8, group: usize) -> QuantSpec {
        QuantSpec::int(Int::unsigned(bits), Granularity::Group(group), ScaleCodec::F16)
    }

    /// Squared error of each group's share of the output, by the definition; `[O, G]`.
    fn group_errors(w: &[f32], values: &[f32], cols: usize, group: usize, x: &[f32]) -> Vec<f64> {
        let mut errors = vec![];
        for (w, values) in w.chunks(cols).zip(values.chunks(cols)) {
            for first in (0..cols).step_by(group) {
                let columns = first..cols.min(first + group);
                let share = |x: &[f32]| {
                    columns.clone().map(|j| (x[j] * (w[j] - values[j])) as f64).sum::<f64>()
                };
                errors.push(x.chunks(cols).map(|x| share(x).powi(2)).sum());
            }
        }
        errors
    }

    #[test]
    fn magnitudes_are_means_and_broken_inputs_are_named() {
        let mut m = AbsMean::new(2);
        assert_eq!(m.mean(), [0.0, 0.0]);
        m.add(&[1.0, -2.0, -3.0, 0.0]).unwrap();
        m.add(&[2.0, -4.0]).unwrap();
        assert_eq!(m.mean(), [2.0, 2.0]);
        let message = m.add(&[0.0, 0.0, 0.0, f32::NAN]).unwrap_err().to_string();
        assert!(message.starts_with("calibration input: row 1, column 1 is NaN"), "{message}");
        assert_eq!(m.mean(), [2.0, 2.0]);
    }

    #[test]
    fn scales_are_centred_and_follow_the_channels() {
        let m = [0.0, 0.5, 2.0, 8.0];
        assert_eq!(channel_scales(&m, 0.0), [1.0; 4]);
        let v = channel_scales(&m[1..], 0.5);
        assert!((v[0] * v[2] - 1.0).abs() < 1e-6 && (v[2] / v[0] - 4.0).abs() < 1e-5, "{v:?}");
        assert_eq!(
            channel_scales(&m, 0.5)[0],
            (1e-4 / (1e-4 * 8f64.sqrt()).sqrt()) as f32,
            "a dead channel has the least that is allowed"
        );
        let turned = channel_scales(&[8.0, 0.0, 0.5, 2.0], 0.35);
        let mut straight = channel_scales(&m, 0.35);
        straight.rotate_right(1);
        assert_eq!(turned, straight, "a permutation of the channels permutes v");
    }

    #[test]
    fn the_search_keeps_the_first_of_the_least() {
        let errors = [3.0, f64::NAN, 1.0, 2.0, 1.0];
        let mut calls = 0;
        let found = search_scales(&[1.0, 4.0], |v| {
            assert_eq!(v, channel_scales(&[1.0, 4.0], calls as f64 / 20.0));
            calls += 1;
            errors.get(calls - 1).copied().unwrap_or(5.0)
        });
        let found = found.unwrap();
        assert_eq!((calls, found.ratio, found.error, found.errors.len()), (20, 0.1, 1.0, 20));
        assert_eq!(found.scales, channel_scales(&[1.0, 4.0], 0.1));
        assert!(search_scales(&[1.0], |_| f64::NAN).is_err());
    }

    /// Ratio 0 is plain rounding, so the search is never worse.
    #[test]
    fn the_searched_error_is_never_above_plain_rounding() {
        let (rows, cols) = (24, 70);
        let (w, pool) = (normals(1, rows * cols), Pool::serial());
        for spread in 0..5 {
            let x: Vec<f32> = normals(2, 40 * cols)
                .iter()
                .enumerate()
                .map(|(i, x)| x * 2f32.powi(((i % cols) as i32 % 7) * spread))
                .collect();
            let mut m = AbsMean::new(cols);
            m.add(&x).unwrap();
            let quantizer = affine(3, 32);
            let error = |v: &[f32]| {
                let scaled: Vec<f32> =
                    w.chunks(cols).flat_map(|row| row.iter().zip(v).map(|(w, v)| w * v)).collect();
                let mut values = vec![0.0; w.len()];
                quantize_by(&pool, &scaled, rows, cols, quantizer, Observer::Absmax)
                    .decode(&pool, &mut values);
                values
                    .chunks_mut(cols)
                    .for_each(|row| row.iter_mut().zip(v).for_each(|(value, v)| *value /= v));
                group_errors(&w, &values, cols, cols, &x).iter().sum()
            };
            let found = search_scales(&m.mean(), error).unwrap();
            let plain = error(&vec![1.0; cols]);
            assert_eq!(found.errors[0], plain, "ratio 0 is plain rounding");
            assert!(found.error <= plain);
            assert!(
                spread < 2 || found.error < 0.9 * plain,
                "uneven channels gain: {} {plain}",
                found.error
            );
        }
    }

    #[test]
    fn each_group_has_its_best_limit() {
        let (rows, cols, group) = (6, 80, 32);
        let mut w = normals(3, rows * cols);
        w.iter_mut().step_by(37).for_each(|w| *w *= 6.0);
        // Twice as many tokens as are looked at.
        let (x, pool, quantizer) =
            (normals(4, 2 * CLIP_TOKENS * cols), Pool::new(2), affine(3, group));
        let found = search_clip(&pool, &w, rows, cols, quantizer, Observer::Absmax, &x).unwrap();
        let seen: Vec<f32> = x.chunks(cols).step_by(2).flatten().copied().collect();
        let errors = |weights: &[f32]| {
            let mut values = vec![0.0; w.len()];
            quantize_by(&pool, weights, rows, cols, quantizer, Observer::Absmax)
                .decode(&pool, &mut values);
            group_errors(&w, &values, cols, group, &seen)
        };
        let best = errors(&found.weights);
        let mut least = vec![f64::INFINITY; best.len()];
        for i in 0..CLIP_LIMITS {
            let mut clipped = w.clone();
            clipped
                .chunks_mut(cols)
                .flat_map(|row| row.chunks_mut(group))
                .for_each(|group| clip(group, 1.0 - i as f32 * 0.05));
            least
                .iter_mut()
                .zip(errors(&clipped))
                .for_each(|(least, error)| *least = least.min(error));
        }
        for (best, least) in best.iter().zip(&least) {
            assert!((best - least).abs() <= 1e-4 * least, "{best} {least}");
        }
        assert!(
            found.limits.iter().any(|&limit| limit < 1.0)
                && found.limits.iter().all(|&limit| (0.55..=1.0).contains(&limit))
        );
        for threads in [1, 5] {
            assert_eq!(
                search_clip(&Pool::new(threads), &w, rows, cols, quantizer, Observer::Absmax, &x)
                    .unwrap(),
                found
            );
        }
    }

    #[test]
    fn nothing_is_clipped_without_a_gain() {
        // Weights on the grid, and a group of zeros.
        let w: Vec<f32> =
            (0..64).map(|j| if j < 32 { (j % 8) as f32 / 4.0 } else { 0.0 }).collect();
        let x = normals(5, 10 * 64);
        let found =
            search_clip(&Pool::serial(), &w, 1, 64, affine(3, 32), Observer::Absmax, &x).unwrap();
        assert_eq!((found.weights, found.limits), (w.clone(), vec![1.0, 1.0]));
        let refuse = |quantizer: QuantSpec, w: &[f32], x: &[f32]| {
            search_clip(&Pool::serial(), w, 1, 64, quantizer, Observer::Absmax, x).unwrap_err()
        };
        let mut broken = w.clone();
        broken[40] = f32::INFINITY;
        assert!(
            refuse(affine(3, 32), &broken, &x)
                .to_string()
                .starts_with("weights: row 0, column 40 is inf")
        );
        assert_eq!(
            refuse(affine(3, 32), &w, &[]).to_string(),
            "calibration input: no token was seen"
        );
        assert_eq!(
            refuse(QuantSpec { granularity: Granularity::Tensor, ..affine(3, 1) }, &w, &x).code(),
            "ERR_CONFIG"
        );
    }
}
