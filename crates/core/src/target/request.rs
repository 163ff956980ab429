//! What a recipe asks of a target, and what the target answers for every site.

use super::TargetId;
use crate::error::{Error, Result};
use crate::recipe::{
    GradientScale, Observer, RangeConfig, Recipe, RecipeData, RoundingConfig, Rule, Stage,
    WeightSite,
};
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{ActivationSpec, QuantSpec};

/// What a recipe asks of the sites; None leaves the choice to the target.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub weights: Option<f64>,
    pub group_size: Option<usize>,
    pub activations: Option<f64>,
    pub cache: Option<f64>,
    pub static_activations: bool,
    /// Whether the recipe calibrates and learns static scales.
    pub learned: bool,
    pub zero_points: ZeroPoints,
    /// Bits of the weights where neither `weights` nor the target says.
    pub usual_bits: Option<u8>,
}

/// Whether a grid has a zero point per group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroPoints {
    #[default]
    No,
    /// Where the target can hold them.
    Preferred,
    /// A target that cannot hold them is refused.
    Required,
}

impl Request {
    /// Zero points where the target can hold them; None leaves the choice to the target.
    pub fn affine(
        weights: Option<f64>,
        group_size: Option<usize>,
        activations: Option<f64>,
        cache: Option<f64>,
    ) -> Self {
        let zero_points = ZeroPoints::Preferred;
        Self { weights, group_size, activations, cache, zero_points, ..Self::default() }
    }

    /// `bits` where the user leaves the choice and so does the target.
    pub fn or_bits(self, bits: u8) -> Self {
        Self { usual_bits: Some(bits), ..self }
    }
}

/// The quantizer at every site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetSites {
    pub weights: QuantSpec,
    pub embedding: Option<QuantSpec>,
    pub head: Option<QuantSpec>,
    pub activation: ActivationSpec,
    pub head_activation: ActivationSpec,
    pub cache: ActivationSpec,
}

impl TargetSites {
    /// A recipe with one quantizer for all weights of layers.
    pub fn recipe(
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
            low_rank: None,
        };
        let mut rules = vec![Rule::weights(weights)];
        rules.extend(self.embedding.map(|quantizer| Rule::Embedding { quantizer }));
        rules.extend(self.head.map(|quantizer| Rule::Head { quantizer }));
        rules.push(Rule::Activation { quantizer: self.activation });
        rules.push(Rule::HeadActivation { quantizer: self.head_activation });
        rules.push(Rule::Cache { quantizer: self.cache });
        Recipe { id: id.into(), target, rules, data: RecipeData::default(), stages }
    }
}

/// A number of bits as the user wrote it: a whole number from `low` to `high`.
pub(super) fn whole_bits(field: &str, bits: Option<f64>, low: u8, high: u8) -> Result<Option<u8>> {
    match bits {
        None => Ok(None),
        Some(b) if b.fract() == 0.0 && b >= f64::from(low) && b <= f64::from(high) => {
            Ok(Some(b as u8))
        }
        Some(b) => Err(Error::config(
            field,
            format!("{b} bits is not possible; a whole number from {low} to {high}"),
        )),
    }
}
