//! The largest magnitude, or minimum and maximum: nothing is clipped.

use super::{Group, Observe, Scratch};
use crate::quant::rounding::clip_round;

pub(super) struct Absmax;

impl Observe for Absmax {
    fn scale(group: Group, _scratch: &mut Scratch) -> f32 {
        group.largest / group.p()
    }
}

/// Min-max widened to hold 0, or the best of `candidates` ranges shrunk by 1.00, 0.99, ...: scale
/// and zero point, the error taken as stored.
pub(super) fn min_max(group: Group, candidates: usize) -> (f32, u8) {
    let (w, p) = (group.w, group.p());
    let (low, high) = w.iter().fold((0.0f32, 0.0f32), |(low, high), &w| (low.min(w), high.max(w)));
    let mut best = (f64::INFINITY, (0.0, 0));
    if low == high {
        return best.1;
    }
    for i in 0..candidates {
        let shrink = 1.0 - i as f32 * 0.01;
        // Divided before it is subtracted: the width of the range itself may overflow.
        let scale = (high / p - low / p) * shrink;
        let stored = group.spec.scale.store(scale);
        let zero = (-low * shrink / stored).round_ties_even().clamp(0.0, p);
        let zero = if zero.is_finite() { zero } else { 0.0 };
        if candidates == 1 {
            return (scale, zero as u8);
        }
        let error = w
            .iter()
            .map(|&w| (w - clip_round(w / stored, -zero, p - zero) * stored) as f64)
            .map(|e| e * e)
            .sum::<f64>();
        if error < best.0 || i == 0 {
            best = (error, (scale, zero as u8));
        }
    }
    best.1
}
