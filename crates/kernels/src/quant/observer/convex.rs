//! The convex surrogate of the squared error: the least sum of `max(s^2 / 12, max(0, |w| - s
//! p)^2)`.

use super::{Group, Observe, Scratch};
use crate::Int;

pub(super) struct Convex;

impl Observe for Convex {
    fn scale(group: Group, scratch: &mut Scratch) -> f32 {
        minimum(scratch.sort(group.w), f64::from(group.spec.max_value())) as f32
    }
}

/// The scale of a row on a symmetric grid, in f64 (golden `calibration`: convex_s). 0 for a row of
/// zeros.
pub fn convex_step(row: &[f32], bits: u8) -> f64 {
    minimum(Scratch::default().sort(row), f64::from(Int::symmetric(bits).max()))
}

/// The surrogate is quadratic between the points |w_i| / (p + 1/sqrt 12), where weight i goes from
/// clipped to rounded: its minimum is that of a piece, or the point where the slope turns positive.
/// `sorted`: |w| ascending.
pub(super) fn minimum(sorted: &[f32], p: f64) -> f64 {
    let (mut total, mut low) = (sorted.iter().map(|&a| a as f64).sum::<f64>(), 0.0);
    for (i, &a) in sorted.iter().enumerate() {
        let clipped = (sorted.len() - i) as f64;
        let step = 2.0 * p * total / (i as f64 / 6.0 + 2.0 * p * p * clipped);
        let high = a as f64 / (p + 12f64.sqrt().recip());
        if step <= low || step < high {
            return step.max(low);
        }
        low = high;
        total -= a as f64;
    }
    low
}
