//! Common parts of the targets of llama.cpp: one ggml type for the weights of layers, Q8_0 for
//! embedding and head, activations quantized dynamically in blocks, and a cache type that is a flag
//! of the client.

use super::request::{Request, TargetSites, ZeroPoints, whole_bits};
use super::{Target, TargetId, targets_that_hold};
use crate::error::{Error, Result};
use halfstep_formats::write::FileFormat;
use halfstep_kernels::{ActivationSpec, Granularity, QuantSpec};

/// A target that differs from its siblings in the type of its weights.
pub(super) struct Ggml {
    pub(crate) id: TargetId,
    /// The grid of a request that names none.
    pub(crate) weights: QuantSpec,
    /// Types that its runtime multiplies with the same activations, so that one file may mix them.
    pub(crate) mixes: &'static [QuantSpec],
    pub(crate) activation: ActivationSpec,
}

/// How llama.cpp quantizes the input of the head.
const HEAD_ACTIVATION: ActivationSpec = ActivationSpec::BLOCK_32;

impl Target for Ggml {
    fn file_format(&self) -> FileFormat {
        FileFormat::Gguf
    }

    fn accepts(&self, request: &Request) -> bool {
        self.conflict(request).is_ok_and(|conflict| conflict.is_none())
    }

    fn complete(&self, request: &Request) -> Result<TargetSites> {
        if let Some((grid, reason)) = self.conflict(request)? {
            let (target, targets) = (self.id.name().into(), targets_that_hold(request));
            return Err(Error::Target { target, grid, reason, targets });
        }
        let cache = match whole_bits("cache", request.cache, 2, 32)? {
            Some(8) => ActivationSpec::BLOCK_32,
            Some(32) => ActivationSpec::F32,
            _ => ActivationSpec::F16,
        };
        let table = Some(QuantSpec::Q8_0);
        Ok(TargetSites {
            weights: self.weights,
            embedding: table,
            head: table,
            activation: self.activation,
            head_activation: HEAD_ACTIVATION,
            cache,
        })
    }

    fn holds_weight(&self, quantizer: QuantSpec) -> std::result::Result<(), String> {
        if self.mixes.contains(&quantizer) {
            return Ok(());
        }
        let held: Vec<String> = self.mixes.iter().map(describe).collect();
        Err(format!("its weights are {}", held.join(", or ")))
    }

    fn holds_table(&self, quantizer: QuantSpec) -> std::result::Result<(), String> {
        if quantizer == QuantSpec::Q8_0 {
            return Ok(());
        }
        Err(format!("its embedding and head are {}", describe(&QuantSpec::Q8_0)))
    }

    fn holds_activation(&self, quantizer: ActivationSpec) -> std::result::Result<(), String> {
        same_input(quantizer, self.activation)
    }

    fn holds_head_activation(&self, quantizer: ActivationSpec) -> std::result::Result<(), String> {
        same_input(quantizer, HEAD_ACTIVATION)
    }

    fn holds_caches_by_layer(&self) -> bool {
        false
    }

    fn holds_cache(&self, quantizer: ActivationSpec) -> std::result::Result<(), String> {
        match quantizer {
            ActivationSpec::F32 | ActivationSpec::F16 | ActivationSpec::BLOCK_32 => Ok(()),
            _ => Err("the cache of its runtime is f32, f16 or q8_0".into()),
        }
    }

    fn holds_low_rank(&self) -> bool {
        false
    }

    fn holds_transforms(&self) -> bool {
        false
    }

    fn client_flags(&self, keys: ActivationSpec, values: ActivationSpec) -> Vec<String> {
        let flag = |(tensor, spec)| {
            let kind = match spec {
                ActivationSpec::BLOCK_32 => "q8_0",
                ActivationSpec::F32 => "f32",
                _ => return None,
            };
            Some(format!("--cache-type-{tensor} {kind}"))
        };
        [("k", keys), ("v", values)].into_iter().filter_map(flag).collect()
    }
}

fn same_input(quantizer: ActivationSpec, held: ActivationSpec) -> std::result::Result<(), String> {
    if quantizer == held {
        return Ok(());
    }
    Err(format!("its runtime quantizes every input to 8 bits in blocks: {}", held.name()))
}

impl Ggml {
    /// Returns the requested grid that the target cannot hold, if there is one, and why.
    fn conflict(&self, request: &Request) -> Result<Option<(String, String)>> {
        let (held, block) = (self.weights.bits(), self.weights.granularity);
        if let Some(bits) = whole_bits("weights", request.weights, 2, 8)?
            && bits != held
        {
            let reason = format!("its linear layers are {held} bit");
            return Ok(Some((format!("{bits}-bit weights"), reason)));
        }
        if let Some(group) = request.group_size
            && Granularity::Group(group) != block
        {
            let grid = if group == 0 {
                "one scale per channel".into()
            } else {
                format!("groups of {group}")
            };
            let reason = format!("its blocks have {} columns", block.group_size(usize::MAX));
            return Ok(Some((grid, reason)));
        }
        if let Some(bits) = whole_bits("activations", request.activations, 2, 32)?
            && bits != 8
        {
            let reason = "its runtime quantizes every input to 8 bits in blocks".into();
            return Ok(Some((format!("{bits}-bit activations"), reason)));
        }
        if request.zero_points == ZeroPoints::Required && !self.weights.has_zero_point() {
            return Ok(Some(("zero points".into(), "its linear layers are symmetric".into())));
        }
        if request.static_activations {
            let reason = "its runtime quantizes activations dynamically".into();
            return Ok(Some(("static activation scales".into(), reason)));
        }
        if let Some(bits) = whole_bits("cache", request.cache, 2, 32)?
            && ![8, 16, 32].contains(&bits)
        {
            let reason = "the cache of its runtime is f32, f16 or q8_0".into();
            return Ok(Some((format!("a {bits}-bit cache"), reason)));
        }
        Ok(None)
    }
}

/// A quantizer for a message.
fn describe(quantizer: &QuantSpec) -> String {
    let (bits, group) = (quantizer.bits(), quantizer.granularity.group_size(usize::MAX));
    let symmetric = format!("{bits} bit in blocks of {group}");
    if !quantizer.has_zero_point() {
        return symmetric;
    }
    let scale = format!("{:?}", quantizer.scale).to_lowercase();
    format!("{symmetric} with zero points and {scale} scales")
}
