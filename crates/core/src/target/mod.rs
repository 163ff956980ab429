//! Where a model will run, and what is legal there: one table ([`TargetId::sites`] over
//! [`Target`]s), read by training, packing and export alike.

use crate::error::{Error, Result};
use crate::recipe::{GradientScale, RangeLearning, Recipe, Stage, StartRule, WeightSite};
use halfstep_formats::write::FileFormat;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{
    ActivationQuantizer, CacheQuantizer, IntGrid, Partition, ScaleCodec, WeightQuantizer,
};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub enum TargetId {
    /// llama.cpp: block linears Q4_0, embedding and head Q8_0, 8-bit activations in blocks of 32.
    #[default]
    #[serde(rename = "gguf:q4_0")]
    GgufQ4_0,
    /// llama.cpp: everything Q8_0.
    #[serde(rename = "gguf:q8_0")]
    GgufQ8_0,
    /// llama.cpp: block linears ternary (TQ2_0), embedding and head Q8_0, 8-bit activations in
    /// blocks of 256.
    #[serde(rename = "gguf:tq2_0")]
    GgufTQ2_0,
    /// Our own safetensors layout (docs/format.md): any grid.
    #[serde(rename = "halfstep")]
    Halfstep,
}

/// What a recipe asks of the sites; None leaves the choice to the target.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub weights: Option<f64>,
    pub group_size: Option<usize>,
    pub activations: Option<f64>,
    pub cache: Option<f64>,
    pub static_activations: bool,
    /// The steps will be learned (signed symmetric grids only).
    pub learned: bool,
    /// A zero point per group.
    pub affine: bool,
}

impl Request {
    /// A zero point per group; None leaves the choice to the target.
    pub fn affine(
        weights: Option<f64>,
        group_size: Option<usize>,
        activations: Option<f64>,
        cache: Option<f64>,
    ) -> Self {
        Self { weights, group_size, activations, cache, affine: true, ..Self::default() }
    }
}

/// The quantizer at every site: what one row of the table says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sites {
    pub weights: WeightQuantizer,
    pub embedding: Option<WeightQuantizer>,
    pub head: Option<WeightQuantizer>,
    pub activation: ActivationQuantizer,
    pub head_activation: ActivationQuantizer,
    pub cache: CacheQuantizer,
}

impl Sites {
    pub fn recipe(
        &self,
        id: &str,
        target: TargetId,
        start: StartRule,
        ranges: RangeLearning,
        stages: Vec<Stage>,
    ) -> Recipe {
        Recipe {
            id: id.into(),
            target,
            weights: Some(WeightSite {
                quantizer: self.weights,
                start,
                ranges,
                edge: EdgeRule::Inside,
                gradient_scale: GradientScale::Layer,
            }),
            embedding: self.embedding,
            head: self.head,
            activation: self.activation,
            head_activation: self.head_activation,
            cache: self.cache,
            self_generated: None,
            stages,
        }
    }
}

impl TargetId {
    pub const ALL: [TargetId; 4] =
        [TargetId::GgufQ4_0, TargetId::GgufQ8_0, TargetId::GgufTQ2_0, TargetId::Halfstep];

    pub const fn name(self) -> &'static str {
        match self {
            TargetId::GgufQ4_0 => "gguf:q4_0",
            TargetId::GgufQ8_0 => "gguf:q8_0",
            TargetId::GgufTQ2_0 => "gguf:tq2_0",
            TargetId::Halfstep => "halfstep",
        }
    }

    pub const fn file_format(self) -> FileFormat {
        match self {
            TargetId::GgufQ4_0 | TargetId::GgufQ8_0 | TargetId::GgufTQ2_0 => FileFormat::Gguf,
            TargetId::Halfstep => FileFormat::Halfstep,
        }
    }

    /// The one grid that a ggml target's block linears have; None where the request decides.
    const fn ggml_weights(self) -> Option<WeightQuantizer> {
        match self {
            TargetId::GgufQ4_0 => Some(WeightQuantizer::Q4_0),
            TargetId::GgufQ8_0 => Some(WeightQuantizer::Q8_0),
            TargetId::GgufTQ2_0 => Some(WeightQuantizer::TQ2_0),
            TargetId::Halfstep => None,
        }
    }

    /// What stands at every site under this target.
    ///
    /// | site | gguf:q4_0 | gguf:q8_0 | gguf:tq2_0 | halfstep |
    /// |---|---|---|---|---|
    /// | block linears | Q4_0: g32, -8..7, f16 | Q8_0: g32, -127..127, f16 | TQ2_0: g256, -1..1, f16 | 2..8 bit; a scale per row f32, per group or with zero points f16 |
    /// | embedding, head | Q8_0, absmax/127 every step | the same | the same | float; Q8_0 beside groups or zero points |
    /// | norms | f32 | f32 | f32 | float |
    /// | activations | blocks of 32, 8 bit | the same | blocks of 256, 8 bit | 8 bit per token (blocks of 32 where weight groups are whole ones; or static), or float |
    /// | head's input | blocks of 32, 8 bit | the same | the same | float; blocks of 32 if the head is Q8_0 and activations are not float |
    /// | cache | f16, or Q8_0 (a flag of the client) | the same | the same | f16, f32, 4 or 8 bit per head (or static) |
    pub fn sites(self, request: &Request) -> Result<Sites> {
        match self.ggml_weights() {
            Some(weights) => self.ggml_sites(request, weights),
            None => halfstep_sites(request),
        }
    }

    fn ggml_sites(self, request: &Request, weights: WeightQuantizer) -> Result<Sites> {
        let (held, block) = (weights.grid.bits, weights.partition);
        let refuse = |grid: String, reason: String| {
            Err(Error::Target {
                target: self.name().into(),
                grid,
                reason,
                targets: targets_that_hold(request),
            })
        };
        if let Some(bits) = whole_bits("weights", request.weights, 2, 8)?
            && bits != held
        {
            return refuse(
                format!("{bits}-bit weights"),
                format!("its block linears are {held} bit"),
            );
        }
        if let Some(group) = request.group_size
            && Partition::Group(group) != block
        {
            let grid = if group == 0 {
                "one scale per channel".into()
            } else {
                format!("groups of {group}")
            };
            return refuse(
                grid,
                format!("its blocks have {} columns", block.group_size(usize::MAX)),
            );
        }
        if let Some(bits) = whole_bits("activations", request.activations, 2, 32)?
            && bits != 8
        {
            return refuse(
                format!("{bits}-bit activations"),
                "its runtime quantizes every input to 8 bit in blocks".into(),
            );
        }
        if request.affine {
            return refuse("zero points".into(), "its block linears are symmetric".into());
        }
        if request.static_activations {
            return refuse(
                "static activation steps".into(),
                "its runtime quantizes activations dynamically".into(),
            );
        }
        let cache = match whole_bits("cache", request.cache, 2, 32)? {
            None | Some(16) => CacheQuantizer::F16,
            Some(8) => CacheQuantizer::Q8_0,
            Some(32) => CacheQuantizer::F32,
            Some(bits) => {
                return refuse(
                    format!("a {bits}-bit cache"),
                    "its runtime keeps f32, f16 or q8_0".into(),
                );
            }
        };
        let (table, head_activation) =
            (Some(WeightQuantizer::Q8_0), ActivationQuantizer::DynamicBlock32);
        let activation = if weights == WeightQuantizer::TQ2_0 {
            ActivationQuantizer::DynamicBlock256
        } else {
            head_activation
        };
        Ok(Sites { weights, embedding: table, head: table, activation, head_activation, cache })
    }
}

fn halfstep_sites(request: &Request) -> Result<Sites> {
    let bits =
        whole_bits("weights", request.weights, 2, 8)?.unwrap_or(if request.affine { 2 } else { 4 });
    let partition = match request.group_size.unwrap_or(if request.affine { 64 } else { 0 }) {
        0 => Partition::Channel,
        n => Partition::Group(n),
    };
    let compact = request.affine || partition != Partition::Channel;
    let weights = WeightQuantizer {
        grid: if request.affine { IntGrid::affine(bits) } else { IntGrid::symmetric(bits) },
        partition,
        scale_codec: if compact { ScaleCodec::F16 } else { ScaleCodec::F32 },
    };
    let whole_blocks = matches!(partition, Partition::Group(n) if n.is_multiple_of(32));
    let activation = match whole_bits("activations", request.activations, 2, 32)?.unwrap_or(8) {
        16 | 32 if !request.static_activations => ActivationQuantizer::None,
        bits @ 2..=8 if request.static_activations => ActivationQuantizer::Static { bits },
        8 if whole_blocks => ActivationQuantizer::DynamicBlock32,
        bits @ 2..=8 => ActivationQuantizer::DynamicToken { bits },
        bits if request.static_activations => {
            return Err(Error::config(
                "activations",
                format!("{bits} bit has no static step to learn; 2 to 8"),
            ));
        }
        bits => {
            return Err(Error::config(
                "activations",
                format!(
                    "{bits} bit is not possible; 2 to 8, or 16 to leave them in floating point"
                ),
            ));
        }
    };
    let cache = match whole_bits("cache", request.cache, 2, 32)?.unwrap_or(16) {
        32 => CacheQuantizer::F32,
        16 => CacheQuantizer::F16,
        bits @ 2..=8 if request.static_activations => CacheQuantizer::Static { bits },
        bits @ 2..=8 => CacheQuantizer::DynamicHead { bits },
        bits => {
            return Err(Error::config(
                "cache",
                format!("{bits} bit is not possible; 2 to 8, 16 or 32"),
            ));
        }
    };
    if request.static_activations && !request.learned {
        return Err(Error::config(
            "staticActivations",
            "static steps need a recipe that calibrates them: silq",
        ));
    }
    if !compact {
        return Ok(Sites {
            weights,
            embedding: None,
            head: None,
            activation,
            head_activation: ActivationQuantizer::None,
            cache,
        });
    }
    // Who pays for a scale per group counts bytes, and beside few bits a float embedding would be
    // most of the file.
    let head_activation = if activation == ActivationQuantizer::None {
        activation
    } else {
        ActivationQuantizer::DynamicBlock32
    };
    Ok(Sites {
        weights,
        embedding: Some(WeightQuantizer::Q8_0),
        head: Some(WeightQuantizer::Q8_0),
        activation,
        head_activation,
        cache,
    })
}

/// Names of the targets that can hold `request`.
fn targets_that_hold(request: &Request) -> String {
    // `halfstep` holds any grid; the ggml targets exactly one, so asking them again could only
    // recurse.
    let fits = |t: TargetId| match t.ggml_weights() {
        None => halfstep_sites(request).is_ok(),
        Some(held) => {
            request.weights.is_none_or(|b| b == f64::from(held.grid.bits))
                && request.group_size.is_none_or(|g| Partition::Group(g) == held.partition)
                && request.activations.is_none_or(|b| b == 8.0)
                && !request.static_activations
                && !request.affine
                && request.cache.is_none_or(|b| [8.0, 16.0, 32.0].contains(&b))
        }
    };
    let names: Vec<&str> =
        TargetId::ALL.into_iter().filter(|t| fits(*t)).map(TargetId::name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// A number of bits as the user wrote it: a whole number from `low` to `high`.
fn whole_bits(field: &str, bits: Option<f64>, low: u8, high: u8) -> Result<Option<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_the_target_cannot_hold_is_refused_naming_one_that_can() {
        let request = Request { weights: Some(3.0), ..Request::default() };
        match TargetId::GgufQ4_0.sites(&request) {
            Err(Error::Target { targets, .. }) => assert_eq!(targets, "halfstep"),
            other => panic!("{other:?}"),
        }
        let request = Request { weights: Some(8.0), ..Request::default() };
        match TargetId::GgufQ4_0.sites(&request) {
            Err(Error::Target { targets, .. }) => assert_eq!(targets, "gguf:q8_0, halfstep"),
            other => panic!("{other:?}"),
        }
        let request = Request { group_size: Some(256), ..Request::default() };
        match TargetId::GgufQ4_0.sites(&request) {
            Err(Error::Target { reason, targets, .. }) => assert_eq!(
                (&*reason, &*targets),
                ("its blocks have 32 columns", "gguf:tq2_0, halfstep")
            ),
            other => panic!("{other:?}"),
        }
        match TargetId::GgufTQ2_0.sites(&Request { group_size: Some(32), ..Request::default() }) {
            Err(Error::Target { reason, .. }) => assert_eq!(reason, "its blocks have 256 columns"),
            other => panic!("{other:?}"),
        }
    }

    /// What ggml does at each site of a ternary file.
    #[test]
    fn the_ternary_target_has_blocks_of_256() {
        let sites = TargetId::GgufTQ2_0
            .sites(&Request { weights: Some(2.0), group_size: Some(256), ..Request::default() })
            .expect("its own grid");
        assert_eq!(
            (sites.weights, sites.activation),
            (WeightQuantizer::TQ2_0, ActivationQuantizer::DynamicBlock256)
        );
        assert_eq!(
            (sites.head, sites.head_activation),
            (Some(WeightQuantizer::Q8_0), ActivationQuantizer::DynamicBlock32)
        );
    }

    #[test]
    fn half_bits_are_refused_by_field() {
        for target in TargetId::ALL {
            match target.sites(&Request { weights: Some(4.5), ..Request::default() }) {
                Err(Error::Config { field, .. }) => assert_eq!(field, "weights"),
                other => panic!("{other:?}"),
            }
        }
    }
}
