//! AdamW over groups, with warm-up, cosine and clipping by the global norm.

use crate::autograd::ops::Number;
use crate::autograd::parameter::{Group, Parameters};
use crate::recipe::TrainConfig;
use crate::{Error, Result};
use halfstep_kernels::Pool;
use halfstep_kernels::ops::adamw::{AdamW, pull, sum_of_squares};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupConfig {
    pub rate_multiplier: f64,
    pub weight_decay: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub steps: u64,
    pub warmup: u64,
    pub learning_rate: f64,
    /// The cosine ends at this share of the peak, reached at `steps`.
    pub min_ratio: f64,
}

impl Schedule {
    /// Rate of step t (from 0): (t + 1) / warmup of the peak, then a cosine.
    pub fn rate(&self, t: u64) -> f64 {
        if t < self.warmup {
            return self.learning_rate * (t + 1) as f64 / self.warmup as f64;
        }
        let progress = (t - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        let cosine = halfstep_kernels::math::cos_f64(std::f64::consts::PI * progress.min(1.0));
        self.learning_rate * (self.min_ratio + (1.0 - self.min_ratio) / 2.0 * (1.0 + cosine))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    pub schedule: Schedule,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub max_norm: f64,
    pub weights: GroupConfig,
    pub weight_steps: GroupConfig,
    pub activation_steps: GroupConfig,
    pub norms: GroupConfig,
    pub ranges: GroupConfig,
    pub low_rank: GroupConfig,
    /// Pull of a parameter with an anchor towards it, in parts of its rate.
    pub anchor: f64,
}

impl Optimizer {
    pub fn new(config: &TrainConfig, steps: u64) -> Self {
        let group = |rate_multiplier, weight_decay| GroupConfig { rate_multiplier, weight_decay };
        Self {
            schedule: Schedule {
                steps,
                warmup: (config.warmup * steps as f64).round() as u64,
                learning_rate: config.learning_rate,
                min_ratio: config.min_ratio,
            },
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            max_norm: config.max_norm,
            weights: group(1.0, config.weight_decay),
            weight_steps: group(config.weight_scale_multiplier, 0.0),
            activation_steps: group(config.activation_scale_multiplier, 0.0),
            norms: group(config.norm_multiplier, 0.0),
            ranges: group(config.weight_scale_multiplier, 0.0),
            low_rank: group(1.0, config.weight_decay),
            anchor: 0.0,
        }
    }

    fn group(&self, group: Group) -> GroupConfig {
        match group {
            Group::Weights => self.weights,
            Group::WeightScales => self.weight_steps,
            Group::ActivationScales => self.activation_steps,
            Group::Norms => self.norms,
            Group::Ranges => self.ranges,
            Group::LowRank => self.low_rank,
        }
    }

    /// Global gradient norm. Refuses a parameter that got no gradient (a fault of ours) and a
    /// gradient that is not finite (naming it), before anything changes.
    pub fn gradient_norm<T: Number>(
        &self,
        pool: &Pool,
        parameters: &Parameters<T>,
        step: u64,
    ) -> Result<f64> {
        let mut sum = 0.0;
        for p in parameters.learned() {
            if p.sink.count() == 0 {
                return Err(Error::Internal { reason: format!("no gradient reached {}", p.name) });
            }
            let squares = p.sink.with(|g| sum_of_squares(pool, g));
            if !squares.is_finite() {
                return Err(Error::NonFinite { step, tensor: format!("gradient of {}", p.name) });
            }
            sum += squares;
        }
        Ok(sum.sqrt())
    }

    /// Updates every parameter at step t (from 0).
    pub fn update<T: Number>(
        &self,
        pool: &Pool,
        parameters: &mut Parameters<T>,
        t: u64,
        gradient_norm: f64,
    ) {
        let rate = self.schedule.rate(t);
        let gradient_scale = (self.max_norm / (gradient_norm + 1e-6)).min(1.0);
        for p in parameters.learned_mut() {
            let group = self.group(p.group);
            let adamw = AdamW {
                learning_rate: rate * group.rate_multiplier * p.unit,
                beta1: self.beta1,
                beta2: self.beta2,
                eps: self.eps,
                weight_decay: group.weight_decay,
                step: t + 1,
                gradient_scale,
            };
            if !p.anchor.is_empty() {
                pull(
                    pool,
                    &mut p.value,
                    &p.anchor,
                    (rate * group.rate_multiplier * self.anchor).min(1.0),
                );
            }
            let (value, m, v) = (&mut p.value, &mut p.m, &mut p.v);
            p.sink.with(|g| adamw.update(pool, value, g, m, v));
        }
    }
}
