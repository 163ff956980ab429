//! A recipe and its target: the rules that a target's answer makes, and the check that the target
//! holds every rule.

use super::{
    GradientScale, LowRankConfig, Observer, RangeConfig, Recipe, RecipeData, RoundingConfig, Rule,
    Stage, WeightSite,
};
use crate::error::{Error, Result};
use crate::target::{Target, TargetId, TargetSites, names};
use halfstep_kernels::quant::lsq::EdgeRule;

impl TargetSites {
    /// A recipe with one quantizer for all weights of layers.
    pub(crate) fn recipe(
        &self,
        id: &str,
        target: TargetId,
        observer: Observer,
        range: RangeConfig,
        stages: Vec<Stage>,
    ) -> Recipe {
        let weights = WeightSite {
            spec: self.weights,
            observer,
            range,
            rounding: RoundingConfig::default(),
            edge: EdgeRule::Inside,
            gradient_scale: GradientScale::Matrix,
            transform: None,
            low_rank: None,
        };
        let mut rules = vec![Rule::weights(weights)];
        rules.extend(self.embedding.map(|quantizer| Rule::Embedding { quantizer }));
        rules.extend(self.head.map(|quantizer| Rule::Head { quantizer }));
        rules.push(Rule::activations(self.activation));
        rules.push(Rule::HeadActivation { quantizer: self.head_activation });
        rules.push(Rule::cache(self.cache));
        Recipe { id: id.into(), target, rules, data: RecipeData::default(), stages }
    }
}

impl Recipe {
    /// Refuses a quantizer that the target cannot hold.
    ///
    /// Errors: `Target`, naming the rule, the reason and the targets that can hold it.
    pub(crate) fn check_target(&self) -> Result<()> {
        for (i, rule) in self.rules.iter().enumerate() {
            let held = |target: TargetId| holds(target.target(), rule);
            if let Err((field, reason)) = held(self.target) {
                let can = TargetId::ALL.iter().filter(|target| held(**target).is_ok());
                return Err(Error::Target {
                    target: self.target.name().into(),
                    grid: format!("rules[{i}]{field}"),
                    reason,
                    targets: names(can),
                });
            }
        }
        Ok(())
    }
}

/// Err has the field inside the rule, empty for the whole of it, and the reason.
fn holds(target: &dyn Target, rule: &Rule) -> std::result::Result<(), (&'static str, String)> {
    let layers_differ = "the cache of its runtime is the same in all layers";
    let held = match rule {
        Rule::Weight { quantizer: None, .. } => Ok(()),
        Rule::Weight { quantizer: Some(site), .. } => {
            let is_stored = |factors: LowRankConfig| factors.position.traits().is_stored;
            if site.transform.is_some() && !target.holds_transforms() {
                let reason = "its files cannot store what the input goes through";
                return Err((".quantizer.transform", reason.into()));
            }
            if site.low_rank.is_some_and(is_stored) && !target.holds_low_rank() {
                return Err((
                    ".quantizer.lowRank",
                    "its files cannot store low-rank factors".into(),
                ));
            }
            target.holds_weight(site.spec)
        }
        Rule::Embedding { quantizer } | Rule::Head { quantizer } => target.holds_table(*quantizer),
        Rule::Activation { quantizer, .. } => target.holds_activation(*quantizer),
        Rule::HeadActivation { quantizer } => target.holds_head_activation(*quantizer),
        Rule::Cache { layers: Some(_), .. } if !target.holds_caches_by_layer() => {
            return Err((".layers", layers_differ.into()));
        }
        Rule::Cache { quantizer, .. } => target.holds_cache(*quantizer),
    };
    held.map_err(|reason| ("", reason))
}
