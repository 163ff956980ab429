//! The codes that an earlier stage stored: they stay, whatever the scales become. There is no
//! weight any more; `dL/ds` of a group is the sum of `dL/dWq (code - zero_point)`.

use super::{MatrixView, Rounding};
use crate::autograd::ops::Number;
use crate::quantizer::range::Ranges;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Real, uninit_vec};

#[derive(Debug)]
pub struct Stored(pub QuantTensor);

impl<T: Number> Rounding<T> for Stored {
    fn forward(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> Vec<T> {
        let packed = Rounding::<T>::pack(self, step, ranges);
        let mut y = uninit_vec(packed.rows * packed.cols);
        packed.decode(step.pool, &mut y);
        T::from_f32s(y)
    }

    fn backward(
        &self,
        _step: MatrixView<T>,
        _ranges: &Ranges<T>,
        gradient: &mut Vec<T>,
        _weight_learns: bool,
    ) -> Ranges<T> {
        let codes = &self.0;
        let units = QuantTensor { scales: vec![1.0; codes.scales.len()], ..codes.clone() };
        let mut row_units = vec![0.0; codes.cols];
        let mut ds = vec![0.0f64; codes.scales.len()];
        for (row, dwq) in gradient.chunks_exact(codes.cols).enumerate() {
            units.decode_row(row, &mut row_units);
            for (col, (g, u)) in dwq.iter().zip(&row_units).enumerate() {
                let index = codes.granularity().scale_index(row, col, codes.cols);
                ds[index] += Real::to_f64(*g) * f64::from(*u);
            }
        }
        let scales: Vec<T> = ds.into_iter().map(<T as Real>::from_f64).collect();
        Ranges { zero_points: vec![<T as Real>::ZERO; scales.len()], scales }
    }

    fn pack(&self, _step: MatrixView<T>, ranges: &Ranges<T>) -> QuantTensor {
        QuantTensor { scales: ranges.packed().0, ..self.0.clone() }
    }

    fn follows_weights(&self) -> bool {
        false
    }
}
