//! The codes that an earlier stage stored: they stay, whatever the scales become. There is no
//! weight any more; `dL/ds` of a group is the sum of `dL/dWq (code - zero_point)`.

use super::{MatrixView, Rounding};
use crate::Result;
use crate::device::{Device, Number};
use crate::quantizer::range::{RangeGradients, Ranges};
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Real, uninit_vec};

/// The codes stay on the host, and so do the formulas.
#[derive(Debug)]
pub(crate) struct Stored(pub QuantTensor);

impl<D: Device> Rounding<D> for Stored {
    fn forward(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<D::Buffer> {
        let (device, packed) = (step.device(), Rounding::<D>::pack(self, step, ranges)?);
        let mut y = uninit_vec(packed.rows * packed.cols);
        packed.decode(device.pool(), &mut y);
        device.upload(D::Number::from_f32s(y))
    }

    fn backward(
        &self,
        step: MatrixView<D>,
        _ranges: &Ranges<D>,
        gradient: &mut D::Buffer,
        _weight_learns: bool,
    ) -> Result<RangeGradients<D::Buffer>> {
        let (codes, device) = (&self.0, step.device());
        let units = QuantTensor { scales: vec![1.0; codes.scales.len()], ..codes.clone() };
        let mut row_units = vec![0.0; codes.cols];
        let mut ds = vec![0.0f64; codes.scales.len()];
        for (row, dwq) in device.read(gradient)?.chunks_exact(codes.cols).enumerate() {
            units.decode_row(row, &mut row_units);
            for (col, (g, u)) in dwq.iter().zip(&row_units).enumerate() {
                let index = codes.granularity().scale_index(row, col, codes.cols);
                ds[index] += Real::to_f64(*g) * f64::from(*u);
            }
        }
        let scales = ds.into_iter().map(<D::Number as Real>::from_f64).collect();
        Ok(RangeGradients { scales: device.upload(scales)?, zero_points: None })
    }

    fn pack(&self, step: MatrixView<D>, ranges: &Ranges<D>) -> Result<QuantTensor> {
        Ok(QuantTensor { scales: ranges.packed(step.device())?.0, ..self.0.clone() })
    }

    fn follows_weights(&self) -> bool {
        false
    }
}
