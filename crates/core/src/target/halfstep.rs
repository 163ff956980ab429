//! `halfstep`: our own safetensors layout (docs/format.md), for any grid of 2 to 8 bits.

use super::Target;
use super::request::{Request, TargetSites, ZeroPoints, whole_bits};
use crate::error::{Error, Result};
use halfstep_formats::write::FileFormat;
use halfstep_kernels::{ActivationSpec, Granularity, Int, QuantSpec, ScaleCodec};

pub(super) struct Halfstep;

pub(super) const TARGET: Halfstep = Halfstep;

fn held(spec: QuantSpec) -> std::result::Result<(), String> {
    if spec.row_table().is_some() {
        return Err("no method finds a table for every row; one table of levels for all".into());
    }
    spec.check().map_err(|reason| format!("its grids have 2 to 8 bits: {reason}"))
}

impl Target for Halfstep {
    fn file_format(&self) -> FileFormat {
        FileFormat::Halfstep
    }

    fn accepts(&self, request: &Request) -> bool {
        complete(request).is_ok()
    }

    fn complete(&self, request: &Request) -> Result<TargetSites> {
        complete(request)
    }

    fn holds_weight(&self, quantizer: QuantSpec) -> std::result::Result<(), String> {
        held(quantizer)
    }

    fn holds_table(&self, quantizer: QuantSpec) -> std::result::Result<(), String> {
        held(quantizer)
    }

    fn holds_activation(&self, spec: ActivationSpec) -> std::result::Result<(), String> {
        spec.check_input()
    }

    fn holds_head_activation(&self, spec: ActivationSpec) -> std::result::Result<(), String> {
        if spec.is_static() {
            return Err("the head has no stored scale for its input".into());
        }
        spec.check_input()
    }

    fn holds_cache(&self, spec: ActivationSpec) -> std::result::Result<(), String> {
        spec.check_cache()
    }

    fn holds_caches_by_layer(&self) -> bool {
        true
    }

    fn holds_low_rank(&self) -> bool {
        true
    }

    fn holds_transforms(&self) -> bool {
        true
    }

    fn client_flags(&self, _keys: ActivationSpec, _values: ActivationSpec) -> Vec<String> {
        vec![]
    }
}

/// The quantizers of a request; 4 bits and a scale per channel if neither it nor its recipe
/// decides.
fn complete(request: &Request) -> Result<TargetSites> {
    let affine = request.zero_points != ZeroPoints::No;
    let bits = whole_bits("weights", request.weights, 2, 8)?
        .unwrap_or(request.default_weights.unwrap_or(4));
    let group_size = request.group_size.or(request.default_group_size).unwrap_or(0);
    let granularity = match group_size {
        0 => Granularity::Channel,
        n => Granularity::Group(n),
    };
    let compact = affine || granularity != Granularity::Channel;
    let weights = QuantSpec::int(
        if affine { Int::unsigned(bits) } else { Int::symmetric(bits) },
        granularity,
        if compact { ScaleCodec::F16 } else { ScaleCodec::F32 },
    );
    let whole_blocks = matches!(granularity, Granularity::Group(n) if n.is_multiple_of(32));
    let activation = match whole_bits("activations", request.activations, 2, 32)?.unwrap_or(8) {
        16 | 32 if !request.static_activations => ActivationSpec::F32,
        bits @ 2..=8 if request.static_activations => ActivationSpec::of_site(bits),
        8 if whole_blocks => ActivationSpec::BLOCK_32,
        bits @ 2..=8 => ActivationSpec::token(bits),
        bits if request.static_activations => {
            return Err(Error::config(
                "activations",
                format!("must be 2 to 8 bits if scales are static, got {bits}"),
            ));
        }
        bits => {
            return Err(Error::config(
                "activations",
                format!("must be 2 to 8 bits, or 16 for floating point, got {bits}"),
            ));
        }
    };
    let cache = match whole_bits("cache", request.cache, 2, 32)?.unwrap_or(16) {
        32 => ActivationSpec::F32,
        16 => ActivationSpec::F16,
        bits @ 2..=8 if request.static_activations => ActivationSpec::of_site(bits),
        bits @ 2..=8 => ActivationSpec::head(bits),
        bits => {
            return Err(Error::config(
                "cache",
                format!("must be 2 to 8, 16 or 32 bits, got {bits}"),
            ));
        }
    };
    if request.static_activations && !request.learned {
        return Err(Error::config(
            "staticActivations",
            "static scales need a recipe that calibrates them: silq",
        ));
    }
    if !compact {
        return Ok(TargetSites {
            weights,
            embedding: None,
            head: None,
            activation,
            head_activation: ActivationSpec::F32,
            cache,
        });
    }
    // A grid with a scale per group is chosen for a small file, in which a float embedding would
    // take most of the bytes.
    let head_activation =
        if activation == ActivationSpec::F32 { activation } else { ActivationSpec::BLOCK_32 };
    Ok(TargetSites {
        weights,
        embedding: Some(QuantSpec::Q8_0),
        head: Some(QuantSpec::Q8_0),
        activation,
        head_activation,
        cache,
    })
}
