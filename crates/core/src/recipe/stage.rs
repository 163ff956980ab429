//! The stages of a recipe: the scope of the loss, what a stage begins from, and what it trains.

use super::block::BlockConfig;
use super::train::TrainConfig;
use crate::objective::{Tap, TermConfig, WeightedTerm, check_terms};
use crate::quantizer::builder::Trains;
use crate::quantizer::site::{WeightSite, name};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
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
    /// Layer after layer, each from its own inputs to its own outputs.
    Block {
        #[serde(default)]
        #[ts(optional, as = "Option<_>")]
        from: StageStart,
        trains: Trains,
        config: BlockConfig,
    },
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
    pub fn from(&self) -> StageStart {
        match self {
            Stage::Model { from, .. } | Stage::Block { from, .. } => *from,
        }
    }

    pub fn trains(&self) -> Trains {
        match self {
            Stage::Model { trains, .. } | Stage::Block { trains, .. } => *trains,
        }
    }

    /// Number of tokens of a training sequence.
    pub fn sequence_length(&self) -> usize {
        match self {
            Stage::Model { config, .. } => config.sequence_length,
            Stage::Block { config, .. } => config.sequence_length,
        }
    }

    pub fn seed(&self) -> u64 {
        match self {
            Stage::Model { config, .. } => config.seed,
            Stage::Block { config, .. } => config.seed,
        }
    }

    /// Whether codes are found without gradients.
    pub fn solves(&self) -> bool {
        matches!(self, Stage::Block { config, .. } if config.solver.is_some())
    }

    /// Refuses a term of the loss that looks where this stage has nothing.
    fn check_terms(&self, path: &str) -> Result<()> {
        match self {
            Stage::Model { config, .. } => check_terms(
                &config.terms(),
                &[Tap::Logits],
                "model",
                &format!("{path}.config.terms"),
            ),
            Stage::Block { config, .. } => {
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
                check_terms(&config.terms, &taps, "block", &format!("{path}.config.terms"))?;
                let path = format!("{path}.config.phases");
                for (i, phase) in config.phases.iter().enumerate() {
                    check_terms(
                        &config.phase_terms(phase),
                        &taps,
                        "block",
                        &format!("{path}[{i}]"),
                    )?;
                }
                Ok(())
            }
        }
    }

    /// Refuses a stage that trains nothing, or what its sites keep frozen; `sites` are those of the
    /// weights, `begins_from_codes` whether an earlier stage stored some, `static_sites` whether
    /// activations or cache have learned scales.
    ///
    /// Errors: `Config`, naming the field under `path` and what would work.
    pub fn check(
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
                "nothing learns in this stage; set weights, norms, scales, rounding, lowRank or \
                 activationScales to true",
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
        if trains.activation_scales && !static_sites {
            return frozen(
                "activationScales",
                "no activation or cache quantizer is static, so there is no scale to train".into(),
            );
        }
        Ok(())
    }
}
