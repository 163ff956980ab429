//! The words of the layout for what decides the bytes of a weight. They are the file's own, so that
//! renaming a field of the library leaves every file as it is.
//!
//! Version 1 has integers with f32 or f16 scales; version 2 has tables of levels and all codecs of
//! scales too, and is written only where something needs it.

use halfstep_kernels::quant::element::RowTable;
use halfstep_kernels::quant::element::table::{Table, Ties};
use halfstep_kernels::{Element, Granularity, Int, IntRange, QuantSpec, ScaleCodec};
use serde::{Deserialize, Serialize};

/// A [`QuantSpec`] as version 1 holds it under the metadata key `halfstep.weights`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredQuantizer {
    grid: StoredGrid,
    partition: Granularity,
    scale_codec: StoredCodec,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredGrid {
    bits: u8,
    range: StoredRange,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredRange {
    Symmetric,
    Narrow,
    /// Unsigned integers with a zero point.
    Affine,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredCodec {
    F32,
    F16,
}

/// A [`QuantSpec`] as version 2 holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredSpec {
    element: StoredElement,
    granularity: Granularity,
    scale: ScaleCodec,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
enum StoredElement {
    Int {
        bits: u8,
        range: StoredRange,
    },
    Table {
        levels: Vec<i8>,
        ties: Ties,
    },
    /// Levels are a tensor.
    RowTable {
        bits: u8,
    },
}

impl From<IntRange> for StoredRange {
    fn from(range: IntRange) -> Self {
        match range {
            IntRange::Symmetric => StoredRange::Symmetric,
            IntRange::Narrow => StoredRange::Narrow,
            IntRange::Unsigned => StoredRange::Affine,
        }
    }
}

impl From<StoredRange> for IntRange {
    fn from(range: StoredRange) -> Self {
        match range {
            StoredRange::Symmetric => IntRange::Symmetric,
            StoredRange::Narrow => IntRange::Narrow,
            StoredRange::Affine => IntRange::Unsigned,
        }
    }
}

impl StoredQuantizer {
    /// None: version 1 has no words for it.
    pub fn new(spec: QuantSpec) -> Option<Self> {
        let Element::Int(Int { bits, range }) = spec.element else { return None };
        let scale_codec = match spec.scale {
            ScaleCodec::F32 => StoredCodec::F32,
            ScaleCodec::F16 => StoredCodec::F16,
            _ => return None,
        };
        let grid = StoredGrid { bits, range: range.into() };
        Some(Self { grid, partition: spec.granularity, scale_codec })
    }
}

impl From<StoredQuantizer> for QuantSpec {
    fn from(stored: StoredQuantizer) -> Self {
        let int = Int { bits: stored.grid.bits, range: stored.grid.range.into() };
        let scale = match stored.scale_codec {
            StoredCodec::F32 => ScaleCodec::F32,
            StoredCodec::F16 => ScaleCodec::F16,
        };
        Self::int(int, stored.partition, scale)
    }
}

impl From<QuantSpec> for StoredSpec {
    fn from(spec: QuantSpec) -> Self {
        let element = match spec.element {
            Element::Int(Int { bits, range }) => StoredElement::Int { bits, range: range.into() },
            Element::Table(table) => {
                StoredElement::Table { levels: table.levels().into(), ties: table.ties() }
            }
            Element::RowTable(RowTable { bits }) => StoredElement::RowTable { bits },
        };
        Self { element, granularity: spec.granularity, scale: spec.scale }
    }
}

impl TryFrom<StoredSpec> for QuantSpec {
    type Error = String;

    /// Errors: levels that are no table.
    fn try_from(stored: StoredSpec) -> Result<Self, String> {
        let element = match stored.element {
            StoredElement::Int { bits, range } => Element::Int(Int { bits, range: range.into() }),
            StoredElement::Table { levels, ties } => Table::new(&levels, ties)?.into(),
            StoredElement::RowTable { bits } => RowTable { bits }.into(),
        };
        Ok(Self::new(element, stored.granularity, stored.scale))
    }
}
