//! Rules pick sites by pattern and give them a whole quantizer. Of the rules that match a weight
//! the most specific one counts: one that names layers and linears before one that names either,
//! before one that names neither.

use crate::error::{Error, Result, nearest};
use crate::quantizer::site::WeightSite;
use crate::record::layer_and_linear;
use halfstep_formats::architecture::{Architecture, Linear, Role, TensorSpec};
use halfstep_kernels::{ActivationSpec, QuantSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use ts_rs::TS;

/// What a kind of site gets, or some weights of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", tag = "site", deny_unknown_fields)]
#[ts(optional_fields)]
pub enum Rule {
    /// Weights of layers; without a quantizer they stay in floating point.
    Weight {
        /// Layers by number; -1 is the last one. None: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layers: Option<Vec<i64>>,
        /// Linears by name: `q_proj`, `down_proj`. None: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        linears: Option<Vec<String>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quantizer: Option<WeightSite>,
    },
    /// Token embedding (and the head, when tied).
    Embedding { quantizer: QuantSpec },
    /// Untied head.
    Head { quantizer: QuantSpec },
    /// Before every quantized linear of a layer.
    Activation { quantizer: ActivationSpec },
    /// Before the head, when the head is quantized.
    HeadActivation { quantizer: ActivationSpec },
    /// Keys after RoPE, and values.
    Cache { quantizer: ActivationSpec },
}

impl Rule {
    /// All weights of layers.
    pub fn weights(site: WeightSite) -> Self {
        Rule::Weight { layers: None, linears: None, quantizer: Some(site) }
    }

    pub fn weight_site(&self) -> Option<&WeightSite> {
        if let Rule::Weight { quantizer, .. } = self { quantizer.as_ref() } else { None }
    }

    /// The kind of the site.
    fn kind(&self) -> &'static str {
        match self {
            Rule::Weight { .. } => "weight",
            Rule::Embedding { .. } => "embedding",
            Rule::Head { .. } => "head",
            Rule::Activation { .. } => "activation",
            Rule::HeadActivation { .. } => "headActivation",
            Rule::Cache { .. } => "cache",
        }
    }

    /// How many of its fields name what it matches; None where it does not match the weight.
    fn specificity(&self, layer: usize, layers_of_model: usize, linear: Linear) -> Option<usize> {
        let Rule::Weight { layers, linears, .. } = self else { return None };
        let at = |&wanted: &i64| {
            let from_end = wanted + layers_of_model as i64;
            (if wanted < 0 { from_end } else { wanted }) == layer as i64
        };
        let here = layers.as_ref().is_none_or(|layers| layers.iter().any(at));
        let named = linears
            .as_ref()
            .is_none_or(|linears| linears.iter().any(|name| short_name(linear) == name));
        let fields = usize::from(layers.is_some()) + usize::from(linears.is_some());
        (here && named).then_some(fields)
    }
}

/// `down_proj` of `mlp.down_proj`.
fn short_name(linear: Linear) -> &'static str {
    linear.name().rsplit('.').next().unwrap_or_default()
}

pub(super) fn activation(rules: &[Rule]) -> ActivationSpec {
    let find = |rule: &Rule| {
        if let Rule::Activation { quantizer } = rule { Some(*quantizer) } else { None }
    };
    rules.iter().find_map(find).unwrap_or_default()
}

pub(super) fn head_activation(rules: &[Rule]) -> ActivationSpec {
    let find = |rule: &Rule| {
        if let Rule::HeadActivation { quantizer } = rule { Some(*quantizer) } else { None }
    };
    rules.iter().find_map(find).unwrap_or_default()
}

pub(super) fn cache(rules: &[Rule]) -> ActivationSpec {
    let find = |rule: &Rule| {
        if let Rule::Cache { quantizer } = rule { Some(*quantizer) } else { None }
    };
    rules.iter().find_map(find).unwrap_or(ActivationSpec::F16)
}

/// The quantizer of every tensor of a model under the rules of a recipe.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    by_name: BTreeMap<String, WeightSite>,
}

impl Sites {
    /// Matches every rule with every weight.
    ///
    /// Errors: `Config` with the path of the rule: it matches nothing, another one of equal right
    /// gives a weight another quantizer, or its parts cannot be combined.
    pub fn new(rules: &[Rule], architecture: &Architecture) -> Result<Self> {
        check_kinds(rules)?;
        let mut matched = vec![false; rules.len()];
        let mut by_name = BTreeMap::new();
        for spec in architecture.tensors() {
            let site = match (spec.role, layer_and_linear(&spec.name)) {
                (Role::Linear(_), Some((layer, linear))) => {
                    strongest(rules, architecture.layers.len(), (layer, linear), &mut matched)?
                }
                _ => whole(rules, spec.role).map(WeightSite::absmax),
            };
            if let Some(site) = site {
                by_name.insert(spec.name, site);
            }
        }
        for (i, rule) in rules.iter().enumerate() {
            if let Rule::Weight { quantizer, linears, .. } = rule {
                let path = format!("rules[{i}]");
                if !matched[i] {
                    return Err(matches_nothing(
                        &path,
                        linears.as_deref(),
                        architecture.layers.len(),
                    ));
                }
                if let Some(site) = quantizer {
                    site.check(&format!("{path}.quantizer"))?;
                }
            }
        }
        Ok(Self { by_name })
    }

    /// The quantizer of a tensor; None where it stays in floating point.
    pub fn of(&self, spec: &TensorSpec) -> Option<&WeightSite> {
        self.by_name.get(&spec.name)
    }

    pub fn by_name(&self, name: &str) -> Option<&WeightSite> {
        self.by_name.get(name)
    }
}

/// Refuses weights whose spec no stage can train or solve.
///
/// Errors: `Config` with the path of the rule's spec, and what would work.
pub(crate) fn check_trainable(rules: &[Rule]) -> Result<()> {
    for (i, rule) in rules.iter().enumerate() {
        if let Rule::Weight { quantizer: Some(site), .. } = rule {
            site.spec
                .check_trainable()
                .map_err(|reason| Error::config(format!("rules[{i}].quantizer.spec"), reason))?;
        }
    }
    Ok(())
}

/// Two rules for a kind of site that can have only one.
fn check_kinds(rules: &[Rule]) -> Result<()> {
    for (i, rule) in rules.iter().enumerate() {
        let same = |earlier: &Rule| earlier.kind() == rule.kind();
        if !matches!(rule, Rule::Weight { .. })
            && let Some(first) = rules[..i].iter().position(same)
        {
            let kind = rule.kind();
            return Err(Error::config(
                format!("rules[{i}]"),
                format!("rules[{first}] already gives the {kind} its quantizer; leave one out"),
            ));
        }
    }
    Ok(())
}

/// The quantizer of a whole tensor that is no weight of a layer.
fn whole(rules: &[Rule], role: Role) -> Option<QuantSpec> {
    rules.iter().find_map(|rule| match (rule, role) {
        (Rule::Embedding { quantizer }, Role::Embedding) => Some(*quantizer),
        (Rule::Head { quantizer }, Role::Head) => Some(*quantizer),
        _ => None,
    })
}

/// The quantizer of a weight by the most specific rule.
fn strongest(
    rules: &[Rule],
    layers: usize,
    (layer, linear): (usize, Linear),
    matched: &mut [bool],
) -> Result<Option<WeightSite>> {
    let specificity = |rule: &Rule| rule.specificity(layer, layers, linear);
    let found: Vec<Option<usize>> = rules.iter().map(specificity).collect();
    for (matched, found) in matched.iter_mut().zip(&found) {
        *matched |= found.is_some();
    }
    let most = found.iter().max().copied().flatten();
    let mut strongest =
        rules.iter().enumerate().filter(|(i, _)| most.is_some() && found[*i] == most);
    let Some((first, rule)) = strongest.next() else { return Ok(None) };
    let site = rule.weight_site();
    if let Some((other, _)) = strongest.find(|(_, rule)| rule.weight_site() != site) {
        let weight = linear.weight_name(layer);
        return Err(Error::config(
            format!("rules[{other}]"),
            format!(
                "it and rules[{first}] match {weight} with equal right; name layers or linears \
                 in one of them"
            ),
        ));
    }
    Ok(site.copied())
}

fn matches_nothing(path: &str, linears: Option<&[String]>, layers: usize) -> Error {
    let known = Linear::ALL.map(short_name);
    let unknown = linears.into_iter().flatten().find(|name| !known.contains(&name.as_str()));
    let Some(unknown) = unknown else {
        return Error::config(
            format!("{path}.layers"),
            format!("it matches no weight: the model has layers 0 to {}", layers.saturating_sub(1)),
        );
    };
    let hint = nearest(unknown, &known).map(|k| format!("did you mean {k}? ")).unwrap_or_default();
    Error::config(
        format!("{path}.linears"),
        format!("{unknown} matches no linear; {hint}Known: {}", known.join(", ")),
    )
}
