//! Rules pick sites by pattern and give them a whole quantizer. Of the rules that match a site the
//! most specific one counts: one that names layers and sites (linears, inputs, keys or values)
//! before one that names either, before one that names neither.

use crate::error::{Error, Result, nearest};
use crate::quantizer::site::WeightSite;
use halfstep_formats::architecture::{ActivationSite, Architecture, Linear, Role, TensorSpec};
use halfstep_kernels::{ActivationSpec, QuantSpec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use ts_rs::TS;

/// The quantizer of all sites of a kind, or of some of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", tag = "site", deny_unknown_fields)]
#[ts(optional_fields)]
pub enum Rule {
    /// Weights of layers; without a quantizer they stay in floating point.
    Weight {
        /// Layers by number; -1 is the last one. None: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layers: Option<Vec<Layers>>,
        /// Linears by name: `q_proj`, `down_proj`. None: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        linears: Option<Vec<String>>,
        /// The quantizer of these weights: their grid, and the parts that find codes and scales on
        /// it. None: they stay in floating point.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quantizer: Option<WeightSite>,
    },
    /// Token embedding (and the head, when tied).
    Embedding {
        /// The quantizer of the embedding.
        quantizer: QuantSpec,
    },
    /// Untied head.
    Head {
        /// The quantizer of the head's weights.
        quantizer: QuantSpec,
    },
    /// Before quantized linears of layers.
    Activation {
        /// Layers by number; -1 is the last one. None: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layers: Option<Vec<Layers>>,
        /// Inputs by name: `attn_in` (of `q_proj`, `k_proj` and `v_proj`), `o_in`, `ffn_in` (of
        /// `gate_proj` and `up_proj`), `down_in`. None: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inputs: Option<Vec<String>>,
        /// The quantizer of these inputs.
        quantizer: ActivationSpec,
    },
    /// Before the head, when the head is quantized.
    HeadActivation {
        /// The quantizer of the head's input.
        quantizer: ActivationSpec,
    },
    /// Keys after RoPE, and values.
    Cache {
        /// Layers by number; -1 is the last one. None: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layers: Option<Vec<Layers>>,
        /// `k` (keys) or `v` (values). None: both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tensors: Option<Vec<String>>,
        /// The quantizer of these keys or values.
        quantizer: ActivationSpec,
    },
}

/// Layers of a model: one, or several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(untagged)]
pub enum Layers {
    /// A layer by number; -1 is the last one.
    One(i64),
    /// Layers in a row.
    Range(LayerRange),
}

/// The layers from one to another, both included; -1 is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerRange {
    /// The first layer.
    pub from: i64,
    /// The last layer.
    pub to: i64,
}

impl From<i64> for Layers {
    fn from(layer: i64) -> Self {
        Layers::One(layer)
    }
}

impl Layers {
    /// Whether `layer` is one of them, in a model of `count` layers.
    fn contain(self, layer: usize, count: usize) -> bool {
        let number = |wanted: i64| if wanted < 0 { wanted + count as i64 } else { wanted };
        let layer = layer as i64;
        match self {
            Layers::One(one) => number(one) == layer,
            Layers::Range(LayerRange { from, to }) => (number(from)..=number(to)).contains(&layer),
        }
    }
}

/// What a rule names of the sites that it is for.
struct Pattern<'a> {
    layers: Option<&'a [Layers]>,
    names: Option<&'a [String]>,
    /// The field of the names.
    field: &'static str,
}

/// A site of a layer that rules may name.
struct Site<'a> {
    kind: &'static str,
    layer: usize,
    /// Inside the layer, as rules name all of its kind.
    name: &'static str,
    /// Its whole name inside the layer, which rules may end with: that of one expert.
    whole: &'a str,
}

impl Rule {
    /// Gives all weights of layers the same quantizer.
    pub fn weights(site: WeightSite) -> Self {
        Rule::Weight { layers: None, linears: None, quantizer: Some(site) }
    }

    /// Gives the inputs of all quantized linears of layers the same quantizer.
    pub fn activations(quantizer: ActivationSpec) -> Self {
        Rule::Activation { layers: None, inputs: None, quantizer }
    }

    /// Gives all keys and values the same quantizer.
    pub fn cache(quantizer: ActivationSpec) -> Self {
        Rule::Cache { layers: None, tensors: None, quantizer }
    }

    pub(crate) fn weight_site(&self) -> Option<&WeightSite> {
        if let Rule::Weight { quantizer, .. } = self { quantizer.as_ref() } else { None }
    }

    /// The quantizer that it gives to inputs of linears of layers, or to keys or values.
    pub(crate) fn activation(&self) -> Option<ActivationSpec> {
        match self {
            Rule::Activation { quantizer, .. } | Rule::Cache { quantizer, .. } => Some(*quantizer),
            _ => None,
        }
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

    /// None: there is one site of this kind.
    fn pattern(&self) -> Option<Pattern<'_>> {
        let (layers, names, field) = match self {
            Rule::Weight { layers, linears, .. } => (layers, linears, "linears"),
            Rule::Activation { layers, inputs, .. } => (layers, inputs, "inputs"),
            Rule::Cache { layers, tensors, .. } => (layers, tensors, "tensors"),
            _ => return None,
        };
        Some(Pattern { layers: layers.as_deref(), names: names.as_deref(), field })
    }

    /// How many of its fields name what it matches; None where it does not match the site.
    fn specificity(&self, site: &Site, layers: usize) -> Option<usize> {
        let pattern = self.pattern().filter(|_| self.kind() == site.kind)?;
        let at = |wanted: &Layers| wanted.contain(site.layer, layers);
        let here = pattern.layers.is_none_or(|wanted| wanted.iter().any(at));
        let is = |name: &String| name == site.name || is_end(name, site.whole);
        let named = pattern.names.is_none_or(|names| names.iter().any(is));
        (here && named).then_some(pattern.fields())
    }

    /// Whether both give the same quantizer.
    fn gives_the_same(&self, other: &Rule) -> bool {
        match (self, other) {
            (Rule::Weight { quantizer: a, .. }, Rule::Weight { quantizer: b, .. }) => a == b,
            _ => self.activation() == other.activation(),
        }
    }
}

impl Pattern<'_> {
    /// Names that there are in a model: those of each kind, once, and the whole ones.
    fn known(&self, architecture: &Architecture) -> (Vec<&'static str>, BTreeSet<String>) {
        let (mut short, mut wholes) = (vec![], BTreeSet::new());
        let mut add = |name: &'static str, whole: &str| {
            if !short.contains(&name) {
                short.push(name);
            }
            wholes.insert(whole.to_string());
        };
        for layer in 0..architecture.layers.len() {
            if self.field == "linears" {
                for linear in architecture.linears(layer) {
                    add(linear.kind.short_name(), &linear.kind.name());
                }
                continue;
            }
            let caches = self.field == "tensors";
            for site in architecture.sites(layer).into_iter().filter(|s| s.is_cache() == caches) {
                add(site_name(site), &site.name());
            }
        }
        (short, wholes)
    }

    /// How many of its fields name something.
    fn fields(&self) -> usize {
        usize::from(self.layers.is_some()) + usize::from(self.names.is_some())
    }

    /// Refuses names and layers that match nothing in the model.
    fn check(&self, path: &str, architecture: &Architecture) -> Result<()> {
        let count = architecture.layers.len();
        let (known, wholes) = self.known(architecture);
        let (all, field) = (known.join(", "), format!("{path}.{}", self.field));
        if self.names.is_some_and(<[String]>::is_empty) {
            return Err(Error::config(field, format!("is empty and matches nothing; use {all}")));
        }
        let is_whole = |name: &String| wholes.iter().any(|whole| is_end(name, whole));
        let unknown = |name: &&String| !known.contains(&name.as_str()) && !is_whole(name);
        if let Some(unknown) = self.names.into_iter().flatten().find(unknown) {
            let hint = nearest(unknown, &known).map(|k| format!("did you mean {k}? "));
            let hint = hint.unwrap_or_default();
            let reason = format!("{unknown} matches nothing; {hint}Known: {all}");
            return Err(Error::config(field, reason));
        }
        let matches = |wanted: &Layers| (0..count).any(|layer| wanted.contain(layer, count));
        if self.layers.is_none_or(|layers| !layers.is_empty() && layers.iter().all(matches)) {
            return Ok(());
        }
        let last = count.saturating_sub(1);
        let reason = format!("it matches nothing: the model has layers 0 to {last}");
        Err(Error::config(format!("{path}.layers"), reason))
    }
}

/// Whether a name is the last parts of a whole one: `experts.3.up_proj` of
/// `mlp.experts.3.up_proj`.
fn is_end(name: &str, whole: &str) -> bool {
    whole.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// `down_in`, and `k` of `k_cache`.
fn site_name(site: ActivationSite) -> &'static str {
    let name = site.short_name();
    name.strip_suffix("_cache").unwrap_or(name)
}

pub(super) fn head_activation(rules: &[Rule]) -> ActivationSpec {
    let find = |rule: &Rule| {
        if let Rule::HeadActivation { quantizer } = rule { Some(*quantizer) } else { None }
    };
    rules.iter().find_map(find).unwrap_or_default()
}

/// The quantizer of every input of a layer's linears, and of all keys and values.
///
/// Errors: `Config` with the path of the rule, as [`Sites::new`].
pub(super) fn activations(
    rules: &[Rule],
    architecture: &Architecture,
) -> Result<Vec<(usize, ActivationSite, ActivationSpec)>> {
    let layers = architecture.layers.len();
    check(rules, architecture)?;
    let mut sites = vec![];
    for layer in 0..layers {
        for site in architecture.sites(layer) {
            let (kind, default) = if site.is_cache() {
                ("cache", ActivationSpec::F16)
            } else {
                ("activation", ActivationSpec::F32)
            };
            let whole = site.name();
            let wanted = Site { kind, layer, name: site_name(site), whole: &whole };
            let rule = strongest(rules, layers, &wanted, || site.name_in(layer))?;
            let quantizer = rule.and_then(Rule::activation).unwrap_or(default);
            sites.push((layer, site, quantizer));
        }
    }
    Ok(sites)
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
        let layers = architecture.layers.len();
        check(rules, architecture)?;
        let mut by_name = BTreeMap::new();
        for spec in architecture.tensors() {
            let site = match (spec.role, Linear::parse(&spec.name)) {
                (Role::Linear(_), Some((layer, linear))) => {
                    let (name, whole) = (linear.short_name(), linear.name());
                    let wanted = Site { kind: "weight", layer, name, whole: &whole };
                    let rule = strongest(rules, layers, &wanted, || spec.name.clone())?;
                    rule.and_then(Rule::weight_site).copied()
                }
                _ => whole(rules, spec.role).map(WeightSite::absmax),
            };
            if let Some(site) = site {
                by_name.insert(spec.name, site);
            }
        }
        Ok(Self { by_name })
    }

    /// The quantizer of a tensor; None where it stays in floating point.
    pub(crate) fn of(&self, spec: &TensorSpec) -> Option<&WeightSite> {
        self.by_name.get(&spec.name)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&WeightSite> {
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

/// Refuses rules that are wrong by themselves: two for a kind of site that can have only one,
/// patterns that match nothing in the model, parts that cannot be combined.
fn check(rules: &[Rule], architecture: &Architecture) -> Result<()> {
    // The patterns of two rules for all weights are compared with every weight.
    let whole = |rule: &Rule| {
        !matches!(rule, Rule::Weight { .. }) && rule.pattern().is_none_or(|p| p.fields() == 0)
    };
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("rules[{i}]");
        let same = |earlier: &Rule| earlier.kind() == rule.kind() && whole(earlier);
        if whole(rule)
            && let Some(first) = rules[..i].iter().position(same)
        {
            let kind = rule.kind();
            let reason =
                format!("rules[{first}] already gives the {kind} its quantizer; leave one out");
            return Err(Error::config(path, reason));
        }
        if let Some(pattern) = rule.pattern() {
            pattern.check(&path, architecture)?;
        }
        if let Some(site) = rule.weight_site() {
            site.check(&format!("{path}.quantizer"))?;
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

/// The most specific rule for a site of a model of `layers` layers, which `name` names in full.
fn strongest<'a>(
    rules: &'a [Rule],
    layers: usize,
    site: &Site,
    name: impl Fn() -> String,
) -> Result<Option<&'a Rule>> {
    let found: Vec<Option<usize>> =
        rules.iter().map(|rule| rule.specificity(site, layers)).collect();
    let most = found.iter().max().copied().flatten();
    let mut strongest =
        rules.iter().enumerate().filter(|(i, _)| most.is_some() && found[*i] == most);
    let Some((first, rule)) = strongest.next() else { return Ok(None) };
    if let Some((other, rule)) = strongest.find(|(_, other)| !other.gives_the_same(rule)) {
        let names = rule.pattern().map_or("sites", |pattern| pattern.field);
        return Err(Error::config(
            format!("rules[{other}]"),
            format!(
                "it and rules[{first}] match {} with equal right; name layers or {names} in one of \
                 them",
                name()
            ),
        ));
    }
    Ok(Some(rule))
}
