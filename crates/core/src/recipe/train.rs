//! Training end to end: how long, how fast, by which loss.

use crate::objective::cross_entropy::CrossEntropyConfig;
use crate::objective::kl::KlConfig;
use crate::objective::{TermConfig, Weight, WeightedTerm};
use crate::optimizer::OptimizerConfig;
use crate::optimizer::adamw::AdamWConfig;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// When the forward of a block is run again in the backward instead of kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Recompute {
    /// Keep the graph while it fits half of the machine's free memory.
    #[default]
    Auto,
    /// Least memory, about a quarter slower.
    Always,
    /// Fastest.
    Never,
}

/// What the products of a training step are computed in. Parameters, gradients and the optimizer
/// are f32 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum TrainArithmetic {
    /// All in f32, the student with quantized and decoded values.
    #[default]
    F32,
    /// As f32, operands rounded to bf16.
    Bf16,
    /// As f32, operands scaled and rounded to f16 and short sums in f16: more exact than bf16, and
    /// the fastest on CPUs with AVX-512 FP16.
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
    /// Tokens to train on, rounded up to whole steps; a shorter text is passed over again. More is
    /// better and slower. Default 50,000.
    pub tokens: usize,
    /// Tokens of each training sequence, at least 2. Longer sequences cost more memory. Default
    /// 512.
    pub sequence_length: usize,
    /// Sequences in each optimizer step. Default 4.
    pub batch: usize,
    /// Sequences that are computed at once; `batch` is a multiple of it (gradient accumulation).
    /// Less takes less memory and gives the same result up to rounding. Default: `batch`.
    pub micro_batch: Option<usize>,
    /// Peak learning rate of the weights, above 0. Too small a rate moves nothing within a small
    /// budget. Default 2e-4.
    pub learning_rate: f64,
    /// Learning rate of the scales of weights, as a multiple of that of the weights. Default 1.
    pub weight_scale_multiplier: f64,
    /// Learning rate of the stored scales of activations and cache, as a multiple of that of the
    /// weights; only with static scales. Default 10.
    pub activation_scale_multiplier: f64,
    /// Learning rate of the norms, as a multiple of that of the weights. Default 1.
    pub norm_multiplier: f64,
    /// Share of the steps in which the learning rate rises from 0 to its peak, 0 to 1. Default 0.1.
    pub warmup: f64,
    /// Share of the peak learning rate that is left at the end of the cosine, 0 to 1. Default 0.05.
    pub min_ratio: f64,
    /// Decay of the mean of the gradients in AdamW, 0 up to 1. Default 0.9.
    pub beta1: f64,
    /// Decay of the mean of the squared gradients in AdamW, 0 up to 1. Default 0.95.
    pub beta2: f64,
    /// Number that AdamW adds to the denominator, above 0. Default 1e-8.
    pub eps: f64,
    /// Rule by which gradients change the parameters, with its own options, such as
    /// `{ kind: 'adamW', beta1: 0.9 }`. Default: AdamW with `beta1`, `beta2` and `eps`, which other
    /// rules do not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerConfig>,
    /// Weight decay of the weight matrices, 0 or more; never of scales or norms. Default 0.
    pub weight_decay: f64,
    /// Greatest norm of the whole gradient; a longer one is shortened to it. Default 1.
    pub max_norm: f64,
    /// Weight of the KL divergence to the unquantized model in the loss, 0 or more. Default 1.
    pub kl_weight: f64,
    /// Weight of the next-token cross-entropy in the loss, 0 or more. Default 0.
    pub ce_weight: f64,
    /// Temperature of both distributions in the KL divergence, above 0. Default 1.
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
    /// Memory for logits while the loss is computed, in bytes; tokens go through the head in chunks
    /// of that size. Default 64 MiB.
    pub loss_bytes: usize,
    /// Number that decides the order of the data; the same seed gives the same bytes. Default 0.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            tokens: 50_000,
            sequence_length: 512,
            batch: 4,
            micro_batch: None,
            learning_rate: 2e-4,
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

/// Tokens of a step at most: far more than any method asks for.
const MAX_STEP_TOKENS: usize = 1 << 20;

impl TrainConfig {
    /// Optimizer steps.
    pub fn steps(&self) -> u64 {
        (self.tokens as u64).div_ceil((self.batch * self.sequence_length) as u64)
    }

    /// The rule of update: `optimizer`, or AdamW with the options beside it.
    pub fn optimizer(&self) -> OptimizerConfig {
        let Self { beta1, beta2, eps, .. } = *self;
        self.optimizer.unwrap_or(OptimizerConfig::AdamW(AdamWConfig { beta1, beta2, eps }))
    }

    /// The terms of the loss: `terms`, or those of the weights beside it.
    pub fn terms(&self) -> Vec<WeightedTerm> {
        if !self.terms.is_empty() {
            return self.terms.clone();
        }
        let weighted = |term, weight| WeightedTerm { term, weight: Weight::Constant(weight) };
        vec![
            weighted(TermConfig::Kl(KlConfig { temperature: self.temperature }), self.kl_weight),
            weighted(TermConfig::CrossEntropy(CrossEntropyConfig {}), self.ce_weight),
        ]
    }

    /// Refuses what cannot work, naming the field.
    pub fn validate(&self) -> crate::Result<()> {
        use crate::Error;
        let positive = |field: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(Error::config(field, format!("{value} is not possible; a number above 0")))
            }
        };
        let share = |field: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(Error::config(field, format!("{value} is not possible; 0 to 1")))
            }
        };
        let not_negative = |field: &str, value: f64| {
            if value.is_finite() && value >= 0.0 {
                Ok(())
            } else {
                Err(Error::config(field, format!("{value} is not possible; 0 or more")))
            }
        };
        for (field, value) in
            [("tokens", self.tokens), ("batch", self.batch), ("lossBytes", self.loss_bytes)]
        {
            positive(field, value as f64)?;
        }
        if self.batch.saturating_mul(self.sequence_length) > MAX_STEP_TOKENS {
            let reason = format!(
                "{} sequences of {} tokens are not possible; a step has at most {MAX_STEP_TOKENS} tokens",
                self.batch, self.sequence_length
            );
            return Err(Error::config("batch", reason));
        }
        if self.sequence_length < 2 {
            return Err(Error::config(
                "sequenceLength",
                format!("{} is not possible; at least 2 tokens", self.sequence_length),
            ));
        }
        if let Some(micro) = self.micro_batch
            && (micro == 0 || !self.batch.is_multiple_of(micro))
        {
            return Err(Error::config(
                "microBatch",
                format!("{micro} does not divide batch {}", self.batch),
            ));
        }
        positive("learningRate", self.learning_rate)?;
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
            return Err(match self.terms.is_empty() {
                true => {
                    Error::config("klWeight", "klWeight and ceWeight are both 0: there is no loss")
                }
                false => Error::config("terms", "every weight is 0: there is no loss"),
            });
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
