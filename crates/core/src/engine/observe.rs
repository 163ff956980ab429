//! What is to be seen of matrices that learn: how far their scales went and how many weights they
//! clip.

use crate::autograd::ops::Number;
use crate::autograd::parameter::Parameters;
use crate::quantizer::matrix::Matrix;
use crate::record::{MatrixRecord, clip_fraction, layer_and_linear, scale_drift};
use halfstep_kernels::Pool;

/// The scales of some matrices before training.
pub struct Starts(Vec<Vec<f32>>);

impl Starts {
    pub fn of<T: Number>(matrices: &[Matrix<T>], parameters: &Parameters<T>, pool: &Pool) -> Self {
        Self(matrices.iter().map(|matrix| scales(matrix, parameters, pool)).collect())
    }

    /// The same matrices now: those that are linears of a block and quantized.
    pub fn records<T: Number>(
        &self,
        matrices: &[Matrix<T>],
        parameters: &Parameters<T>,
        pool: &Pool,
    ) -> Vec<MatrixRecord> {
        let record = |(matrix, start): (&Matrix<T>, &Vec<f32>)| {
            let weight = &parameters.list[matrix.index];
            let (block, linear) = layer_and_linear(&weight.name)?;
            let (quantizer, scales, zero_points) = matrix.scales(parameters, pool)?;
            Some(MatrixRecord {
                block,
                linear: linear.name().into(),
                clip_fraction: matrix.follows_weights().then(|| {
                    clip_fraction(
                        pool,
                        &weight.value,
                        matrix.cols,
                        quantizer,
                        &scales,
                        &zero_points,
                    )
                }),
                scale_drift: Some(scale_drift(start, &scales)),
                saliency: None,
            })
        };
        matrices.iter().zip(&self.0).filter_map(record).collect()
    }
}

fn scales<T: Number>(matrix: &Matrix<T>, parameters: &Parameters<T>, pool: &Pool) -> Vec<f32> {
    matrix.scales(parameters, pool).map_or_else(Vec::new, |(_, scales, _)| scales)
}
