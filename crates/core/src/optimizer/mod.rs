//! How gradients change parameters: an update rule over groups of parameters, with warm-up, cosine
//! and clipping by the global norm.
//!
//! A rule is one file here and one line in the list below. The list makes the tagged value that a
//! recipe holds ([`OptimizerConfig`]), its TypeScript type and its names.

pub(crate) mod state;

use crate::autograd::parameter::{Group, Parameters};
use crate::device::Device;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use state::State;
use ts_rs::TS;

/// The update of one parameter in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Update {
    /// Learning rate of this step and parameter.
    pub(crate) learning_rate: f64,
    /// Decoupled weight decay, as a share of the learning rate.
    pub(crate) weight_decay: f64,
    /// Number of this step; the first one is 1.
    pub(crate) step: u64,
    /// Factor on the gradient (clipping).
    pub(crate) gradient_scale: f64,
}

/// A rule by which gradients change parameters.
trait Rule {
    /// Names of its state vectors: one of each for every parameter, as long as the parameter and 0
    /// before the first step.
    const STATE: &'static [&'static str];

    /// Refuses options that cannot work.
    ///
    /// Errors: `Config`, naming the field.
    fn check(&self) -> Result<()>;

    /// Moves a parameter by one step. `state`: the vectors of [`Self::STATE`], in that order.
    fn update<D: Device>(
        &self,
        device: &D,
        step: Update,
        value: &mut D::Buffer,
        gradient: &D::Buffer,
        state: &mut [D::Buffer],
    ) -> Result<()>;
}

macro_rules! optimizers {
    ($($(#[$doc:meta])* $module:ident $variant:ident($config:ident)),* $(,)?) => {
        $(pub mod $module;)*

        /// A rule of update and its options.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
        #[serde(rename_all = "camelCase", tag = "kind")]
        pub enum OptimizerConfig {
            $($(#[$doc])* $variant($module::$config)),*
        }

        impl OptimizerConfig {
            /// Names of the state vectors that it keeps for every parameter.
            pub(crate) fn state(&self) -> &'static [&'static str] {
                match self {
                    $(OptimizerConfig::$variant(_) => <$module::$config as Rule>::STATE),*
                }
            }

            /// Refuses options that cannot work.
            ///
            /// Errors: `Config`, naming the field.
            pub(crate) fn check(&self) -> Result<()> {
                match self {
                    $(OptimizerConfig::$variant(rule) => rule.check()),*
                }
            }

            fn update<D: Device>(
                &self,
                device: &D,
                step: Update,
                value: &mut D::Buffer,
                gradient: &D::Buffer,
                state: &mut [D::Buffer],
            ) -> Result<()> {
                match self {
                    $(OptimizerConfig::$variant(rule) => {
                        rule.update(device, step, value, gradient, state)
                    }),*
                }
            }
        }
    };
}

optimizers! {
    /// Steps in units of the root mean square of the gradients so far.
    adamw AdamW(AdamWConfig),
    /// Steps of one size, in the direction of a mean of the gradients; half the state of AdamW.
    lion Lion(LionConfig),
}

/// Refuses a decay that is not below 1.
///
/// Errors: `Config`, naming the field.
fn check_decay(field: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, format!("must be from 0 to below 1, got {value}")))
}

/// How an optimizer group differs from the schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupConfig {
    /// Factor on the learning rate of the schedule.
    pub rate_multiplier: f64,
    /// Decoupled weight decay, as a share of the learning rate.
    pub weight_decay: f64,
}

/// Learning rate over the steps: linear warm-up, then a cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Number of steps until the cosine ends.
    pub steps: u64,
    /// Number of steps of the warm-up.
    pub warmup: u64,
    /// The peak, reached at the end of the warm-up.
    pub learning_rate: f64,
    /// Learning rate at the end of the cosine, as a share of the peak.
    pub min_ratio: f64,
}

impl Schedule {
    /// Rate of step t (from 0): (t + 1) / warmup of the peak, then a cosine.
    pub(crate) fn rate(&self, t: u64) -> f64 {
        if t < self.warmup {
            return self.learning_rate * (t + 1) as f64 / self.warmup as f64;
        }
        let progress = (t - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        let cosine = halfstep_kernels::math::cos_f64(std::f64::consts::PI * progress.min(1.0));
        self.learning_rate * (self.min_ratio + (1.0 - self.min_ratio) / 2.0 * (1.0 + cosine))
    }
}

/// A rule of update with its state, the schedule and the settings of every group.
#[derive(Debug)]
pub struct Optimizer<D: Device> {
    /// The rule of update.
    pub rule: OptimizerConfig,
    /// The learning rate before multipliers.
    pub schedule: Schedule,
    /// Largest global norm of the gradients; larger ones are scaled down to it.
    pub max_norm: f64,
    /// Settings of [`Group::Weights`].
    pub weights: GroupConfig,
    /// Settings of [`Group::WeightScales`].
    pub weight_steps: GroupConfig,
    /// Settings of [`Group::ActivationScales`].
    pub activation_steps: GroupConfig,
    /// Settings of [`Group::Norms`].
    pub norms: GroupConfig,
    /// Settings of [`Group::Ranges`].
    pub ranges: GroupConfig,
    /// Settings of [`Group::LowRank`].
    pub low_rank: GroupConfig,
    /// Pull of a parameter towards its anchor in each step, as a share of its learning rate.
    pub anchor: f64,
    /// State of the rule for every parameter that learns.
    pub state: State<D>,
}

impl<D: Device> Optimizer<D> {
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
    pub fn gradient_norm(&self, parameters: &Parameters<D>, step: u64) -> Result<f64> {
        let mut sum = 0.0;
        for p in parameters.learned() {
            if p.sink.count() == 0 {
                return Err(Error::Internal { reason: format!("no gradient reached {}", p.name) });
            }
            let squares = p.sink.with(|g| parameters.device.sum_of_squares(g))?;
            if !squares.is_finite() {
                return Err(Error::NonFinite { step, tensor: format!("gradient of {}", p.name) });
            }
            sum += squares;
        }
        Ok(sum.sqrt())
    }

    /// Allocates the state that the rule keeps of every parameter, where there is none yet.
    pub fn begin(&mut self, parameters: &Parameters<D>) -> Result<()> {
        self.state.begin(self.rule.state(), parameters)
    }

    /// Updates every parameter at step t (from 0).
    ///
    /// Errors: those of the device; then some parameters may have moved and others not.
    pub fn update(
        &mut self,
        parameters: &mut Parameters<D>,
        t: u64,
        gradient_norm: f64,
    ) -> Result<()> {
        self.begin(parameters)?;
        let rate = self.schedule.rate(t);
        let gradient_scale = (self.max_norm / (gradient_norm + 1e-6)).min(1.0);
        let device = parameters.device.clone();
        for (number, p) in parameters.learned_mut().enumerate() {
            let group = self.group(p.group);
            let step = Update {
                learning_rate: rate * group.rate_multiplier * p.unit,
                weight_decay: group.weight_decay,
                step: t + 1,
                gradient_scale,
            };
            if let Some(anchor) = &p.anchor {
                let share = (rate * group.rate_multiplier * self.anchor).min(1.0);
                device.pull(&mut p.value, anchor, share)?;
            }
            let (rule, value, state) = (&self.rule, &mut p.value, self.state.of_mut(number));
            p.sink.with(|g| rule.update(&device, step, value, g, state))?;
        }
        Ok(())
    }
}
