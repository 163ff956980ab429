//! Fields of a recipe that have no effect in its combination of rules and stages. They are refused
//! by their path, so that nobody waits for the effect of an option that has none.

use super::block::{BlockConfig, BlockPhase};
use super::{GradientScale, Observer, Recipe, RoundingConfig, Stage, Trains};
use crate::error::{Error, Result};
use crate::objective::TermConfig;
use crate::quantizer::site::{WeightSite, name};
use halfstep_kernels::quant::lsq::EdgeRule;

impl Recipe {
    /// Refuses fields that nothing reads in this combination of rules and stages.
    ///
    /// Errors: `Config`, naming the field and what would work.
    pub(crate) fn check_unread(&self) -> Result<()> {
        for (i, stage) in self.stages.iter().enumerate() {
            let (path, trains) = (format!("stages[{i}].config"), stage.trains());
            if let Some((config, _)) = stage.by_layers() {
                check_blocks(&path, config, trains)?;
            }
            if let Stage::Model { config, .. } = stage {
                config.check_read(trains).map_err(|e| match e {
                    Error::Config { field, reason } => {
                        Error::config(format!("{path}.{field}"), reason)
                    }
                    e => e,
                })?;
            }
        }
        let readers = Readers::of(&self.stages);
        for (i, rule) in self.rules.iter().enumerate() {
            let path = format!("rules[{i}].quantizer");
            if let Some(site) = rule.weight_site() {
                readers.check(&path, site)?;
            }
            if rule.activation().is_some_and(|spec| spec.is_static()) {
                self.check_static(&path)?;
            }
        }
        Ok(())
    }

    /// Refuses stored scales of activations or cache that no stage finds.
    fn check_static(&self, path: &str) -> Result<()> {
        let with = "use a quantizer whose scales follow the values (kind dynamic)";
        if self.stages.is_empty() {
            let reason = format!(
                "its stored scale is found by a stage of scope model, and there is none; add one, \
                 or {with}"
            );
            return Err(Error::config(path, reason));
        }
        match self.stages.iter().position(|stage| stage.by_layers().is_some()) {
            Some(i) => Err(Error::config(
                format!("stages[{i}].scope"),
                format!(
                    "the stored scale of {path} is found by stages of scope model alone; {with}"
                ),
            )),
            None => Ok(()),
        }
    }
}

/// What the stages of a recipe read of the quantizer of a weight.
struct Readers {
    /// Without stages weights are rounded to nearest.
    rounds: bool,
    /// A stage trains a weight by its parts, from codes or not.
    trains: bool,
    /// A stage trains it by its parts from the values of the original model.
    begins: bool,
    /// Of any stage that trains.
    learns: Trains,
}

impl Readers {
    fn of(stages: &[Stage]) -> Self {
        let mut readers =
            Self { rounds: stages.is_empty(), trains: false, begins: false, learns: Trains::NONE };
        for (i, stage) in stages.iter().enumerate().filter(|(_, stage)| !stage.solves()) {
            let (trains, from_values) = (stage.trains(), !stage.goes_on(i));
            readers.begins |= from_values;
            // Codes of the stage before stay as they are where the weights do not learn.
            readers.trains |= from_values || trains.weights;
            readers.learns.scales |= trains.scales;
            readers.learns.rounding |= trains.rounding;
            readers.learns.low_rank |= trains.low_rank;
            readers.learns.transforms |= trains.transforms;
        }
        readers
    }

    /// Who finds the codes instead of a stage that trains.
    fn instead(&self) -> &'static str {
        if self.rounds {
            "without a stage that trains, weights are rounded to nearest"
        } else {
            "no stage trains the weight by its parts: solvers choose codes by themselves, and the \
             codes of an earlier stage stay"
        }
    }

    fn check(&self, path: &str, site: &WeightSite) -> Result<()> {
        let unread =
            |field: &str, reason: String| Err(Error::config(format!("{path}.{field}"), reason));
        let (range, rounding) = (site.range.traits(), site.rounding.traits());
        if site.rounding != RoundingConfig::default() && !self.trains {
            return unread("rounding", format!("{}; use nearest", self.instead()));
        }
        if rounding.learns && !self.learns.rounding {
            let name = name(&site.rounding);
            return unread(
                "rounding",
                format!("no stage trains {name}; set trains.rounding to true, or use nearest"),
            );
        }
        if range.learns && !self.trains && !self.learns.scales {
            return unread("range", format!("{}; use frozen", self.instead()));
        }
        if !range.reads_observer && self.rounds && site.observer != Observer::Absmax {
            let reason = format!(
                "{}, by the scales of the observer; use frozen, or the observer absmax",
                self.instead()
            );
            return unread("range", reason);
        }
        let read = self.rounds || self.begins && range.reads_observer;
        // Solvers and such ranges find scales by the largest magnitudes; a recipe that names no
        // observer has the default one.
        if !read && ![Observer::Absmax, Observer::default()].contains(&site.observer) {
            let finder = if self.begins {
                format!("the range {} finds scales by absmax in every step", name(&site.range))
            } else {
                "solvers find scales by absmax".into()
            };
            return unread("observer", format!("{finder}; leave it out, or use absmax"));
        }
        let scales_learn = self.trains && self.learns.scales && range.reads_gradient_scale;
        if site.gradient_scale != GradientScale::default() && !scales_learn {
            let reason = "no stage trains a scale whose gradient it divides; leave it out, or use \
                          the range scale with trains.scales";
            return unread("gradientScale", reason.into());
        }
        if site.edge != EdgeRule::default() && !self.trains {
            return unread("edge", format!("{}; leave it out", self.instead()));
        }
        if site.transform.is_some_and(|t| t.traits().learns) && !self.learns.transforms {
            let reason = "no stage trains the transform; set trains.transforms to true in one of \
                          them, or leave it out";
            return unread("transform", reason.into());
        }
        if site.low_rank.is_some() && !self.learns.low_rank {
            let reason = "no stage trains the factors; set trains.lowRank to true in one of them, \
                          or leave them out";
            return unread("lowRank", reason.into());
        }
        Ok(())
    }
}

/// Refuses what a stage of layers does not read of its config; `path` is that of the config.
fn check_blocks(path: &str, config: &BlockConfig, trains: Trains) -> Result<()> {
    let unread = |field: &str, reason: &str| Err(Error::config(format!("{path}.{field}"), reason));
    if config.solver.is_some() {
        let stated = [
            ("phases", !config.phases.is_empty()),
            ("secondTarget", config.second_target),
            ("saliency", config.saliency.is_some()),
            ("terms", !config.terms.is_empty()),
            ("anchor", config.anchor != 0.0),
            ("rateGrowth", config.rate_growth != 0.0),
            ("weightDecay", config.weight_decay != 0.0),
            ("optimizer", config.optimizer.is_some()),
            ("batch", config.batch != 1),
        ];
        return match stated.into_iter().find(|(_, stated)| *stated) {
            Some(("batch", _)) => unread("batch", "must be 1: a solver takes no steps"),
            Some((field, _)) => {
                unread(field, "a solver takes no steps and reads none; leave it out")
            }
            None => Ok(()),
        };
    }
    if config.steps() == 0 {
        return unread("phases", "have no epoch, so that nothing is trained; add one");
    }
    let adds = |phase: &BlockPhase| phase.saliency;
    if let Some(i) = config.phases.iter().position(adds)
        && config.saliency.is_none()
    {
        return unread(
            &format!("phases[{i}].saliency"),
            "must be false: the stage has no penalty; give it config.saliency",
        );
    }
    check_rates(path, config, trains)?;
    if config.saliency.is_some() && !config.phases.iter().any(adds) {
        return unread("saliency", "no phase adds it; set saliency to true in one of the phases");
    }
    if trains.weights {
        return Ok(());
    }
    let reason = "it pulls weights that learn, and the stage trains none; set trains.weights to \
                  true, or leave it out";
    let pulls = |term: TermConfig| matches!(term, TermConfig::Anchor(_));
    if config.anchor != 0.0 {
        return unread("anchor", reason);
    }
    match config.terms.iter().position(|term| pulls(term.term)) {
        Some(i) => unread(&format!("terms[{i}].term"), reason),
        None => Ok(()),
    }
}

/// Refuses learning rates and a decay of what does not learn.
fn check_rates(path: &str, config: &BlockConfig, trains: Trains) -> Result<()> {
    let unread =
        |field: String, reason: &str| Err(Error::config(format!("{path}.{field}"), reason));
    for (i, BlockPhase { rates, .. }) in config.phases.iter().enumerate() {
        let read = rates.of(trains);
        let rate = |name: &str| format!("phases[{i}].rates.{name}");
        if rates.ranges != read.ranges {
            let reason = "must be 0: the stage trains neither scales, rounding nor transforms; or \
                          set trains.scales to true";
            return unread(rate("ranges"), reason);
        }
        if rates.low_rank != read.low_rank {
            let reason = "must be 0: the stage trains no low-rank factors; or set trains.lowRank to \
                          true where a site has some";
            return unread(rate("lowRank"), reason);
        }
        if rates.weights != read.weights {
            let reason = "must be 0: the stage trains neither weights nor norms; or set \
                          trains.weights to true";
            return unread(rate("weights"), reason);
        }
    }
    if config.weight_decay != 0.0 && !trains.ranges() && !trains.low_rank {
        let reason =
            "must be 0: it is for ranges and low-rank factors, and the stage trains neither";
        return unread("weightDecay".into(), reason);
    }
    Ok(())
}
