//! Targets: where a model will run and which quantizers it may have there. Training, packing and
//! export all read them.
//!
//! A target is one file here and one line in the list below. The list makes [`TargetId`], its
//! TypeScript type and its names.

mod ggml;
mod request;

pub(crate) use request::{Request, TargetSites, ZeroPoints};

use crate::error::Result;
use halfstep_formats::write::FileFormat;
use halfstep_kernels::{ActivationSpec, QuantSpec};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A place where a model can run.
pub(crate) trait Target: Sync {
    /// The container that its models are written in.
    fn file_format(&self) -> FileFormat;

    /// Whether [`Self::complete`] would succeed.
    fn accepts(&self, request: &Request) -> bool;

    /// Returns the quantizer of every site: the request, completed by what the target decides.
    ///
    /// Errors: `Target`, it cannot hold what is requested; `Config`, no target can.
    fn complete(&self, request: &Request) -> Result<TargetSites>;

    /// Whether a weight of a layer may have this quantizer; Err states what it may have.
    fn holds_weight(&self, quantizer: QuantSpec) -> std::result::Result<(), String>;

    /// Whether embedding and head may have this quantizer; Err states what they may have.
    fn holds_table(&self, quantizer: QuantSpec) -> std::result::Result<(), String>;

    /// Whether inputs of linears may have this quantizer; Err states what they may have.
    fn holds_activation(&self, quantizer: ActivationSpec) -> std::result::Result<(), String>;

    /// Whether the input of the head may have this quantizer; Err states what it may have.
    fn holds_head_activation(&self, quantizer: ActivationSpec) -> std::result::Result<(), String>;

    /// Whether its runtime can store keys and values so; Err states how it can.
    fn holds_cache(&self, quantizer: ActivationSpec) -> std::result::Result<(), String>;

    /// Whether the cache may differ between layers.
    fn holds_caches_by_layer(&self) -> bool;

    /// Whether its files store low-rank factors.
    fn holds_low_rank(&self) -> bool;

    /// Whether its files store what transforms do to the input of a linear.
    fn holds_transforms(&self) -> bool;

    /// Returns the flags that a client needs to run a model with these keys and values in its
    /// cache, which is not in the file.
    fn client_flags(&self, keys: ActivationSpec, values: ActivationSpec) -> Vec<String>;
}

macro_rules! targets {
    ($($(#[$doc:meta])* $module:ident $variant:ident = $name:literal),* $(,)?) => {
        $(mod $module;)*

        /// Where a model will run, which decides the grids and the file it may have.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
        pub enum TargetId {
            $($(#[$doc])* #[serde(rename = $name)] $variant),*
        }

        impl TargetId {
            /// Every target, in the order of the list.
            pub const ALL: &[TargetId] = &[$(TargetId::$variant),*];

            /// The name that users write: `gguf:q4_0`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(TargetId::$variant => $name),*
                }
            }

            pub(crate) fn target(self) -> &'static dyn Target {
                match self {
                    $(TargetId::$variant => &$module::TARGET),*
                }
            }
        }
    };
}

targets! {
    /// llama.cpp: linear layers Q4_0, embedding and head Q8_0, 8-bit activations in blocks of 32.
    #[default]
    q4_0 GgufQ4_0 = "gguf:q4_0",
    /// llama.cpp: linear layers Q4_1, whose minimum holds a zero point, embedding and head Q8_0,
    /// 8-bit activations in blocks of 32.
    q4_1 GgufQ4_1 = "gguf:q4_1",
    /// llama.cpp: everything Q8_0.
    q8_0 GgufQ8_0 = "gguf:q8_0",
    /// llama.cpp: linear layers ternary (TQ2_0), embedding and head Q8_0, 8-bit activations in
    /// blocks of 256.
    tq2_0 GgufTQ2_0 = "gguf:tq2_0",
    /// Our own safetensors layout (docs/format.md): any grid.
    halfstep Halfstep = "halfstep",
}

impl TargetId {
    pub(crate) fn file_format(self) -> FileFormat {
        self.target().file_format()
    }

    pub(crate) fn sites(self, request: &Request) -> Result<TargetSites> {
        self.target().complete(request)
    }
}

/// Names of targets for a message.
pub(crate) fn names<'a>(targets: impl Iterator<Item = &'a TargetId>) -> String {
    let names: Vec<&str> = targets.map(|target| target.name()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Names of the targets that can hold `request`.
fn targets_that_hold(request: &Request) -> String {
    names(TargetId::ALL.iter().filter(|target| target.target().accepts(request)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

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
            (QuantSpec::TQ2_0, ActivationSpec::BLOCK_256)
        );
        assert_eq!(
            (sites.head, sites.head_activation),
            (Some(QuantSpec::Q8_0), ActivationSpec::BLOCK_32)
        );
    }

    #[test]
    fn half_bits_are_refused_by_field() {
        for target in TargetId::ALL.iter().copied() {
            match target.sites(&Request { weights: Some(4.5), ..Request::default() }) {
                Err(Error::Config { field, .. }) => assert_eq!(field, "weights"),
                other => panic!("{other:?}"),
            }
        }
    }
}
