//! The mean squared difference between what a layer gives and what it is to give.

use super::{LayerOutput, Tap, Term};
use halfstep_kernels::Pool;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Mean squared difference of a layer's output from the teacher's. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct BlockOutputConfig {}

impl Term for BlockOutputConfig {
    const TAP: Tap = Tap::LayerOutput;

    fn of_layer_output(&self, at: LayerOutput, weight: f64, dy: &mut [f32]) -> f64 {
        let elements = (at.sequences * at.y.len()) as f64 / weight;
        squared_difference(at.pool, at.y, at.target, elements, dy)
    }
}

/// sum (y - target)^2 / elements; adds its gradient to `dy`.
pub(crate) fn squared_difference(
    pool: &Pool,
    y: &[f32],
    target: &[f32],
    elements: f64,
    dy: &mut [f32],
) -> f64 {
    const PIECE: usize = 1 << 14;
    let (mut sums, slope) = (vec![0.0f64; y.len().div_ceil(PIECE)], (2.0 / elements) as f32);
    pool.parts(
        dy.chunks_mut(PIECE).zip(&mut sums).collect(),
        |i, (dy, sum): (&mut [f32], &mut f64)| {
            for ((dy, y), t) in dy.iter_mut().zip(&y[i * PIECE..]).zip(&target[i * PIECE..]) {
                let difference = y - t;
                *dy += slope * difference;
                *sum += f64::from(difference) * f64::from(difference);
            }
        },
    );
    sums.iter().sum::<f64>() / elements
}
