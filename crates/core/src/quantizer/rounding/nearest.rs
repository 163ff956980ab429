//! To the nearest code. The gradient of the weight is that of the straight-through estimator inside
//! the grid and 0 outside (LSQ, 2020, arXiv 1902.08153; with zero points Block-AP, 2024, arXiv
//! 2407.11062).

use super::{MatrixView, Rounding, RoundingTraits};
use crate::Result;
use crate::device::{Device, GridGradients, Number};
use crate::quantizer::builder::{Beginning, Builder};
use crate::quantizer::range::{RangeGradients, Ranges};
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::quant::nearest::quantize;
use halfstep_kernels::quant::tensor::QuantTensor;

pub(crate) const TRAITS: RoundingTraits =
    RoundingTraits { learns: false, weights_may_learn: true, ranges_may_learn: true };

/// Rounding to the nearest code, with the straight-through gradient.
#[derive(Debug)]
pub struct Nearest {
    edge: EdgeRule,
}

impl Nearest {
    pub(crate) fn register<D: Device>(
        _builder: &mut Builder<D>,
        beginning: &Beginning,
        _ranges: &Ranges<D>,
    ) -> Result<Self> {
        Ok(Self { edge: beginning.edge })
    }
}

impl<D: Device> Rounding<D> for Nearest {
    fn forward(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<D::Buffer> {
        step.device().fake_quant(step.w, step.grid(ranges))
    }

    fn backward(
        &self,
        step: MatrixView<D>,
        ranges: &Ranges<D>,
        gradient: &mut D::Buffer,
        weight_learns: bool,
    ) -> Result<RangeGradients<D::Buffer>> {
        let (grid, edge) = (step.grid(ranges), self.edge);
        let GridGradients { values, scales, zero_points } =
            step.device().fake_quant_backward(step.w, grid, edge, gradient, weight_learns)?;
        if let Some(values) = values {
            *gradient = values;
        }
        Ok(RangeGradients { scales, zero_points })
    }

    fn pack(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<QuantTensor> {
        let (device, (rows, cols)) = (step.device(), (step.rows, step.cols));
        let (scales, zero_points) = ranges.packed(device)?;
        let w = device.read(step.w)?;
        let (pool, w) = (device.pool(), D::Number::to_f32s(&w));
        Ok(quantize(pool, &w, rows, cols, step.quantizer, &scales, &zero_points))
    }

    fn packed_weight(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<D::Weight> {
        step.device().pack(step.w, step.grid(ranges))
    }
}
