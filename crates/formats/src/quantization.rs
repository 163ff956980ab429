//! How a model is run, and the words in which files say it. The words are the file's own, so that
//! renaming a field of the library leaves every file as it is.

use crate::architecture::{ActivationSite, Architecture};
use halfstep_kernels::ActivationSpec;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::collections::BTreeMap;

/// Everything but the weights' own specs that the forward of a quantized model needs. Those stand
/// in each [`QuantTensor`](halfstep_kernels::QuantTensor).
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// `gguf:q4_0`, `gguf:q4_1`, `gguf:q8_0`, `gguf:tq2_0`, `halfstep`.
    pub target: String,
    /// Before every packed linear of a layer, but for the exceptions.
    pub activation: ActivationSpec,
    /// Before the head, if the head is packed.
    pub head_activation: ActivationSpec,
    /// Keys, after RoPE, and values, but for the exceptions.
    pub cache: ActivationSpec,
    /// Sites whose quantizer is another one, in the order of layers and sites.
    pub exceptions: Vec<(usize, ActivationSite, ActivationSpec)>,
    /// Scales of static sites by [`crate::architecture::ActivationSite::static_scale_name`], as
    /// stored.
    pub static_scales: BTreeMap<String, f32>,
}

impl Default for Quantization {
    /// Only weights are quantized; keys and values are f16.
    fn default() -> Self {
        Self {
            target: String::new(),
            activation: ActivationSpec::F32,
            head_activation: ActivationSpec::F32,
            cache: ActivationSpec::F16,
            exceptions: vec![],
            static_scales: BTreeMap::new(),
        }
    }
}

impl Quantization {
    /// Nothing is quantized, keys and values included.
    pub fn float() -> Self {
        Self { cache: ActivationSpec::F32, ..Self::default() }
    }

    /// The same with these quantizers of sites. The most frequent ones become `activation` and
    /// `cache`, so that one quantizer for all of them has no exceptions.
    /// `sites` are in the order of layers and sites.
    pub fn with_sites(self, sites: Vec<(usize, ActivationSite, ActivationSpec)>) -> Self {
        let most = |cache: bool, default: ActivationSpec| {
            let of = || {
                let of = sites.iter().filter(|(_, site, _)| site.is_cache() == cache);
                of.map(|&(_, _, spec)| spec)
            };
            let count = |spec: &ActivationSpec| of().filter(|other| other == spec).count();
            // The first of several that are as frequent.
            of().rev().max_by_key(count).unwrap_or(default)
        };
        let (activation, cache) = (most(false, self.activation), most(true, self.cache));
        let usual = |site: ActivationSite| if site.is_cache() { cache } else { activation };
        let mut exceptions = sites;
        exceptions.retain(|&(_, site, spec)| spec != usual(site));
        exceptions.sort_unstable_by_key(|&(layer, site, _)| (layer, site));
        Self { activation, cache, exceptions, ..self }
    }

    /// The quantizer of a site.
    pub fn at(&self, layer: usize, site: ActivationSite) -> ActivationSpec {
        let usual = if site.is_cache() { self.cache } else { self.activation };
        let own = self.exceptions.iter().find(|&&(l, s, _)| (l, s) == (layer, site));
        own.map_or(usual, |&(_, _, spec)| spec)
    }

    /// Refuses what no runtime computes, and exceptions that are no sites of the architecture.
    ///
    /// Errors: which site, what is wrong, and what would work.
    pub fn check(&self, architecture: &Architecture) -> Result<(), String> {
        let of = |what: &'static str| move |reason: String| format!("{what}: {reason}");
        self.activation.check_input().map_err(of("activations"))?;
        self.head_activation.check_input().map_err(of("head activations"))?;
        self.cache.check_cache().map_err(of("cache"))?;
        if self.head_activation.is_static() {
            return Err("a static quantizer at the head, which is no site".into());
        }
        let layers = architecture.layers.len();
        for &(layer, site, spec) in &self.exceptions {
            let name = site.name_in(layer);
            if layer >= layers {
                return Err(format!("{name}: the model has {layers} layers"));
            }
            if !architecture.sites(layer).contains(&site) {
                return Err(format!("{name}: the layer has no such site"));
            }
            let checked = if site.is_cache() { spec.check_cache() } else { spec.check_input() };
            checked.map_err(|reason| format!("{name}: {reason}"))?;
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    target: String,
    activation: StoredActivation,
    head_activation: StoredActivation,
    cache: StoredCache,
    /// Inputs of linears that differ from `activation`, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    activations: BTreeMap<String, StoredActivation>,
    /// Keys or values that differ from `cache`, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    caches: BTreeMap<String, StoredCache>,
    #[serde(rename = "staticSteps", default, skip_serializing_if = "BTreeMap::is_empty")]
    static_scales: BTreeMap<String, f32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
enum StoredActivation {
    None,
    DynamicToken { bits: u8 },
    DynamicBlock32,
    DynamicBlock256,
    Static { bits: u8 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
enum StoredCache {
    F32,
    F16,
    DynamicHead { bits: u8 },
    Q8_0,
    Static { bits: u8 },
}

impl From<StoredActivation> for ActivationSpec {
    fn from(stored: StoredActivation) -> Self {
        match stored {
            StoredActivation::None => Self::F32,
            StoredActivation::DynamicToken { bits } => Self::token(bits),
            StoredActivation::DynamicBlock32 => Self::BLOCK_32,
            StoredActivation::DynamicBlock256 => Self::BLOCK_256,
            StoredActivation::Static { bits } => Self::of_site(bits),
        }
    }
}

impl From<StoredCache> for ActivationSpec {
    fn from(stored: StoredCache) -> Self {
        match stored {
            StoredCache::F32 => Self::F32,
            StoredCache::F16 => Self::F16,
            StoredCache::DynamicHead { bits } => Self::head(bits),
            StoredCache::Q8_0 => Self::BLOCK_32,
            StoredCache::Static { bits } => Self::of_site(bits),
        }
    }
}

/// The stored words for the input of a linear. None: there are none.
fn stored_activation(spec: ActivationSpec) -> Option<StoredActivation> {
    let bits = spec.bits().unwrap_or(2);
    Some(match spec {
        ActivationSpec::F32 => StoredActivation::None,
        ActivationSpec::BLOCK_32 => StoredActivation::DynamicBlock32,
        ActivationSpec::BLOCK_256 => StoredActivation::DynamicBlock256,
        _ if spec == ActivationSpec::token(bits) => StoredActivation::DynamicToken { bits },
        _ if spec == ActivationSpec::of_site(bits) => StoredActivation::Static { bits },
        _ => return None,
    })
}

/// The stored words for keys and values. None: there are none.
fn stored_cache(spec: ActivationSpec) -> Option<StoredCache> {
    let bits = spec.bits().unwrap_or(2);
    Some(match spec {
        ActivationSpec::F32 => StoredCache::F32,
        ActivationSpec::F16 => StoredCache::F16,
        ActivationSpec::BLOCK_32 => StoredCache::Q8_0,
        _ if spec == ActivationSpec::head(bits) => StoredCache::DynamicHead { bits },
        _ if spec == ActivationSpec::of_site(bits) => StoredCache::Static { bits },
        _ => return None,
    })
}

impl Serialize for Quantization {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let none = |what: &str, spec: ActivationSpec| {
            ser::Error::custom(format!("files have no words for {what} of {}", spec.name()))
        };
        let activation = |what: &str, spec| stored_activation(spec).ok_or_else(|| none(what, spec));
        let cache = |what: &str, spec| stored_cache(spec).ok_or_else(|| none(what, spec));
        let (mut activations, mut caches) = (BTreeMap::new(), BTreeMap::new());
        for &(layer, site, spec) in &self.exceptions {
            let name = site.name_in(layer);
            if site.is_cache() {
                caches.insert(name.clone(), cache(&name, spec)?);
            } else {
                activations.insert(name.clone(), activation(&name, spec)?);
            }
        }
        Stored {
            target: self.target.clone(),
            activation: activation("activations", self.activation)?,
            head_activation: activation("head activations", self.head_activation)?,
            cache: cache("a cache", self.cache)?,
            activations,
            caches,
            static_scales: self.static_scales.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Quantization {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let site = |name: &str, is_cache: bool| {
            ActivationSite::parse(name)
                .filter(|(_, site)| site.is_cache() == is_cache)
                .ok_or_else(|| de::Error::custom(format!("{name} is no site of this kind")))
        };
        let mut exceptions = vec![];
        for (name, spec) in stored.activations {
            let (layer, site) = site(&name, false)?;
            exceptions.push((layer, site, spec.into()));
        }
        for (name, spec) in stored.caches {
            let (layer, site) = site(&name, true)?;
            exceptions.push((layer, site, spec.into()));
        }
        exceptions.sort_unstable_by_key(|&(layer, site, _)| (layer, site));
        Ok(Self {
            target: stored.target,
            activation: stored.activation.into(),
            head_activation: stored.head_activation.into(),
            cache: stored.cache.into(),
            exceptions,
            static_scales: stored.static_scales,
        })
    }
}
