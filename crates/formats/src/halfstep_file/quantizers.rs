//! The words of version 1 of the layout for what decides the bytes of a weight. They are the
//! file's own, so that renaming a field of the library leaves every file as it is.

use halfstep_kernels::{Element, Granularity, Int, IntRange, QuantSpec, ScaleCodec};
use serde::{Deserialize, Serialize};

/// A [`QuantSpec`] as the metadata key `halfstep.weights` holds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredQuantizer {
    grid: StoredGrid,
    partition: Granularity,
    scale_codec: ScaleCodec,
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

impl From<QuantSpec> for StoredQuantizer {
    fn from(spec: QuantSpec) -> Self {
        let Element::Int(Int { bits, range }) = spec.element;
        let range = match range {
            IntRange::Symmetric => StoredRange::Symmetric,
            IntRange::Narrow => StoredRange::Narrow,
            IntRange::Unsigned => StoredRange::Affine,
        };
        let grid = StoredGrid { bits, range };
        Self { grid, partition: spec.granularity, scale_codec: spec.scale }
    }
}

impl From<StoredQuantizer> for QuantSpec {
    fn from(stored: StoredQuantizer) -> Self {
        let range = match stored.grid.range {
            StoredRange::Symmetric => IntRange::Symmetric,
            StoredRange::Narrow => IntRange::Narrow,
            StoredRange::Affine => IntRange::Unsigned,
        };
        let int = Int { bits: stored.grid.bits, range };
        Self::int(int, stored.partition, stored.scale_codec)
    }
}
