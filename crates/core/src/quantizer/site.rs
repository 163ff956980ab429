//! The quantizer of a weight and its parts.

use super::builder::GradientScale;
use super::low_rank::LowRankConfig;
use super::range::RangeConfig;
use super::rounding::RoundingConfig;
use super::transform::TransformConfig;
use crate::{Error, Result};
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::quant::observer::Observer;
use halfstep_kernels::{Granularity, QuantSpec};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The quantizer of a weight: its grid, and the parts that find codes and scales on it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct WeightSite {
    /// How codes, scales and zero points are stored.
    pub spec: QuantSpec,
    /// How the first scales are found.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub observer: Observer,
    /// How the scales are computed in each training step, and which part of them learns.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub range: RangeConfig,
    /// Which code a weight gets in a stage that trains. Without stages it is always the nearest
    /// one, and a solver chooses codes by itself.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub rounding: RoundingConfig,
    /// Whether a weight exactly on the edge of the grid counts as inside.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub edge: EdgeRule,
    /// What the gradient of a learned scale is divided by.
    #[serde(default)]
    #[ts(optional, as = "Option<_>")]
    pub gradient_scale: GradientScale,
    /// What weight and input go through before they are quantized, so that their product stays; the
    /// file stores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<TransformConfig>,
    /// Low-rank factors whose product is added to the weight, outside of the quantizer or inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_rank: Option<LowRankConfig>,
}

impl WeightSite {
    /// A weight whose scales follow it, by its largest magnitudes.
    pub fn absmax(spec: QuantSpec) -> Self {
        Self {
            spec,
            observer: Observer::Absmax,
            range: RangeConfig::Absmax,
            rounding: RoundingConfig::default(),
            edge: EdgeRule::default(),
            gradient_scale: GradientScale::default(),
            transform: None,
            low_rank: None,
        }
    }

    /// Refuses parts that cannot be combined; `path` is that of the site in the recipe.
    ///
    /// Errors: `Config`, naming the part's field and what would work.
    pub(crate) fn check(&self, path: &str) -> Result<()> {
        let affine = self.spec.has_zero_point();
        let range = self.range.traits();
        if affine && self.spec.granularity == Granularity::Tensor && range.learns {
            return Err(Error::config(
                format!("{path}.spec.granularity"),
                "zero points per tensor have no gradient; use channel or group, or the range \
                 frozen",
            ));
        }
        let changes = [
            ("transform", self.transform.is_some_and(|transform| transform.traits().learns)),
            ("lowRank", self.low_rank.is_some_and(|l| l.position.traits().changes_weight)),
        ];
        if let Some((field, _)) = changes.into_iter().find(|(_, changes)| *changes) {
            let keeps = [
                ("range", name(&self.range), range.weights_may_learn),
                ("rounding", name(&self.rounding), self.rounding.traits().weights_may_learn),
            ];
            if let Some((part, name, _)) = keeps.into_iter().find(|(_, _, may)| !may) {
                let reason = format!(
                    "changes the weight while it trains, and the {part} {name} keeps it as it \
                     began; use another {part}"
                );
                return Err(Error::config(format!("{path}.{field}"), reason));
            }
        }
        if let Some(low_rank) = self.low_rank {
            if low_rank.rank == 0 {
                return Err(Error::config(
                    format!("{path}.lowRank.rank"),
                    "must be at least 1, got 0",
                ));
            }
            if !(low_rank.alpha.is_finite() && low_rank.alpha > 0.0) {
                return Err(Error::config("alpha", "must be above 0"));
            }
        }
        Ok(())
    }
}

/// The name of a choice as a recipe writes it.
pub(crate) fn name(choice: &impl Serialize) -> String {
    serde_json::to_value(choice)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
