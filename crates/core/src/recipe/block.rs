//! Training one layer at a time: what learns, from what, how long.

use crate::objective::anchor::AnchorConfig;
use crate::objective::block_output::BlockOutputConfig;
pub use crate::objective::saliency::{SaliencyConfig, SaliencyDifference, SaliencyScale};
use crate::objective::{TermConfig, Weight, WeightedTerm};
use crate::optimizer::OptimizerConfig;
use crate::optimizer::adamw::AdamWConfig;
use crate::quantizer::builder::Trains;
use crate::recipe::TrainArithmetic;
use crate::solver::SolverConfig;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Two streams of hidden states run through the layers: those of the unquantized model (the
/// teacher), and those of the quantized layers that are finished. Each layer learns to compute from
/// the second stream what the unquantized layer computes from the first. Only one layer is in
/// memory at a time, whatever the depth of the model. In a stage of scope linear each linear learns
/// so by itself, from what it reads on either stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct BlockConfig {
    /// Number of sequences that the layers are trained on. If the model generates a text in
    /// addition to the one that is given, up to half of them are taken from that.
    pub samples: usize,
    /// Number of tokens of each sequence.
    pub sequence_length: usize,
    /// Number of sequences of each optimizer step.
    pub batch: usize,
    /// Whether a layer (or linear) learns from a second target too: the outputs of the unquantized
    /// one for the quantized stream.
    pub second_target: bool,
    /// The penalty on rounding errors, for the phases that add it; absent: there is none.
    pub saliency: Option<SaliencyConfig>,
    /// The solver that finds codes without gradients; a stage that has one has no phases.
    pub solver: Option<SolverConfig>,
    /// Phases of the training of every layer or linear, one after the other.
    pub phases: Vec<BlockPhase>,
    /// Growth of the learning rates with depth: layer i of n, counted from 0, learns at
    /// `1 + growth * i / n` times the rates of the phase; 0: all layers learn at the same.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[ts(optional, as = "Option<_>")]
    pub rate_growth: f64,
    /// Weight decay of ranges and low-rank factors.
    pub weight_decay: f64,
    /// Pull of trained weights back to their initial values, as a share of their learning rate
    /// (L2-SP, arXiv 1802.01483).
    pub anchor: f64,
    /// Terms of the loss in addition to those that the phases name; their weights may change over a
    /// phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(optional, as = "Option<Vec<WeightedTerm>>")]
    pub terms: Vec<WeightedTerm>,
    /// Rule by which gradients change what learns; absent: AdamW. It begins anew in every phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerConfig>,
    /// What products are computed in; absent: what is fastest on this machine.
    pub arithmetic: Option<TrainArithmetic>,
    /// Seed of the order of the data and of the initial low-rank factors.
    #[ts(type = "number | bigint")]
    pub seed: u64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// Epochs with one loss and one set of learning rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct BlockPhase {
    /// Number of passes over the sequences.
    pub epochs: usize,
    /// Whether the loss compares the outputs of the layer or linear with those of the unquantized
    /// one.
    pub output: bool,
    /// Whether the loss contains the saliency penalty.
    pub saliency: bool,
    /// Learning rates by what learns.
    pub rates: BlockRates,
    /// Share of the learning rates that is left at the end of the cosine schedule; 1 keeps them
    /// constant.
    pub min_ratio: f64,
}

/// Learning rates by what learns; 0 freezes it, and what does not learn has 0. Those of scales, weights and norms are shares of
/// the initial root mean square of each tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct BlockRates {
    /// Learning rate of clips, or of scales and zero points (in codes).
    pub ranges: f64,
    /// Learning rate of the low-rank factors.
    pub low_rank: f64,
    /// Learning rate of weights and norms.
    pub weights: f64,
}

impl BlockRates {
    /// The rates of what learns; the others are 0.
    pub fn of(self, trains: Trains) -> Self {
        let if_learned = |learns, rate| if learns { rate } else { 0.0 };
        Self {
            ranges: if_learned(trains.ranges(), self.ranges),
            low_rank: if_learned(trains.low_rank, self.low_rank),
            weights: if_learned(trains.weights || trains.norms, self.weights),
        }
    }
}

/// Options of training layer by layer. Every field has a default, which the recipe gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct BlockOptions {
    /// Number of sequences that every layer learns from, at least 1; up to half of them are
    /// generated by the model itself if the run has `selfGenerated` in addition to a text. Default
    /// 32; the papers use 128 and more.
    pub samples: Option<usize>,
    /// Tokens of each sequence, at least 2. Default 512.
    pub sequence_length: Option<usize>,
    /// Sequences in each optimizer step, at most `samples`. Default 1.
    pub batch: Option<usize>,
    /// Passes over the sequences for every layer, at least 1. Default 5; the papers use 20 and
    /// more at 2 bits.
    pub epochs: Option<usize>,
    /// Learning rate of the ranges, 0 or more: of the clipping factors, or of the scales (as a
    /// share of their root mean square) and zero points (in codes). Default: given by the recipe.
    pub range_learning_rate: Option<f64>,
    /// Learning rate of the low-rank factors, 0 or more. Default: given by the recipe.
    pub low_rank_learning_rate: Option<f64>,
    /// Learning rate of weights and norms, where they learn, as a share of the root mean square of
    /// each tensor. Default: given by the recipe.
    pub weight_learning_rate: Option<f64>,
    /// Share of the learning rates that is left at the end of the cosine schedule, 0 to 1; 1 keeps
    /// them constant. Default: given by the recipe.
    pub min_ratio: Option<f64>,
    /// Weight decay of clipping factors and low-rank factors, 0 or more. Default: given by the
    /// recipe.
    pub weight_decay: Option<f64>,
    /// Pull of trained weights back to their initial values, as a share of their learning rate, 0
    /// or more. Default: given by the recipe.
    pub anchor: Option<f64>,
    /// Learn from a second target too: the outputs of the unquantized layer for the inputs that it
    /// gets from the quantized layers before it. Default: given by the recipe.
    pub second_target: Option<bool>,
    /// What the products of a training step are computed in: `f32`, `bf16`, `f16` or `int8-forward`
    /// (forward by the integer products of the packed model; for targets that quantize
    /// activations). Default: what a probe finds fastest on this machine.
    pub arithmetic: Option<TrainArithmetic>,
    /// Seed of the order of the data and of the initial low-rank factors; the same seed gives the
    /// same bytes. Default 0.
    #[ts(type = "number | bigint")]
    pub seed: u64,
}

impl BlockOptions {
    /// Returns `defaults`, which have one phase, with the options that are present, for a stage that
    /// trains what `trains` says.
    ///
    /// Errors: `Config`, an option is out of range, or nothing reads it.
    pub fn over(&self, trains: Trains, defaults: BlockConfig) -> Result<BlockConfig> {
        self.check_read(trains)?;
        let phases = defaults.phases.iter().map(|phase| BlockPhase {
            epochs: self.epochs.unwrap_or(phase.epochs),
            rates: BlockRates {
                ranges: self.range_learning_rate.unwrap_or(phase.rates.ranges),
                low_rank: self.low_rank_learning_rate.unwrap_or(phase.rates.low_rank),
                weights: self.weight_learning_rate.unwrap_or(phase.rates.weights),
            }
            .of(trains),
            min_ratio: self.min_ratio.unwrap_or(phase.min_ratio),
            ..*phase
        });
        let config = BlockConfig {
            samples: self.samples.unwrap_or(defaults.samples),
            sequence_length: self.sequence_length.unwrap_or(defaults.sequence_length),
            batch: self.batch.unwrap_or(defaults.batch),
            second_target: self.second_target.unwrap_or(defaults.second_target),
            weight_decay: self.weight_decay.unwrap_or(defaults.weight_decay),
            anchor: self.anchor.unwrap_or(defaults.anchor),
            arithmetic: self.arithmetic,
            seed: self.seed,
            phases: phases.collect(),
            ..defaults
        };
        config.validate()?;
        if config.saliency.is_none() && config.solver.is_none() && config.steps() == 0 {
            return Err(Error::config(
                "train.epochs",
                "must be at least 1, got 0: nothing would be trained",
            ));
        }
        Ok(config)
    }

    /// Refuses a learning rate or a decay of what does not learn.
    fn check_read(&self, trains: Trains) -> Result<()> {
        let factors = "there are no low-rank factors; give a rank of 1 or more, where the target \
                       stores factors";
        let (ranges, low_rank) = (trains.ranges(), trains.low_rank);
        let weights = trains.weights || trains.norms;
        let decayed = "neither ranges nor low-rank factors learn";
        for (field, given, read, why) in [
            ("rangeLearningRate", self.range_learning_rate, ranges, "no range learns"),
            ("lowRankLearningRate", self.low_rank_learning_rate, low_rank, factors),
            ("weightLearningRate", self.weight_learning_rate, weights, "no weight or norm learns"),
            ("weightDecay", self.weight_decay, ranges || low_rank, decayed),
        ] {
            if !read && given.is_some_and(|given| given != 0.0) {
                let reason = format!("must be 0 or left out: {why}");
                return Err(Error::config(format!("train.{field}"), reason));
            }
        }
        Ok(())
    }
}

/// Far more than any method needs; the order of the data is drawn by phase and epoch.
const MOST_EPOCHS: usize = 65_535;

impl BlockConfig {
    /// Returns what the recipes start from: 32 sequences of 512 tokens, a batch of one, and 5
    /// epochs in which the learning rates fall to the share `min_ratio` of their peak.
    pub fn usual(rates: BlockRates, min_ratio: f64) -> Self {
        Self {
            samples: 32,
            sequence_length: 512,
            batch: 1,
            second_target: false,
            saliency: None,
            solver: None,
            phases: vec![BlockPhase { epochs: 5, output: true, saliency: false, rates, min_ratio }],
            rate_growth: 0.0,
            weight_decay: 0.0,
            anchor: 0.0,
            terms: vec![],
            optimizer: None,
            arithmetic: None,
            seed: 0,
        }
    }

    /// The config with phases one after the other. Those without epochs are left out, and a penalty
    /// that no other phase adds.
    ///
    /// Errors: `Config`, no phase has an epoch.
    pub fn with_phases(self, mut phases: Vec<BlockPhase>) -> Result<Self> {
        phases.retain(|phase| phase.epochs > 0);
        if phases.is_empty() {
            let reason = "no phase has an epoch: nothing would be trained";
            return Err(Error::config("train.epochs", reason));
        }
        let saliency = self.saliency.filter(|_| phases.iter().any(|phase| phase.saliency));
        Ok(Self { saliency, phases, ..self })
    }

    /// Returns the saliency penalty; None if its weight is 0.
    pub(crate) fn penalty(&self) -> Option<SaliencyConfig> {
        let beside = self.terms.iter().find_map(|term| match term.term {
            TermConfig::Saliency(config) if term.weight.counts() => Some(config),
            _ => None,
        });
        self.saliency.or(beside).filter(|saliency| saliency.lambda > 0.0)
    }

    /// The terms of a phase: those it names, the anchor, and those of `terms`.
    pub(crate) fn phase_terms(&self, phase: &BlockPhase) -> Vec<WeightedTerm> {
        let weighted = |term, weight| WeightedTerm { term, weight: Weight::Constant(weight) };
        let output = weighted(TermConfig::BlockOutput(BlockOutputConfig {}), 1.0);
        let anchor = weighted(TermConfig::Anchor(AnchorConfig {}), self.anchor);
        let saliency = self.saliency.map(|config| weighted(TermConfig::Saliency(config), 1.0));
        let named = [
            Some(output).filter(|_| phase.output),
            saliency.filter(|_| phase.saliency),
            Some(anchor).filter(|_| self.anchor > 0.0),
        ];
        named.into_iter().flatten().chain(self.terms.iter().copied()).collect()
    }

    /// The terms of all phases.
    pub(crate) fn all_terms(&self) -> impl Iterator<Item = WeightedTerm> {
        self.phases.iter().flat_map(|phase| self.phase_terms(phase))
    }

    /// The update rule.
    pub(crate) fn optimizer(&self) -> OptimizerConfig {
        self.optimizer.unwrap_or(OptimizerConfig::AdamW(AdamWConfig::default()))
    }

    /// Number of optimizer steps of one layer.
    pub(crate) fn steps(&self) -> u64 {
        let per_epoch = self.samples.div_ceil(self.batch) as u64;
        self.phases.iter().map(|phase| phase.epochs as u64 * per_epoch).sum()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let at_least = |field: &str, value: usize, least: usize| {
            if value >= least {
                Ok(())
            } else {
                Err(Error::config(
                    format!("train.{field}"),
                    format!("must be at least {least}, got {value}"),
                ))
            }
        };
        at_least("samples", self.samples, 1)?;
        at_least("sequenceLength", self.sequence_length, 2)?;
        at_least("batch", self.batch, 1)?;
        if self.batch > self.samples {
            return Err(Error::config(
                "train.batch",
                format!(
                    "must be at most the number of samples, {}, got {}",
                    self.samples, self.batch
                ),
            ));
        }
        if let Some(phase) = self.phases.iter().find(|phase| phase.epochs > MOST_EPOCHS) {
            return Err(Error::config(
                "train.epochs",
                format!("must be at most {MOST_EPOCHS}, got {}", phase.epochs),
            ));
        }
        let phase = self.phases.first().copied();
        let rates = phase.map(|p| p.rates).unwrap_or_default();
        for (field, value, most) in [
            ("rangeLearningRate", rates.ranges, f64::MAX),
            ("lowRankLearningRate", rates.low_rank, f64::MAX),
            ("weightLearningRate", rates.weights, f64::MAX),
            ("weightDecay", self.weight_decay, f64::MAX),
            ("anchor", self.anchor, f64::MAX),
            ("minRatio", phase.map_or(1.0, |p| p.min_ratio), 1.0),
        ] {
            if !(0.0..=most).contains(&value) {
                let range = if most == 1.0 { "from 0 to 1" } else { "0 or more" };
                return Err(Error::config(
                    format!("train.{field}"),
                    format!("must be {range}, got {value}"),
                ));
            }
        }
        if !(self.rate_growth.is_finite() && self.rate_growth >= 0.0) {
            let reason = format!("must be 0 or more, got {}", self.rate_growth);
            return Err(Error::config("rateGrowth", reason));
        }
        self.optimizer().check().map_err(|e| match e {
            Error::Config { field, reason } => Error::config(format!("optimizer.{field}"), reason),
            e => e,
        })?;
        if let Some(solver) = &self.solver {
            solver.check()?;
        }
        if let Some(saliency) = &self.saliency {
            if !(saliency.lambda.is_finite() && saliency.lambda >= 0.0) {
                return Err(Error::config(
                    "lambda",
                    format!("must be 0 or more, got {}", saliency.lambda),
                ));
            }
            at_least("saliencySamples", saliency.samples, 1)?;
            at_least("saliencySequenceLength", saliency.sequence_length, 2)?;
        }
        Ok(())
    }
}
