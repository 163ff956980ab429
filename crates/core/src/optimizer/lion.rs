//! Lion (Symbolic Discovery of Optimization Algorithms, 2023, arXiv 2302.06675, algorithm 2): every
//! number moves by the same amount, in the direction of a mean of the gradients.
//!
//!     u = sign(b1 m + (1 - b1) g);   p = p - lr (u + wd p);   m = b2 m + (1 - b2) g
//!
//! One vector is kept for each parameter, half of AdamW's. The authors take a learning rate 3 to 10
//! times smaller than AdamW's, and a weight decay as many times larger.

use super::{Rule, Update, check_decay};
use crate::Result;
use crate::device::Device;
use halfstep_kernels::Real;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Numbers of a parameter that a thread takes at once.
const PIECE: usize = 1 << 15;

/// Lion (arXiv 2302.06675).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct LionConfig {
    /// Weight of the mean against the new gradient in the direction of a step, 0 up to 1. Default
    /// 0.9.
    pub beta1: f64,
    /// Decay of the mean of the gradients, 0 up to 1. Default 0.99.
    pub beta2: f64,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99 }
    }
}

impl Rule for LionConfig {
    const STATE: &'static [&'static str] = &["m"];

    fn check(&self) -> Result<()> {
        check_decay("beta1", self.beta1)?;
        check_decay("beta2", self.beta2)
    }

    /// Computed on the host.
    fn update<D: Device>(
        &self,
        device: &D,
        step: Update,
        value: &mut D::Buffer,
        gradient: &D::Buffer,
        state: &mut [D::Buffer],
    ) -> Result<()> {
        let number = <D::Number as Real>::from_f64;
        let [beta1, rest1] = [self.beta1, 1.0 - self.beta1].map(number);
        let [beta2, rest2] = [self.beta2, 1.0 - self.beta2].map(number);
        let [rate, decay] =
            [step.learning_rate, step.learning_rate * step.weight_decay].map(number);
        let (scale, zero) = (number(step.gradient_scale), <D::Number as Real>::ZERO);
        let [m] = state else { unreachable!("one mean") };
        let (pool, gradient) = (device.pool(), device.read(gradient)?);
        let direct = |value: &mut [D::Number], m: &mut [D::Number], gradient: &[D::Number]| {
            for ((p, m), &g) in value.iter_mut().zip(m).zip(gradient) {
                let g = g * scale;
                let direction = beta1 * *m + rest1 * g;
                let decayed = *p - decay * *p;
                *p = if direction > zero {
                    decayed - rate
                } else if direction < zero {
                    decayed + rate
                } else {
                    decayed
                };
                *m = beta2 * *m + rest2 * g;
            }
        };
        device.on_host(value, |value| {
            device.on_host(m, |m| {
                let pieces = value.chunks_mut(PIECE).zip(m.chunks_mut(PIECE));
                let pieces = pieces.zip(gradient.chunks(PIECE)).collect();
                pool.parts(pieces, |_, ((value, m), gradient)| direct(value, m, gradient));
            })
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GroupConfig, Optimizer, OptimizerConfig, Schedule};
    use super::*;
    use crate::autograd::parameter::{Group, Parameters};
    use crate::device::Cpu;
    use halfstep_kernels::Pool;
    use halfstep_kernels::rng::Rng;

    /// Five steps of a parameter against the paper's lines, with a gradient that is clipped.
    #[test]
    fn steps_are_those_of_the_paper() {
        let (steps, learning_rate, decay, max_norm) = (5, 3e-3, 0.1, 2.0);
        let mut rng = Rng::new(1, 2);
        let mut normal = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f64>>();
        let (first, gradients) = (normal(40), (0..steps).map(|_| normal(40)).collect::<Vec<_>>());
        let mut parameters = Parameters::new(&Cpu::<f64>::new(&Pool::new(2)));
        parameters.add("w", Group::Weights, first.clone()).expect("a parameter");
        let group = GroupConfig { rate_multiplier: 1.0, weight_decay: decay };
        let config = LionConfig { beta1: 0.8, beta2: 0.95 };
        let mut optimizer = Optimizer {
            rule: OptimizerConfig::Lion(config),
            schedule: Schedule { steps: 5, warmup: 0, learning_rate, min_ratio: 1.0 },
            max_norm,
            weights: group,
            weight_steps: group,
            activation_steps: group,
            norms: group,
            ranges: group,
            low_rank: group,
            anchor: 0.0,
            state: Default::default(),
        };
        let (mut want, mut m) = (first, vec![0.0f64; 40]);
        for (t, gradient) in gradients.iter().enumerate() {
            parameters.list[0].sink.clear();
            let sink = &parameters.list[0].sink;
            sink.add_buffer(&parameters.device, gradient.clone()).expect("a gradient");
            let norm = optimizer.gradient_norm(&parameters, 0).expect("a norm");
            optimizer.update(&mut parameters, t as u64, norm).expect("an update");
            let scale = (max_norm / (norm + 1e-6)).min(1.0);
            assert!(scale < 1.0, "the gradient is clipped");
            for ((p, m), g) in want.iter_mut().zip(&mut m).zip(gradient) {
                let g = g * scale;
                let u = (0.8 * *m + 0.2 * g).signum();
                *p -= learning_rate * (u + decay * *p);
                *m = 0.95 * *m + 0.05 * g;
            }
            for (got, want) in parameters.list[0].value.iter().zip(&want) {
                assert!((got - want).abs() < 1e-12, "step {t}: {got} against {want}");
            }
        }
        assert_eq!(optimizer.state.names(), ["m"]);
    }
}
