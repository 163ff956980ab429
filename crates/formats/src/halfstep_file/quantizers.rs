//! The words of version 1 of the layout for what decides the bytes of a weight. They are the
//! file's own, so that renaming a field of the library leaves every file as it is.

use halfstep_kernels::{Granularity, IntGrid, QuantSpec, ScaleCodec};
use serde::{Deserialize, Serialize};

/// A [`QuantSpec`] as the metadata key `halfstep.weights` holds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredQuantizer {
    grid: IntGrid,
    partition: Granularity,
    scale_codec: ScaleCodec,
}

impl From<QuantSpec> for StoredQuantizer {
    fn from(spec: QuantSpec) -> Self {
        Self { grid: spec.grid, partition: spec.granularity, scale_codec: spec.scale_codec }
    }
}

impl From<StoredQuantizer> for QuantSpec {
    fn from(stored: StoredQuantizer) -> Self {
        Self { grid: stored.grid, granularity: stored.partition, scale_codec: stored.scale_codec }
    }
}
