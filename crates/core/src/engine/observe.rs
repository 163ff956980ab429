//! What is to be seen of matrices that learn: how far their scales went and how many weights they
//! clip.

use crate::Result;
use crate::autograd::parameter::Parameters;
use crate::device::Device;
use crate::quantizer::matrix::Matrix;
use crate::record::{MatrixRecord, clip_fraction, scale_drift};
use halfstep_formats::architecture::Linear;

/// The scales of some matrices before training.
pub(crate) struct Starts(Vec<Vec<f32>>);

impl Starts {
    pub(crate) fn of<D: Device>(
        matrices: &[Matrix<D>],
        parameters: &Parameters<D>,
    ) -> Result<Self> {
        let scales = |matrix: &Matrix<D>| {
            let found = matrix.scales(parameters)?;
            Ok(found.map_or_else(Vec::new, |(_, scales, _)| scales))
        };
        matrices.iter().map(scales).collect::<Result<_>>().map(Self)
    }

    /// The same matrices now: those that are linears of a block and quantized.
    pub(crate) fn records<D: Device>(
        &self,
        matrices: &[Matrix<D>],
        parameters: &Parameters<D>,
    ) -> Result<Vec<MatrixRecord>> {
        let mut records = vec![];
        for (matrix, start) in matrices.iter().zip(&self.0) {
            let weight = &parameters.list[matrix.index];
            let Some((block, linear)) = Linear::parse(&weight.name) else { continue };
            let Some((quantizer, scales, zero_points)) = matrix.scales(parameters)? else {
                continue;
            };
            let clipped = || -> Result<f64> {
                let (pool, w) = (parameters.device.pool(), parameters.device.read(&weight.value)?);
                Ok(clip_fraction(pool, &w, matrix.cols, quantizer, &scales, &zero_points))
            };
            records.push(MatrixRecord {
                block,
                linear: linear.name().into_owned(),
                clip_fraction: matrix.follows_weights().then(clipped).transpose()?,
                scale_drift: Some(scale_drift(start, &scales)),
                saliency: None,
            });
        }
        Ok(records)
    }
}
