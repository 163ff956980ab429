//! Options of training end to end: its length, learning rates and loss.

use crate::Error;
use crate::objective::cross_entropy::CrossEntropyConfig;
use crate::objective::kl::KlConfig;
use crate::objective::{TermConfig, Weight, WeightedTerm};
use crate::optimizer::OptimizerConfig;
use crate::optimizer::adamw::AdamWConfig;
use crate::quantizer::builder::Trains;
use crate::recipe::block::BlockConfig;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// When the forward pass of a layer is computed again in the backward pass instead of being kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Recompute {
    /// The graph is kept while it fits half of the free memory.
    #[default]
    Auto,
    /// The graph is computed again: least memory, about a quarter slower.
    Always,
    /// The graph is kept: fastest.
    Never,
}

/// What the products of a training step are computed in. Parameters, gradients and the optimizer
/// are f32 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum TrainArithmetic {
    /// Everything in f32, the student with quantized and decoded values.
    #[default]
    F32,
    /// As `f32`, with operands rounded to bf16.
    Bf16,
    /// As `f32`, with operands scaled and rounded to f16, and short sums in f16: more exact than
    /// bf16, and the fastest on CPUs with AVX-512 FP16.
    F16,
    /// The student's forward by the integer products of the packed runtime, on the codes that will
    /// be shipped; the teacher and the backward in whichever of f32, bf16 and f16 a probe finds
    /// fastest. For targets that quantize activations.
    Int8Forward,
}

/// The training part of a recipe. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct TrainConfig {
    /// Number of tokens to train on, rounded up to whole steps; a shorter text is repeated. More is
    /// better and slower. Default 50,000.
    pub tokens: usize,
    /// Tokens of each training sequence, at least 2. Longer sequences cost more memory. Default
    /// 512.
    pub sequence_length: usize,
    /// Sequences in each optimizer step. Default 4.
    pub batch: usize,
    /// Sequences that are computed at once; `batch` must be a multiple of it (gradient
    /// accumulation). Fewer need less memory and give the same result up to rounding. Default:
    /// `batch`.
    pub micro_batch: Option<usize>,
    /// Peak learning rate of the weights, above 0. A small budget of tokens needs a high rate to
    /// change anything; too high a rate undoes small weights. Default: 2e-4, or less where weights
    /// are small: at most their root mean square / (160 sqrt(layers)).
    pub learning_rate: Option<f64>,
    /// Learning rate of the weights' scales, as a multiple of `learningRate`. Default 1.
    pub weight_scale_multiplier: f64,
    /// Learning rate of the stored scales of activations and cache, as a multiple of
    /// `learningRate`; it matters only with static scales. Default 10.
    pub activation_scale_multiplier: f64,
    /// Learning rate of the norm weights, as a multiple of `learningRate`. Default 1.
    pub norm_multiplier: f64,
    /// Share of the steps in which the learning rate rises from 0 to its peak, 0 to 1. Default 0.1.
    pub warmup: f64,
    /// Share of the peak learning rate that is left at the end of the cosine schedule, 0 to 1.
    /// Default 0.05.
    pub min_ratio: f64,
    /// AdamW's decay rate of the mean of the gradients, at least 0 and below 1. Default 0.9.
    pub beta1: f64,
    /// AdamW's decay rate of the mean of the squared gradients, at least 0 and below 1. Default
    /// 0.95.
    pub beta2: f64,
    /// Number that AdamW adds to the denominator of its update, above 0. Default 1e-8.
    pub eps: f64,
    /// Rule by which gradients change the parameters, with its own options, such as
    /// `{ kind: 'adamW', beta1: 0.9 }`. Default: AdamW with `beta1`, `beta2` and `eps`, which other
    /// rules do not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerConfig>,
    /// Weight decay of the weight matrices, 0 or more; never of scales or norms. Default 0.
    pub weight_decay: f64,
    /// Largest norm of the gradient of all parameters; a longer gradient is scaled down to it.
    /// Default 1.
    pub max_norm: f64,
    /// Weight in the loss of the KL divergence to the unquantized model (the teacher), 0 or more.
    /// Default 1.
    pub kl_weight: f64,
    /// Weight in the loss of the cross-entropy of the next token, 0 or more. Default 0.
    pub ce_weight: f64,
    /// Temperature of the teacher's and the student's distribution in the KL divergence, above 0.
    /// Default 1.
    pub temperature: f64,
    /// Terms of the loss with their weights, which may change over the stage, in place of those that
    /// `klWeight`, `ceWeight` and `temperature` give. Default: those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[ts(optional, as = "Option<Vec<WeightedTerm>>")]
    pub terms: Vec<WeightedTerm>,
    /// What the products of a training step are computed in: `f32`, `bf16`, `f16` or `int8-forward`
    /// (forward by the integer products of the packed model; for targets that quantize
    /// activations). Default: what a probe finds fastest on this machine.
    pub arithmetic: Option<TrainArithmetic>,
    /// When the forward pass of a layer is computed again for the backward pass instead of kept in
    /// memory: `always` (least memory, about a quarter slower), `never` (fastest) or `auto` (kept
    /// while it fits half of the free memory). Default `auto`.
    pub recompute: Recompute,
    /// Memory for the logits while the loss is computed, in bytes; tokens pass through the head in
    /// chunks that fit. Default 64 MiB.
    pub loss_bytes: usize,
    /// Seed of the order of the data; the same seed gives the same bytes. Default 0.
    #[ts(type = "number | bigint")]
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            tokens: 50_000,
            sequence_length: 512,
            batch: 4,
            micro_batch: None,
            learning_rate: None,
            weight_scale_multiplier: 1.0,
            activation_scale_multiplier: 10.0,
            norm_multiplier: 1.0,
            warmup: 0.1,
            min_ratio: 0.05,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            optimizer: None,
            weight_decay: 0.0,
            max_norm: 1.0,
            kl_weight: 1.0,
            ce_weight: 0.0,
            temperature: 1.0,
            terms: vec![],
            arithmetic: None,
            recompute: Recompute::Auto,
            loss_bytes: 64 << 20,
            seed: 0,
        }
    }
}

/// Largest number of tokens of a step: far more than any method needs.
const MAX_STEP_TOKENS: usize = 1 << 20;

impl TrainConfig {
    /// A stage of the whole model on the texts that a stage of layers has: their length, the seed
    /// and the arithmetic.
    pub fn after(layers: &BlockConfig) -> Self {
        let &BlockConfig { sequence_length, seed, arithmetic, .. } = layers;
        Self { sequence_length, seed, arithmetic, ..Self::default() }
    }

    /// The config of a stage that trains what `trains` says, for a recipe with the option `train`.
    ///
    /// Errors: those of [`Self::validate`] and [`Self::check_read`], with the path of the option.
    pub fn checked(&self, trains: Trains) -> crate::Result<Self> {
        let read = self.validate().and_then(|()| self.check_read(trains));
        read.map_err(|e| match e {
            Error::Config { field, reason } => Error::config(format!("train.{field}"), reason),
            e => e,
        })?;
        Ok(self.clone())
    }

    /// Refuses a multiplier or a decay that was changed for what does not learn.
    ///
    /// Errors: `Config`, naming the field and what would work.
    pub fn check_read(&self, trains: Trains) -> crate::Result<()> {
        let usual = Self::default();
        let (weight_scale, usual_weight_scale) =
            (self.weight_scale_multiplier, usual.weight_scale_multiplier);
        let (activation_scale, usual_activation_scale) =
            (self.activation_scale_multiplier, usual.activation_scale_multiplier);
        let (norm, decay) = (self.norm_multiplier, self.weight_decay);
        let decayed = trains.weights || trains.low_rank;
        let (scales, static_scales) =
            ("no scale of a weight learns", "no stored scale of activations or cache learns");
        for (field, value, usual, read, why) in [
            ("weightScaleMultiplier", weight_scale, usual_weight_scale, trains.ranges(), scales),
            (
                "activationScaleMultiplier",
                activation_scale,
                usual_activation_scale,
                trains.activation_scales,
                static_scales,
            ),
            ("normMultiplier", norm, usual.norm_multiplier, trains.norms, "no norm learns"),
            ("weightDecay", decay, usual.weight_decay, decayed, "no weight learns"),
        ] {
            if !read && value != usual && value != 0.0 {
                let reason = format!("must be left out: {why}");
                return Err(crate::Error::config(field, reason));
            }
        }
        Ok(())
    }

    /// Number of optimizer steps.
    pub(crate) fn steps(&self) -> u64 {
        (self.tokens as u64).div_ceil((self.batch * self.sequence_length) as u64)
    }

    /// The update rule: `optimizer`, or AdamW with this config's `beta1`, `beta2` and `eps`.
    pub(crate) fn optimizer(&self) -> OptimizerConfig {
        let Self { beta1, beta2, eps, .. } = *self;
        self.optimizer.unwrap_or(OptimizerConfig::AdamW(AdamWConfig { beta1, beta2, eps }))
    }

    /// The terms of the loss: `terms`, or those that `kl_weight` and `ce_weight` give.
    pub(crate) fn terms(&self) -> Vec<WeightedTerm> {
        if !self.terms.is_empty() {
            return self.terms.clone();
        }
        let weighted = |term, weight| WeightedTerm { term, weight: Weight::Constant(weight) };
        vec![
            weighted(TermConfig::Kl(KlConfig { temperature: self.temperature }), self.kl_weight),
            weighted(TermConfig::CrossEntropy(CrossEntropyConfig {}), self.ce_weight),
        ]
    }

    /// Refuses values that are out of range.
    ///
    /// Errors: `Config`, naming the field.
    pub fn validate(&self) -> crate::Result<()> {
        let positive = |field: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(Error::config(field, format!("must be above 0, got {value}")))
            }
        };
        let share = |field: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(Error::config(field, format!("must be from 0 to 1, got {value}")))
            }
        };
        let not_negative = |field: &str, value: f64| {
            if value.is_finite() && value >= 0.0 {
                Ok(())
            } else {
                Err(Error::config(field, format!("must be 0 or more, got {value}")))
            }
        };
        for (field, value) in
            [("tokens", self.tokens), ("batch", self.batch), ("lossBytes", self.loss_bytes)]
        {
            positive(field, value as f64)?;
        }
        if self.batch.saturating_mul(self.sequence_length) > MAX_STEP_TOKENS {
            let reason = format!(
                "a step must have at most {MAX_STEP_TOKENS} tokens, got {} sequences of {}",
                self.batch, self.sequence_length
            );
            return Err(Error::config("batch", reason));
        }
        if self.sequence_length < 2 {
            return Err(Error::config(
                "sequenceLength",
                format!("must be at least 2, got {}", self.sequence_length),
            ));
        }
        if let Some(micro) = self.micro_batch
            && (micro == 0 || !self.batch.is_multiple_of(micro))
        {
            return Err(Error::config(
                "microBatch",
                format!("must divide the batch of {}, got {micro}", self.batch),
            ));
        }
        if let Some(rate) = self.learning_rate {
            positive("learningRate", rate)?;
        }
        for (field, value) in [
            ("weightScaleMultiplier", self.weight_scale_multiplier),
            ("activationScaleMultiplier", self.activation_scale_multiplier),
            ("normMultiplier", self.norm_multiplier),
            ("weightDecay", self.weight_decay),
            ("klWeight", self.kl_weight),
            ("ceWeight", self.ce_weight),
        ] {
            not_negative(field, value)?;
        }
        if !self.terms().iter().any(|term| term.weight.counts()) {
            let (field, reason) = if self.terms.is_empty() {
                ("klWeight", "klWeight and ceWeight must not both be 0: there would be no loss")
            } else {
                ("terms", "every weight is 0: there would be no loss")
            };
            return Err(Error::config(field, reason));
        }
        for (field, value) in [("maxNorm", self.max_norm), ("temperature", self.temperature)] {
            positive(field, value)?;
        }
        for (field, value) in [("warmup", self.warmup), ("minRatio", self.min_ratio)] {
            share(field, value)?;
        }
        self.optimizer().check().map_err(|e| match (self.optimizer, e) {
            (Some(_), Error::Config { field, reason }) => {
                Error::config(format!("optimizer.{field}"), reason)
            }
            (_, e) => e,
        })?;
        Ok(())
    }
}
