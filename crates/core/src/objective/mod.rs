//! What is minimised: terms of a loss, each with the values that it reads (`Tap`) and a weight
//! that may change over the stage ([`Weight`]).
//!
//! A term is one file here and one line in the list below. The list makes the tagged value that a
//! recipe holds ([`TermConfig`]), its TypeScript type and its names.

pub(crate) mod head;
pub(crate) mod weight;

pub use weight::Weight;

use crate::device::Device;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Which values a term reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tap {
    /// The logits of the whole model, compared with the teacher's.
    Logits,
    /// The output of a layer or a linear, compared with its target.
    LayerOutput,
    /// The weights as the forward uses them.
    Weights,
}

/// The output of a layer or a linear for one sequence and its target, both `[T, D]`.
pub(crate) struct LayerOutput<'a, D: Device> {
    pub(crate) device: &'a D,
    pub(crate) y: &'a D::Buffer,
    pub(crate) target: &'a D::Buffer,
    /// Width of a row, D.
    pub(crate) width: usize,
    /// Number of sequences of the step; a term is its mean over them.
    pub(crate) sequences: usize,
}

impl<D: Device> Clone for LayerOutput<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Device> Copy for LayerOutput<'_, D> {}

/// A part of the loss.
trait Term {
    const TAP: Tap;

    /// Refuses options that cannot work.
    ///
    /// Errors: `Config`, naming the field.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The term of a sequence at [`Tap::LayerOutput`], times its weight; adds its gradient to `dy`.
    fn of_layer_output<D: Device>(
        &self,
        _at: LayerOutput<D>,
        _weight: f64,
        _dy: &mut D::Buffer,
    ) -> Result<f64> {
        Ok(0.0)
    }
}

macro_rules! terms {
    ($($(#[$doc:meta])* $module:ident $variant:ident($config:ident)),* $(,)?) => {
        $(pub mod $module;)*

        /// A part of the loss and its options.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
        #[serde(rename_all = "camelCase", tag = "kind")]
        pub enum TermConfig {
            $($(#[$doc])* $variant($module::$config)),*
        }

        impl TermConfig {
            /// Which values it reads.
            pub(crate) fn tap(&self) -> Tap {
                match self {
                    $(TermConfig::$variant(_) => <$module::$config as Term>::TAP),*
                }
            }

            /// Refuses options that cannot work.
            ///
            /// Errors: `Config`, naming the field.
            pub(crate) fn check(&self) -> Result<()> {
                match self {
                    $(TermConfig::$variant(term) => term.check()),*
                }
            }

            /// The term of a sequence where it looks at the output of a layer, times `weight`; adds
            /// its gradient to `dy`.
            pub(crate) fn of_layer_output<D: Device>(
                &self,
                at: LayerOutput<D>,
                weight: f64,
                dy: &mut D::Buffer,
            ) -> Result<f64> {
                match self {
                    $(TermConfig::$variant(term) => term.of_layer_output(at, weight, dy)),*
                }
            }
        }
    };
}

terms! {
    /// Divergence of the student's distribution of the next token from the teacher's.
    kl Kl(KlConfig),
    /// Cross-entropy of the next token of the text.
    cross_entropy CrossEntropy(CrossEntropyConfig),
    /// Mean squared difference of the output of a layer, or of a linear, from the teacher's.
    block_output BlockOutput(BlockOutputConfig),
    /// Squared rounding errors, weighted by squared gradients of the teacher (SAPR).
    saliency Saliency(SaliencyConfig),
    /// Pull of weights that learn towards where they began (L2-SP).
    anchor Anchor(AnchorConfig),
    /// Distance of mean and variance of each channel of the output of a layer, or of a linear (norm
    /// tweaking).
    channel_moments ChannelMoments(ChannelMomentsConfig),
}

/// A term of a stage's loss with its weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightedTerm {
    /// A part of the loss and its options.
    pub term: TermConfig,
    /// What the term is multiplied by.
    pub weight: Weight,
}

/// Refuses a term whose tap a stage does not have, or whose options or weight cannot work; `taps`
/// are those of the stage, `path` is that of the list.
///
/// Errors: `Config`, with the path of the term and what would work.
pub(crate) fn check_terms(
    terms: &[WeightedTerm],
    taps: &[Tap],
    scope: &str,
    path: &str,
) -> Result<()> {
    for (i, WeightedTerm { term, weight }) in terms.iter().enumerate() {
        let inside = |part: &str, e: Error| match e {
            Error::Config { field, reason } => {
                let field = if field.is_empty() { String::new() } else { format!(".{field}") };
                Error::config(format!("{path}[{i}].{part}{field}"), reason)
            }
            e => e,
        };
        if !taps.contains(&term.tap()) {
            let reason = format!(
                "it looks at {}, which a stage of scope {scope} does not have; it has {}",
                term.tap().name(),
                taps.iter().map(|tap| tap.name()).collect::<Vec<_>>().join(" and "),
            );
            return Err(Error::config(format!("{path}[{i}].term"), reason));
        }
        let same = |earlier: &WeightedTerm| {
            std::mem::discriminant(&earlier.term) == std::mem::discriminant(term)
        };
        if let Some(first) = terms[..i].iter().position(same) {
            let reason = format!("{path}[{first}] is of the same kind; add up their weights");
            return Err(Error::config(format!("{path}[{i}].term"), reason));
        }
        term.check().map_err(|e| inside("term", e))?;
        weight.check().map_err(|e| inside("weight", e))?;
    }
    Ok(())
}

impl Tap {
    fn name(self) -> &'static str {
        match self {
            Tap::Logits => "the logits of the model",
            Tap::LayerOutput => "the output of a layer",
            Tap::Weights => "the weights of a layer",
        }
    }
}
