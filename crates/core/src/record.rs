//! The record of a run, for a report: losses, statistics of every matrix, and the effect of
//! quantizing each layer alone.

use crate::event::EvaluationRecord;
use halfstep_formats::Architecture;
use halfstep_formats::architecture::Linear;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Pool, QuantSpec, Real};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The data of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// Settings of the run.
    pub settings: RunSettings,
    /// Full precision, round to nearest on the same grid (in smaller groups, for about the same
    /// size, where the result has low-rank factors), and the result.
    pub table: Vec<TableRow>,
    /// Stages of the training, one after the other; none without training.
    pub stages: Vec<StageRecord>,
    /// Statistics of every quantized linear, layer after layer.
    pub matrices: Vec<MatrixRecord>,
    /// For each layer: KL to the unquantized model in nats if only this layer is quantized. Empty
    /// without a validation text.
    pub block_kl: Vec<f64>,
    /// Number of tokens that `blockKl` was measured on.
    pub block_kl_tokens: usize,
}

/// Settings of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct RunSettings {
    /// Version of halfstep.
    pub version: String,
    /// Name of the model.
    pub model: String,
    /// The recipe with every default filled in.
    #[ts(type = "Record<string, unknown>")]
    pub recipe: serde_json::Value,
    /// Null without training.
    #[ts(type = "number | bigint | null")]
    pub seed: Option<u64>,
    /// Where the training text came from, `blake3:` and its hash; null without training.
    pub data: Option<String>,
}

/// A model in the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct TableRow {
    /// `fp`, `rtn` or `result`.
    pub subject: String,
    /// Size of its file.
    pub bytes: u64,
    /// Stored bits per weight of the linear layers, scales and low-rank factors included.
    pub bits_per_weight: f64,
    /// Null without a validation text.
    pub evaluation: Option<EvaluationRecord>,
}

/// One stage of training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct StageRecord {
    /// Number of steps before those of `losses`, which an earlier part of a resumed run did.
    pub first_step: u64,
    /// Loss of every step, before its update, if the whole model is trained.
    pub losses: Vec<f64>,
    /// Records of the layers, if they are trained one at a time.
    pub blocks: Vec<BlockRecord>,
    /// Statistics of the linears that the stage quantized or trained.
    pub matrices: Vec<MatrixRecord>,
    /// Rows of the experts, layer after layer, that static scales of activations were found on, if
    /// the whole model is trained; absent where no layer has experts or no scale is static.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(optional, as = "Option<_>")]
    pub experts: Vec<ExpertsRecord>,
}

/// The training of one layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct BlockRecord {
    /// Number of the layer, from 0.
    pub block: usize,
    /// Loss of every step, before its update.
    pub losses: Vec<f64>,
    /// Mean loss over the first pass through the samples, or over the first half of the steps if
    /// there were fewer than two passes.
    pub first_loss: f64,
    /// Mean loss over the last pass, or over the last half of the steps.
    pub last_loss: f64,
    /// Rows of its experts that a solver found their codes from; absent without experts or a solver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub experts: Option<ExpertsRecord>,
}

/// The calibration of a layer's experts. Each sees the rows that the router sends it; to one that
/// gets fewer than a floor, other rows are shown in addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ExpertsRecord {
    /// Number of the layer, from 0.
    pub block: usize,
    /// Number of its experts.
    pub experts: usize,
    /// Rows that the router sends the expert with the fewest.
    pub least_rows: usize,
    /// Rows that the router sends the expert with the most.
    pub most_rows: usize,
    /// The floor: rows that every expert sees, if the calibration has so many.
    pub floor: usize,
    /// Number of experts below the floor.
    pub topped_up: usize,
}

/// Statistics of a quantized linear.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct MatrixRecord {
    /// Number of the layer, from 0.
    pub block: usize,
    /// `self_attn.q_proj`, ...
    pub linear: String,
    /// Share of the weights that lie outside the grid's limits and are clipped to them; null if
    /// only the codes were left.
    pub clip_fraction: Option<f64>,
    /// Mean of |s_end / s_start - 1| over its scales in the last stage that trained them; null
    /// without training.
    pub scale_drift: Option<f64>,
    /// Mean of its squared gradients over that of all linears; null if they were not computed.
    pub saliency: Option<f64>,
}

impl BlockRecord {
    /// `pass`: steps of one pass through the samples.
    pub fn new(block: usize, losses: Vec<f64>, pass: usize) -> Self {
        let part = pass.min(losses.len().div_ceil(2));
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let (first_loss, last_loss) = (mean(&losses[..part]), mean(&losses[losses.len() - part..]));
        Self { block, losses, first_loss, last_loss, experts: None }
    }
}

impl StageRecord {
    /// Records of the experts of all layers that were calibrated.
    pub fn all_experts(&self) -> impl Iterator<Item = ExpertsRecord> {
        self.experts.iter().copied().chain(self.blocks.iter().filter_map(|block| block.experts))
    }
}

impl MatrixRecord {
    /// Of a linear whose codes were found without training, from `values` `[rows, cols]`.
    pub fn rounded(
        block: usize,
        linear: Linear,
        values: &[f32],
        packed: &QuantTensor,
        pool: &Pool,
    ) -> Self {
        let clipped = clip_fraction(
            pool,
            values,
            packed.cols,
            packed.spec,
            &packed.scales,
            &packed.zero_points,
        );
        Self {
            block,
            linear: linear.name().into_owned(),
            clip_fraction: Some(clipped),
            scale_drift: None,
            saliency: None,
        }
    }
}

/// Merges the matrices of all stages into one list: what a later stage did not measure is that of
/// an earlier one.
pub fn merge(stages: &[StageRecord]) -> Vec<MatrixRecord> {
    let mut merged: Vec<MatrixRecord> = vec![];
    for matrix in stages.iter().flat_map(|stage| &stage.matrices) {
        match merged.iter_mut().find(|m| (m.block, &m.linear) == (matrix.block, &matrix.linear)) {
            None => merged.push(matrix.clone()),
            Some(earlier) => {
                earlier.clip_fraction = matrix.clip_fraction.or(earlier.clip_fraction);
                earlier.scale_drift = matrix.scale_drift.or(earlier.scale_drift);
                earlier.saliency = matrix.saliency.or(earlier.saliency);
            }
        }
    }
    merged
}

/// Writes saliency, by layer and linear in the order of the forward, into the records of matrices.
pub fn note_saliency(
    matrices: &mut [MatrixRecord],
    saliency: &[Vec<f64>],
    architecture: &Architecture,
) {
    for matrix in matrices {
        let linears = architecture.linears(matrix.block);
        let number = linears.iter().position(|linear| linear.kind.name() == matrix.linear);
        matrix.saliency =
            number.and_then(|number| saliency.get(matrix.block)?.get(number).copied());
    }
}

/// Share of the weights `[rows, cols]` whose nearest code lies outside the grid: not min <= rnd(w /
/// s) + z <= max. Scales and zero points as stored.
pub fn clip_fraction<T: Real>(
    pool: &Pool,
    w: &[T],
    cols: usize,
    quantizer: QuantSpec,
    scales: &[f32],
    zero_points: &[u8],
) -> f64 {
    let granularity = quantizer.granularity;
    let mut clipped = vec![0usize; w.len() / cols.max(1)];
    pool.chunks_mut(&mut clipped, 16, |task, clipped| {
        for (i, count) in clipped.iter_mut().enumerate() {
            let row = task * 16 + i;
            for (group, w) in
                w[row * cols..][..cols].chunks(granularity.group_size(cols)).enumerate()
            {
                let index =
                    granularity.scale_index(row, group * granularity.group_size(cols), cols);
                let z = zero_points.get(index).map_or(0.0, |&z| f32::from(z));
                let (least, most) =
                    (quantizer.min_code() as f32 - z, quantizer.max_code() as f32 - z);
                // One code beyond the limits distinguishes inside from outside.
                let code = |w: &T| {
                    (w.to_f32() / scales[index]).clamp(least - 1.0, most + 1.0).round_ties_even()
                };
                *count += w.iter().filter(|w| !(least..=most).contains(&code(w))).count();
            }
        }
    });
    clipped.iter().sum::<usize>() as f64 / w.len().max(1) as f64
}

/// Mean of |end / start - 1|; of no scales 0.
pub fn scale_drift(start: &[f32], end: &[f32]) -> f64 {
    let sum: f64 = start
        .iter()
        .zip(end)
        .map(|(&start, &end)| (f64::from(end) / f64::from(start) - 1.0).abs())
        .filter(|drift| drift.is_finite())
        .sum();
    sum / start.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfstep_kernels::{Granularity, Int, ScaleCodec};

    #[test]
    fn weights_beyond_the_last_codes_are_counted() {
        let quantizer = |grid| QuantSpec::int(grid, Granularity::Group(4), ScaleCodec::F32);
        // Two bits, scale 1: codes -2..=1; 1.4 rounds inside, 1.6 and -2.6 outside.
        let w = [-2.4f32, -2.6, 1.4, 1.6, 0.0, 0.0, 0.0, 9.0];
        assert_eq!(
            clip_fraction(&Pool::serial(), &w, 8, quantizer(Int::symmetric(2)), &[1.0, 1.0], &[]),
            3.0 / 8.0
        );
        // Zero points 3 and 0: values -3..=0 and 0..=3.
        assert_eq!(
            clip_fraction(
                &Pool::serial(),
                &w,
                4,
                quantizer(Int::unsigned(2)),
                &[1.0, 3.0],
                &[3, 0]
            ),
            2.0 / 8.0
        );
        assert_eq!(scale_drift(&[1.0, -2.0], &[1.5, -2.0]), 0.25);
        assert_eq!(scale_drift(&[], &[]), 0.0);
    }

    #[test]
    fn losses_are_compared_over_whole_passes() {
        let record = BlockRecord::new(3, vec![4.0, 2.0, 9.0, 9.0, 1.0, 3.0], 2);
        assert_eq!((record.block, record.first_loss, record.last_loss), (3, 3.0, 2.0));
        let one_pass = BlockRecord::new(0, vec![5.0, 4.0, 3.0], 3);
        assert_eq!((one_pass.first_loss, one_pass.last_loss), (4.5, 3.5));
    }

    #[test]
    fn a_later_stage_overrides_what_it_measured() {
        let matrix = |clip, drift| MatrixRecord {
            block: 1,
            linear: "mlp.up_proj".into(),
            clip_fraction: clip,
            scale_drift: drift,
            saliency: None,
        };
        let stage = |matrix| StageRecord { matrices: vec![matrix], ..StageRecord::default() };
        assert_eq!(
            merge(&[stage(matrix(Some(0.5), Some(0.1))), stage(matrix(None, Some(0.2)))]),
            [matrix(Some(0.5), Some(0.2))]
        );
        assert_eq!(Linear::parse("model.layers.12.mlp.up_proj.weight"), Some((12, Linear::Up)));
        assert_eq!(Linear::parse("model.embed_tokens.weight"), None);
    }
}
