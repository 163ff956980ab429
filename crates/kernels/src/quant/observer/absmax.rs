//! The largest magnitude, or minimum and maximum: nothing is clipped.

use super::{Group, Observe, Scratch};
use crate::dispatch;
use crate::quant::rounding::clip_round;

pub(super) struct Absmax;

impl Observe for Absmax {
    fn scale(group: Group, _scratch: &mut Scratch) -> f32 {
        group.largest / group.p()
    }
}

/// Candidates whose errors are computed together, one in a lane.
const LANES: usize = 8;

/// A range that is tried.
#[derive(Clone, Copy)]
struct Candidate {
    scale: f32,
    /// The scale as the codec stores it.
    stored: f32,
    zero_point: f32,
}

/// Min-max widened to hold 0, or the best of `candidates` ranges shrunk by 1.00, 0.99, ...: scale
/// and zero point, the error taken as stored.
pub(super) fn min_max(group: Group, candidates: usize) -> (f32, u8) {
    let (w, p) = (group.w, group.p());
    let (low, high) = w.iter().fold((0.0f32, 0.0f32), |(low, high), &w| (low.min(w), high.max(w)));
    if low == high {
        return (0.0, 0);
    }
    let candidate = |i: usize| {
        let shrink = 1.0 - i as f32 * 0.01;
        // Divided before it is subtracted: the width of the range itself may overflow.
        let scale = (high / p - low / p) * shrink;
        let stored = group.spec.scale.store(scale);
        let zero_point = (-low * shrink / stored).round_ties_even().clamp(0.0, p);
        let zero_point = if zero_point.is_finite() { zero_point } else { 0.0 };
        Candidate { scale, stored, zero_point }
    };
    let (mut best, mut least) = (candidate(0), f64::INFINITY);
    if candidates > 1 {
        for first in (0..candidates).step_by(LANES) {
            let lanes: [Candidate; LANES] = std::array::from_fn(|lane| candidate(first + lane));
            let errors = squared_errors(w, &lanes, p);
            for (i, (candidate, error)) in (first..candidates).zip(lanes.into_iter().zip(errors)) {
                if error < least || i == 0 {
                    (best, least) = (candidate, error);
                }
            }
        }
    }
    (best.scale, best.zero_point as u8)
}

dispatch! {
    /// Squared error of the codes of every candidate, each summed in the order of `w`.
    fn squared_errors(w: &[f32], candidates: &[Candidate; LANES], p: f32) -> [f64; LANES] {
        let stored = candidates.map(|c| c.stored);
        let (least, most) = (candidates.map(|c| -c.zero_point), candidates.map(|c| p - c.zero_point));
        let mut errors = [0.0; LANES];
        for &w in w {
            for lane in 0..LANES {
                let code = clip_round(w / stored[lane], least[lane], most[lane]);
                let error = f64::from(w - code * stored[lane]);
                errors[lane] += error * error;
            }
        }
        errors
    }
}
