//! The mean squared difference between the output of a layer and its target.

use super::{LayerOutput, Tap, Term};
use crate::Result;
use crate::device::{Device, DeviceBuffer};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Mean squared difference of a layer's output from the teacher's. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct BlockOutputConfig {}

impl Term for BlockOutputConfig {
    const TAP: Tap = Tap::LayerOutput;

    fn of_layer_output<D: Device>(
        &self,
        at: LayerOutput<D>,
        weight: f64,
        dy: &mut D::Buffer,
    ) -> Result<f64> {
        let elements = (at.sequences * at.y.len()) as f64 / weight;
        at.device.squared_difference(at.y, at.target, elements, dy)
    }
}
