//! How activations, and keys and values in the cache, are kept.

use super::element::{Element, Int, IntRange};
use super::scale::ScaleCodec;
use super::spec::{Granularity, QuantSpec};
use serde::{Deserialize, Serialize};

/// Which values of an activation share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum ActivationGranularity {
    /// Those of a token (a row).
    Token,
    /// Those of a token and a key/value head.
    Head,
    /// `n` consecutive ones of a token or, in the cache, of a head.
    Block(usize),
}

/// How the input of a quantized linear, or keys (after RoPE) and values, are kept. A scale that
/// follows the values clips nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum ActivationSpec {
    /// As f32: not quantized.
    #[default]
    F32,
    /// Rounded to f16 (what llama.cpp does with keys and values unless asked).
    F16,
    /// Codes whose scales follow the values: max|x| over the largest code.
    Dynamic {
        /// Which codes there are.
        element: Element,
        /// Which values share a scale.
        granularity: ActivationGranularity,
        /// How a scale is stored.
        scale: ScaleCodec,
    },
    /// Codes with one scale for the site, found by calibration or learned, stored with the model:
    /// code = clip(nearest-even(x / scale)), value = code * scale.
    Static {
        /// Which codes there are.
        element: Element,
    },
}

/// The rules that are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    F32,
    F16,
    /// Per row: scale = max|x| / p in f32, code = nearest-even(x / scale), value = code * scale.
    Row {
        bits: u8,
    },
    /// ggml's Q8_0, blocks of 32: id = 127 / max|x| in f32 (0 for an all-zero block), code =
    /// nearest-even(x * id), value = code * f16(max|x| / 127).
    Block32,
    /// ggml's Q8_K, which its K and ternary types are multiplied with, blocks of 256: id = -127 / m
    /// in f32, m the first x of largest magnitude with its sign (id 0 for an all-zero block), code
    /// = nearest-even(x * id), value = code * (1 / id).
    Block256,
    Static {
        bits: u8,
    },
}

impl ActivationSpec {
    /// ggml's Q8_0: codes -127..=127 in blocks of 32 with f16 scales.
    pub const BLOCK_32: Self = Self::block(32, ScaleCodec::F16);
    /// ggml's Q8_K: codes -127..=127 in blocks of 256 with f32 scales, which may be negative.
    pub const BLOCK_256: Self = Self::block(256, ScaleCodec::F32);

    const fn block(n: usize, scale: ScaleCodec) -> Self {
        let granularity = ActivationGranularity::Block(n);
        Self::Dynamic { element: Element::Int(Int::narrow(8)), granularity, scale }
    }

    const fn row(bits: u8, granularity: ActivationGranularity) -> Self {
        let element = Element::Int(Int::symmetric(bits));
        Self::Dynamic { element, granularity, scale: ScaleCodec::F32 }
    }

    /// A scale for each token.
    pub const fn token(bits: u8) -> Self {
        Self::row(bits, ActivationGranularity::Token)
    }

    /// A scale for each token and key/value head.
    pub const fn head(bits: u8) -> Self {
        Self::row(bits, ActivationGranularity::Head)
    }

    /// One stored scale for the site.
    pub const fn of_site(bits: u8) -> Self {
        Self::Static { element: Element::Int(Int::symmetric(bits)) }
    }

    /// Whether its scale is stored with the model.
    pub const fn is_static(self) -> bool {
        matches!(self, Self::Static { .. })
    }

    /// Number of bits of a code. None: there are no codes.
    pub fn bits(self) -> Option<u8> {
        match self {
            Self::F32 | Self::F16 => None,
            Self::Dynamic { element, .. } | Self::Static { element } => Some(element.bits()),
        }
    }

    /// Whether there are codes.
    pub const fn has_codes(self) -> bool {
        !matches!(self, Self::F32 | Self::F16)
    }

    /// The spec of the one matrix that a static site is: one scale, stored as f32. None for other
    /// sites.
    pub const fn static_spec(self) -> Option<QuantSpec> {
        match self {
            Self::Static { element: Element::Int(int) } => {
                Some(QuantSpec::int(int, Granularity::Tensor, ScaleCodec::F32))
            }
            _ => None,
        }
    }

    /// How it is computed. None: it is not.
    pub(crate) fn rule(self) -> Option<Rule> {
        use ActivationGranularity::{Head, Token};
        let bits = |element: Element| match element {
            Element::Int(Int { bits, range: IntRange::Symmetric }) => Some(bits),
            _ => None,
        };
        match self {
            Self::F32 => Some(Rule::F32),
            Self::F16 => Some(Rule::F16),
            Self::BLOCK_32 => Some(Rule::Block32),
            Self::BLOCK_256 => Some(Rule::Block256),
            Self::Dynamic { element, granularity: Token | Head, scale: ScaleCodec::F32 } => {
                bits(element).map(|bits| Rule::Row { bits })
            }
            Self::Static { element } => bits(element).map(|bits| Rule::Static { bits }),
            Self::Dynamic { .. } => None,
        }
    }

    /// Refuses what is not computed, with or without `wrong` granularities.
    fn check(self, wrong: &[ActivationGranularity]) -> Result<(), String> {
        match (self, self.rule()) {
            (Self::Dynamic { granularity, .. }, _) if wrong.contains(&granularity) => {
                Err(format!("{granularity:?} is no granularity of this site"))
            }
            (_, Some(Rule::Row { bits } | Rule::Static { bits })) if !(2..=8).contains(&bits) => {
                Err(format!("{bits} bits, not 2 to 8"))
            }
            (_, Some(_)) => Ok(()),
            (_, None) => Err("codes are symmetric integers with an f32 scale per token, head or \
                              site, or narrow ones of 8 bits in blocks of 32 with f16 scales or of \
                              256 with f32 scales"
                .into()),
        }
    }

    /// Refuses what the input of a linear cannot be.
    ///
    /// Errors: what is wrong, and what would work.
    pub fn check_input(self) -> Result<(), String> {
        if self == Self::F16 {
            return Err("inputs are f32 or codes, not f16".into());
        }
        self.check(&[ActivationGranularity::Head])
    }

    /// Refuses what keys and values cannot be.
    ///
    /// Errors: what is wrong, and what would work.
    pub fn check_cache(self) -> Result<(), String> {
        self.check(&[ActivationGranularity::Token, ActivationGranularity::Block(256)])
    }

    /// For a message: `int8 per token`, `f16`.
    pub fn name(self) -> String {
        match self {
            Self::F32 => "f32".into(),
            Self::F16 => "f16".into(),
            Self::Static { element } => format!("{} with a stored scale", element.name()),
            Self::Dynamic { element, granularity, .. } => match granularity {
                ActivationGranularity::Token => format!("{} per token", element.name()),
                ActivationGranularity::Head => format!("{} per head", element.name()),
                ActivationGranularity::Block(n) => format!("{} in blocks of {n}", element.name()),
            },
        }
    }
}
