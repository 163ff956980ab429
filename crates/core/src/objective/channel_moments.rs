//! Norm tweaking's distance between distributions (Norm Tweaking: High-performance Low-bit
//! Quantization of Large Language Models, 2023, arXiv 2309.02784): for every channel of a layer's
//! output the distance of its mean and of its variance over the tokens of a sequence.
//!
//!     R = mean_c ( |mean_t y - mean_t t| + |var_t y - var_t t| )
//!     dR/dy_tc = ( sign(dmean_c) + 2 sign(dvar_c) (y_tc - mean_t y) ) / (tokens channels)
//!
//! The first tokens are left out: their values are so large that they would decide the mean.

use super::{LayerOutput, Tap, Term};
use crate::Result;
use crate::device::Device;
use halfstep_kernels::Real;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Distance of the moments of each channel (norm tweaking, arXiv 2309.02784).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct ChannelMomentsConfig {
    /// Tokens at the start of each sequence that do not count. Default 1.
    pub skip: usize,
}

impl Default for ChannelMomentsConfig {
    fn default() -> Self {
        Self { skip: 1 }
    }
}

impl Term for ChannelMomentsConfig {
    const TAP: Tap = Tap::LayerOutput;

    /// Computed on the host.
    fn of_layer_output<D: Device>(
        &self,
        at: LayerOutput<D>,
        weight: f64,
        dy: &mut D::Buffer,
    ) -> Result<f64> {
        let (y, target) = (at.device.read(at.y)?, at.device.read(at.target)?);
        let (width, first) = (at.width, (self.skip * at.width).min(y.len()));
        let (y, target) = (&y[first..], &target[first..]);
        let tokens = y.len() / width;
        if tokens == 0 {
            return Ok(0.0);
        }
        let (is, wanted) = (moments(y, width), moments(target, width));
        let share = weight / (width * at.sequences) as f64;
        let (mut distance, mut slopes) = (0.0, Vec::with_capacity(width));
        for ([mean, variance], [to_mean, to_variance]) in is.into_iter().zip(wanted) {
            let off = [mean - to_mean, variance - to_variance];
            distance += off[0].abs() + off[1].abs();
            let slope = off.map(|off| if off == 0.0 { 0.0 } else { off.signum() });
            let share = share / tokens as f64;
            slopes.push((share * slope[0], 2.0 * share * slope[1], mean));
        }
        at.device.on_host(dy, |dy| {
            for (dy, y) in dy[first..].chunks_exact_mut(width).zip(y.chunks_exact(width)) {
                for ((dy, &y), (by_mean, by_variance, mean)) in dy.iter_mut().zip(y).zip(&slopes) {
                    let slope = by_mean + by_variance * (Real::to_f64(y) - mean);
                    *dy += <D::Number as Real>::from_f64(slope);
                }
            }
        })?;
        Ok(share * distance)
    }
}

/// Mean and variance over the tokens of every channel.
fn moments<T: Real>(x: &[T], width: usize) -> Vec<[f64; 2]> {
    let tokens = (x.len() / width) as f64;
    let mut moments = vec![[0.0; 2]; width];
    for row in x.chunks_exact(width) {
        moments.iter_mut().zip(row).for_each(|(of, &x)| of[0] += x.to_f64() / tokens);
    }
    for row in x.chunks_exact(width) {
        for (of, &x) in moments.iter_mut().zip(row) {
            of[1] += (x.to_f64() - of[0]).powi(2) / tokens;
        }
    }
    moments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use halfstep_kernels::Pool;
    use halfstep_kernels::rng::Rng;

    const WIDTH: usize = 5;
    const TOKENS: usize = 9;

    fn values(seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed, 0);
        (0..TOKENS * WIDTH).map(|_| rng.normal() as f32).collect()
    }

    fn term(y: &Vec<f32>, target: &Vec<f32>, dy: &mut Vec<f32>) -> f64 {
        let device = &Cpu::<f32>::new(&Pool::serial());
        let at = LayerOutput { device, y, target, width: WIDTH, sequences: 2 };
        ChannelMomentsConfig { skip: 2 }.of_layer_output(at, 3.0, dy).expect("a term")
    }

    /// The formula, channel by channel, in the definition's other form of the variance.
    #[test]
    fn distance_is_that_of_means_and_variances() {
        let (y, target) = (values(1), values(2));
        let moments = |x: &[f32], channel: usize| {
            let of: Vec<f64> = (2..TOKENS).map(|t| f64::from(x[t * WIDTH + channel])).collect();
            let mean = of.iter().sum::<f64>() / of.len() as f64;
            let square = of.iter().map(|v| v * v).sum::<f64>() / of.len() as f64;
            [mean, square - mean * mean]
        };
        let distance = |channel: usize| {
            let [a, b] = [moments(&y, channel), moments(&target, channel)];
            (a[0] - b[0]).abs() + (a[1] - b[1]).abs()
        };
        let want = 3.0 * (0..WIDTH).map(distance).sum::<f64>() / WIDTH as f64 / 2.0;
        let got = term(&y, &target, &mut vec![0.0; y.len()]);
        assert!((got - want).abs() < 1e-12, "{got} against {want}");
        assert_eq!(term(&y, &y, &mut vec![0.0; y.len()]), 0.0);
    }

    #[test]
    fn gradient_is_that_of_finite_differences() {
        let (y, target, mut dy) = (values(1), values(2), vec![0.0; TOKENS * WIDTH]);
        term(&y, &target, &mut dy);
        for i in 0..y.len() {
            let moved = |by: f32| {
                let mut moved = y.clone();
                moved[i] += by;
                term(&moved, &target, &mut vec![0.0; y.len()])
            };
            let by = 1.0 / 256.0;
            let slope = (moved(by) - moved(-by)) / f64::from(2.0 * by);
            assert!((slope - f64::from(dy[i])).abs() < 1e-4, "{i}: {} against {slope}", dy[i]);
        }
        assert!(dy[..2 * WIDTH].iter().all(|&d| d == 0.0), "the first tokens do not count");
    }
}
