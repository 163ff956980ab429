//! The stages of a recipe: the scope of the loss, what a stage begins from, and what it trains.

use super::block::BlockConfig;
use super::train::TrainConfig;
use crate::objective::{Tap, TermConfig, WeightedTerm, check_terms};
use crate::quantizer::builder::Trains;
use crate::quantizer::site::{WeightSite, name};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use ts_rs::TS;

/// One stage: the scope of its loss, what it begins from and what it trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", tag = "scope", deny_unknown_fields)]
pub enum Stage {
    /// End to end.
    Model {
        /// What the stage begins from.
        #[serde(default)]
        #[ts(optional, as = "Option<_>")]
        from: StageStart,
        /// What learns; everything else is frozen.
        trains: Trains,
        /// How long, how fast and by which loss.
        #[ts(type = "Partial<TrainConfig>")]
        config: TrainConfig,
    },
    /// One linear after the other (ApiQ-lw, arXiv 2402.05147; AdaRound, arXiv 2004.10568): each
    /// learns to compute from what it reads in the quantized layers what the unquantized one
    /// computes from what it reads in the unquantized layers.
    Linear {
        /// What the stage begins from.
        #[serde(default)]
        #[ts(optional, as = "Option<_>")]
        from: StageStart,
        /// What learns; everything else is frozen.
        trains: Trains,
        /// Phases and steps are those of every linear.
        config: BlockConfig,
    },
    /// One transformer layer after the other, each from its own inputs to its own outputs.
    Block {
        /// What the stage begins from.
        #[serde(default)]
        #[ts(optional, as = "Option<_>")]
        from: StageStart,
        /// What learns; everything else is frozen.
        trains: Trains,
        /// How long, how fast and by which loss, or by which solver.
        config: BlockConfig,
    },
    /// Several transformer layers in a row, trained together from the inputs of the first to the
    /// outputs of the last (CBQ, arXiv 2312.07950); then the next ones.
    Window {
        /// What the stage begins from.
        #[serde(default)]
        #[ts(optional, as = "Option<_>")]
        from: StageStart,
        /// What learns; everything else is frozen.
        trains: Trains,
        /// Number of layers of a window, from 1 to those of the model.
        layers: usize,
        /// Layers from the start of a window to that of the next one, from 1 to `layers`. The layers
        /// in between are finished with their window; those that overlap go on learning in the next
        /// one.
        stride: usize,
        /// How long, how fast and by which loss.
        config: BlockConfig,
    },
}

/// What a built-in recipe that goes through the layers trains at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum LayerScope {
    /// All linears of a layer, on the outputs of the layer.
    #[default]
    Block,
    /// One linear after the other, each on its own outputs.
    Linear,
}

impl LayerScope {
    /// A stage of this scope that begins from the original model.
    pub fn stage(self, trains: Trains, config: BlockConfig) -> Stage {
        let from = StageStart::Original;
        match self {
            Self::Block => Stage::Block { from, trains, config },
            Self::Linear => Stage::Linear { from, trains, config },
        }
    }
}

/// What is trained together: layers, or linears of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number of layers of a window.
    pub layers: usize,
    /// Number of layers from the start of a window to that of the next one.
    pub stride: usize,
    /// Whether the linears of a layer are trained one after the other, each on its own output.
    pub by_linears: bool,
}

impl Window {
    /// Every layer by itself.
    pub const ONE: Self = Self { layers: 1, stride: 1, by_linears: false };

    /// Every linear of every layer by itself.
    pub const LINEARS: Self = Self { by_linears: true, ..Self::ONE };

    /// Number of windows of a model of `layers` layers.
    pub fn count(self, layers: usize) -> usize {
        1 + layers.saturating_sub(self.layers).div_ceil(self.stride)
    }

    /// The layers of the window that starts at `first`.
    pub fn at(self, first: usize, layers: usize) -> Range<usize> {
        first..(first + self.layers).min(layers)
    }

    /// Those that are finished with it: all of the last window, else those before the next one.
    pub fn finished(self, first: usize, layers: usize) -> Range<usize> {
        let last = first + self.layers >= layers;
        first..if last { layers } else { first + self.stride }
    }
}

/// What a stage begins from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum StageStart {
    /// The stored result of the previous stage: its codes stay unless the weights learn; if they
    /// do, they begin at the values of the codes. The first stage begins from the original model.
    #[default]
    Previous,
    /// The original model; the results of earlier stages are dropped.
    Original,
}

impl Stage {
    pub(crate) fn from(&self) -> StageStart {
        match self {
            Stage::Model { from, .. }
            | Stage::Linear { from, .. }
            | Stage::Block { from, .. }
            | Stage::Window { from, .. } => *from,
        }
    }

    /// What learns in the stage.
    pub fn trains(&self) -> Trains {
        match self {
            Stage::Model { trains, .. }
            | Stage::Linear { trains, .. }
            | Stage::Block { trains, .. }
            | Stage::Window { trains, .. } => *trains,
        }
    }

    /// The config of a stage that goes through the layers, and which of them it trains together.
    /// None: it trains the whole model.
    pub fn by_layers(&self) -> Option<(&BlockConfig, Window)> {
        match self {
            Stage::Model { .. } => None,
            Stage::Linear { config, .. } => Some((config, Window::LINEARS)),
            Stage::Block { config, .. } => Some((config, Window::ONE)),
            &Stage::Window { layers, stride, ref config, .. } => {
                Some((config, Window { layers, stride, ..Window::ONE }))
            }
        }
    }

    /// The scope as a recipe names it.
    fn scope(&self) -> &'static str {
        match self {
            Stage::Model { .. } => "model",
            Stage::Linear { .. } => "linear",
            Stage::Block { .. } => "block",
            Stage::Window { .. } => "window",
        }
    }

    /// Number of tokens of a training sequence.
    pub(crate) fn sequence_length(&self) -> usize {
        match self {
            Stage::Model { config, .. } => config.sequence_length,
            Stage::Linear { config, .. }
            | Stage::Block { config, .. }
            | Stage::Window { config, .. } => config.sequence_length,
        }
    }

    pub(crate) fn seed(&self) -> u64 {
        match self {
            Stage::Model { config, .. } => config.seed,
            Stage::Linear { config, .. }
            | Stage::Block { config, .. }
            | Stage::Window { config, .. } => config.seed,
        }
    }

    /// Whether the stage, the `index`th of its recipe, continues from what an earlier one stored.
    pub(crate) fn goes_on(&self, index: usize) -> bool {
        index > 0 && self.from() == StageStart::Previous
    }

    /// Whether codes are found without gradients.
    pub(crate) fn solves(&self) -> bool {
        self.by_layers().is_some_and(|(config, _)| config.solver.is_some())
    }

    /// Refuses a term of the loss that reads values which this stage does not have.
    fn check_terms(&self, path: &str) -> Result<()> {
        match self {
            Stage::Model { config, .. } => check_terms(
                &config.terms(),
                &[Tap::Logits],
                self.scope(),
                &format!("{path}.config.terms"),
            ),
            Stage::Linear { config, .. }
            | Stage::Block { config, .. }
            | Stage::Window { config, .. } => {
                let is_saliency =
                    |term: &WeightedTerm| matches!(term.term, TermConfig::Saliency(_));
                if let Some(i) = config.terms.iter().position(is_saliency)
                    && config.saliency.is_some()
                {
                    return Err(Error::config(
                        format!("{path}.config.terms[{i}].term"),
                        "config.saliency gives the stage its saliency already; leave one out",
                    ));
                }
                let taps = [Tap::LayerOutput, Tap::Weights];
                let scope = self.scope();
                check_terms(&config.terms, &taps, scope, &format!("{path}.config.terms"))?;
                let path = format!("{path}.config.phases");
                for (i, phase) in config.phases.iter().enumerate() {
                    let path = format!("{path}[{i}]");
                    check_terms(&config.phase_terms(phase), &taps, scope, &path)?;
                }
                Ok(())
            }
        }
    }

    /// Refuses what nothing can do in this scope: a window that does not fit a model of `layers`
    /// layers, a solver where layers or linears are not taken as a solver takes them, norms where
    /// linears learn.
    ///
    /// Errors: `Config`, naming the field under `path` and what would work.
    pub(crate) fn check_scope(&self, path: &str, layers: usize) -> Result<()> {
        if let Stage::Linear { trains, config, .. } = self {
            let refused =
                |field: &str, reason: &str| Err(Error::config(format!("{path}.{field}"), reason));
            if config.solver.is_some() {
                let reason = "a solver goes through the linears of a layer by itself; use the \
                              scope block";
                return refused("config.solver", reason);
            }
            if trains.norms {
                let reason = "must be false: the output of a linear says nothing about norms and \
                              biases; train them in a stage of scope block, window or model";
                return refused("trains.norms", reason);
            }
        }
        let Stage::Window { layers: wide, stride, config, .. } = self else { return Ok(()) };
        let within = |field: &str, value: usize, most: usize, of: &str| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            let reason = format!("must be from 1 to {most}, {of}, got {value}");
            Err(Error::config(format!("{path}.{field}"), reason))
        };
        within("layers", *wide, layers, "the layers of the model")?;
        within("stride", *stride, *wide, "the layers of a window")?;
        if config.solver.is_some() {
            return Err(Error::config(
                format!("{path}.config.solver"),
                "a solver works on one layer at a time; use the scope block",
            ));
        }
        Ok(())
    }

    /// Refuses a stage that trains nothing, or what its sites keep frozen; `sites` are those of the
    /// weights, `begins_from_codes` whether an earlier stage stored some, `static_sites` whether
    /// activations or cache have learned scales.
    ///
    /// Errors: `Config`, naming the field under `path` and what would work.
    pub(crate) fn check(
        &self,
        path: &str,
        sites: &[WeightSite],
        begins_from_codes: bool,
        static_sites: bool,
    ) -> Result<()> {
        self.check_terms(path)?;
        let (trains, path) = (self.trains(), format!("{path}.trains"));
        if self.solves() {
            return match trains {
                Trains::NONE => Ok(()),
                _ => Err(Error::config(path, "must be false: a solver trains nothing")),
            };
        }
        if trains == Trains::NONE {
            return Err(Error::config(
                path,
                "nothing learns in this stage; set weights, norms, scales, rounding, lowRank, \
                 activationScales or transforms to true",
            ));
        }
        let frozen =
            |field: &str, reason: String| Err(Error::config(format!("{path}.{field}"), reason));
        if trains.weights
            && let Some(site) = sites.iter().find(|site| !site.range.traits().weights_may_learn)
        {
            let range = name(&site.range);
            return frozen(
                "weights",
                format!(
                    "the range {range} keeps the weights frozen; use scale, scaleZero, absmax or \
                     frozen"
                ),
            );
        }
        if trains.weights
            && let Some(site) = sites.iter().find(|site| !site.rounding.traits().weights_may_learn)
        {
            let rounding = name(&site.rounding);
            return frozen(
                "weights",
                format!("the rounding {rounding} keeps the weights frozen; use nearest"),
            );
        }
        let codes_stay = begins_from_codes && !trains.weights;
        if trains.scales
            && !codes_stay
            && !sites.is_empty()
            && !sites.iter().any(|s| s.range.traits().learns)
        {
            let range = name(&sites[0].range);
            return frozen(
                "scales",
                format!(
                    "the range {range} has no trainable parameters; use scale, clip or scaleZero"
                ),
            );
        }
        if trains.scales
            && let Some(site) = sites.iter().find(|site| !site.rounding.traits().ranges_may_learn)
        {
            let rounding = name(&site.rounding);
            return frozen(
                "scales",
                format!("the rounding {rounding} keeps the ranges frozen; use nearest"),
            );
        }
        if trains.rounding && !sites.iter().any(|site| site.rounding.traits().learns) {
            return frozen("rounding", "no site has a trainable rounding; use adaRound".into());
        }
        if trains.low_rank && !sites.iter().any(|site| site.low_rank.is_some()) {
            return frozen(
                "lowRank",
                "no site has low-rank factors; give one of them lowRank: { rank, alpha }".into(),
            );
        }
        let learns = |site: &WeightSite| site.transform.is_some_and(|t| t.traits().learns);
        if trains.transforms && !sites.iter().any(learns) {
            return frozen(
                "transforms",
                "no site has a trainable transform; use { kind: channelScale }".into(),
            );
        }
        if trains.activation_scales && !static_sites {
            return frozen(
                "activationScales",
                "no activation or cache quantizer is static, so there is no scale to train".into(),
            );
        }
        Ok(())
    }
}
