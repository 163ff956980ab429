//! Where activations and the cache may be quantized, and which sites can be folded into what
//! computes them.

use super::tensors::{Linear, Norm};
use std::borrow::Cow;

/// Where a layer may have an activation or cache quantizer; linears that read the same input share
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActivationSite {
    /// Input of q, k and v: the output of the norm before the attention.
    AttnIn,
    /// Input of o: the outputs of all heads.
    OIn,
    /// Input of gate and up: the output of the norm before the feed-forward.
    FfnIn,
    /// Input of down: `act(gate) * up`.
    DownIn,
    /// Keys after the rotation, as they are cached.
    KCache,
    /// Values, as they are cached.
    VCache,
    /// Input of gate and up of one expert: the rows that the router sends it.
    ExpertIn(u16),
    /// Input of down of one expert.
    ExpertDownIn(u16),
    /// Input of gate and up of the expert that all tokens use.
    SharedIn,
    /// Input of down of the expert that all tokens use.
    SharedDownIn,
    /// Input of the gate of the per-layer input.
    PerLayerIn,
    /// Input of the projection of the per-layer input.
    PerLayerProjectionIn,
}

/// A site of which every channel may be made larger in its consumers (the linears that read it) and
/// smaller in its producer, the layer computing what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The site whose channels are scaled.
    pub site: ActivationSite,
    /// What is scaled the other way.
    pub producer: Producer,
}

/// What computes the channels of a site, so that a factor of theirs can be merged into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// The weight of a norm, and its bias.
    Norm(Norm),
    /// The rows of a linear, and its bias.
    Linear(Linear),
}

impl ActivationSite {
    /// The sites of a layer with one feed-forward for all tokens: inputs of linears in the order of
    /// the forward, then the cache. [`super::Architecture::sites`] knows those of any layer.
    pub const USUAL: [ActivationSite; 6] = [
        ActivationSite::AttnIn,
        ActivationSite::OIn,
        ActivationSite::FfnIn,
        ActivationSite::DownIn,
        ActivationSite::KCache,
        ActivationSite::VCache,
    ];

    /// Name in recipes and files: `attn_in`, `o_in`, `ffn_in`, `down_in`, `k_cache` or `v_cache`;
    /// `experts.3.ffn_in` and the like where there are several of a kind.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            ActivationSite::AttnIn => "attn_in",
            ActivationSite::OIn => "o_in",
            ActivationSite::FfnIn => "ffn_in",
            ActivationSite::DownIn => "down_in",
            ActivationSite::KCache => "k_cache",
            ActivationSite::VCache => "v_cache",
            ActivationSite::ExpertIn(e) => return format!("experts.{e}.ffn_in").into(),
            ActivationSite::ExpertDownIn(e) => return format!("experts.{e}.down_in").into(),
            ActivationSite::SharedIn => "shared_expert.ffn_in",
            ActivationSite::SharedDownIn => "shared_expert.down_in",
            ActivationSite::PerLayerIn => "per_layer_in",
            ActivationSite::PerLayerProjectionIn => "per_layer_projection_in",
        })
    }

    /// Name without the expert: what sites of the same kind have in common.
    pub fn short_name(self) -> &'static str {
        match self {
            ActivationSite::AttnIn => "attn_in",
            ActivationSite::OIn => "o_in",
            ActivationSite::FfnIn | ActivationSite::ExpertIn(_) | ActivationSite::SharedIn => {
                "ffn_in"
            }
            ActivationSite::DownIn
            | ActivationSite::ExpertDownIn(_)
            | ActivationSite::SharedDownIn => "down_in",
            ActivationSite::KCache => "k_cache",
            ActivationSite::VCache => "v_cache",
            ActivationSite::PerLayerIn => "per_layer_in",
            ActivationSite::PerLayerProjectionIn => "per_layer_projection_in",
        }
    }

    /// Whether keys or values are kept here; at the other sites linears read.
    pub const fn is_cache(self) -> bool {
        matches!(self, ActivationSite::KCache | ActivationSite::VCache)
    }

    /// A number of its own among the sites of a layer, the same in every version.
    pub const fn number(self) -> u64 {
        match self {
            ActivationSite::AttnIn => 0,
            ActivationSite::OIn => 1,
            ActivationSite::FfnIn => 2,
            ActivationSite::DownIn => 3,
            ActivationSite::KCache => 4,
            ActivationSite::VCache => 5,
            ActivationSite::SharedIn => 6,
            ActivationSite::SharedDownIn => 7,
            ActivationSite::PerLayerIn => 8,
            ActivationSite::PerLayerProjectionIn => 9,
            ActivationSite::ExpertIn(e) => 16 + 2 * e as u64,
            ActivationSite::ExpertDownIn(e) => 17 + 2 * e as u64,
        }
    }

    /// `model.layers.<layer>.<site>`.
    pub fn name_in(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.name())
    }

    /// The layer and site of [`Self::name_in`]. None: it is no such name.
    pub fn parse(name: &str) -> Option<(usize, ActivationSite)> {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let site = match rest.strip_prefix("experts.").and_then(|rest| rest.split_once('.')) {
            Some((e, "ffn_in")) => ActivationSite::ExpertIn(e.parse().ok()?),
            Some((e, "down_in")) => ActivationSite::ExpertDownIn(e.parse().ok()?),
            Some(_) => return None,
            None => Self::SINGLE.into_iter().find(|known| known.name() == rest)?,
        };
        let layer = layer.parse().ok()?;
        (site.name_in(layer) == name).then_some((layer, site))
    }

    /// Those of which a layer has at most one.
    const SINGLE: [ActivationSite; 10] = [
        ActivationSite::AttnIn,
        ActivationSite::OIn,
        ActivationSite::FfnIn,
        ActivationSite::DownIn,
        ActivationSite::KCache,
        ActivationSite::VCache,
        ActivationSite::SharedIn,
        ActivationSite::SharedDownIn,
        ActivationSite::PerLayerIn,
        ActivationSite::PerLayerProjectionIn,
    ];

    /// Name of the step parameter of a static quantizer here: `model.layers.<layer>.<site>.step`.
    pub fn static_scale_name(self, layer: usize) -> String {
        format!("{}.step", self.name_in(layer))
    }
}
