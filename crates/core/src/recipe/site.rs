//! The quantizer of a weight and its parts.

use crate::quantizer::range::RangeConfig;
use crate::quantizer::rounding::RoundingConfig;
use crate::{Error, Result};
use halfstep_kernels::quant::calibrate::ScaleRule;
use halfstep_kernels::quant::lsq::EdgeRule;
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
    /// Which code a weight gets.
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
    /// Low-rank factors whose product is added to the quantized weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_rank: Option<LowRankConfig>,
}

/// Low-rank factors `A [rank, I]` and `B [O, rank]` of a quantized linear: `y = x Wq^T + (alpha /
/// rank) (x A^T) B^T`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct LowRankConfig {
    /// Rank of the factors, 1 or more.
    pub rank: usize,
    /// The product of the factors is multiplied by alpha / rank; above 0.
    pub alpha: f64,
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
            low_rank: None,
        }
    }

    /// Refuses parts that cannot be combined; `path` is that of the site in the recipe.
    ///
    /// Errors: `Config`, naming the part's field and what would work.
    pub fn check(&self, path: &str) -> Result<()> {
        let affine = self.spec.has_zero_point();
        let range = self.range.traits();
        if affine && self.spec.granularity == Granularity::Tensor && range.learns {
            return Err(Error::config(
                format!("{path}.spec.granularity"),
                "zero points per tensor have no gradient; use channel or group, or the range \
                 frozen",
            ));
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

/// How the first scales of a weight are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Observer {
    /// Per matrix the better of ggml's signed rule and error search, by squared error with the
    /// scale as stored. As whole models the other can be the better one, so "RTN" in a table is the
    /// better of the two by KL.
    #[default]
    Best,
    /// max|w| / p.
    Absmax,
    /// ggml's Q4_0 rule: (entry of largest magnitude, with its sign) / n.
    SignedAbsmax,
    /// Least squared error.
    ErrorSearch,
    /// The convex surrogate.
    Convex,
    /// LSQ's 2 mean|w| / sqrt(p).
    Lsq,
}

impl Observer {
    /// The kernel's rule; None for [`Observer::Best`], which chooses between two.
    pub fn rule(self) -> Option<ScaleRule> {
        match self {
            Observer::Best => None,
            Observer::Absmax => Some(ScaleRule::Absmax),
            Observer::SignedAbsmax => Some(ScaleRule::SignedAbsmax),
            Observer::ErrorSearch => Some(ScaleRule::ErrorSearch),
            Observer::Convex => Some(ScaleRule::Convex),
            Observer::Lsq => Some(ScaleRule::Lsq),
        }
    }
}

/// N in LSQ's gradient scale 1 / sqrt(N p).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum GradientScale {
    /// Elements of the whole matrix.
    #[default]
    Matrix,
    /// Elements that share the scale.
    Group,
}
