//! To the nearest code. The gradient of the weight is that of the straight-through estimator inside
//! the grid and 0 outside (LSQ, 2020, arXiv 1902.08153; with zero points Block-AP, 2024, arXiv
//! 2407.11062).

use super::{MatrixView, Rounding, RoundingTraits};
use crate::autograd::ops::Number;
use crate::quantizer::builder::{Beginning, Builder};
use crate::quantizer::range::Ranges;
use halfstep_kernels::ops::linear::WeightPanels;
use halfstep_kernels::quant::affine::Affine;
use halfstep_kernels::quant::lsq::{EdgeRule, lsq_backward, lsq_forward};
use halfstep_kernels::quant::nearest::quantize;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{Real, uninit_vec};

pub const TRAITS: RoundingTraits =
    RoundingTraits { learns: false, weights_may_learn: true, ranges_may_learn: true };

#[derive(Debug)]
pub struct Nearest {
    edge: EdgeRule,
}

impl Nearest {
    pub fn register<T: Number>(
        _builder: &mut Builder<T>,
        beginning: &Beginning,
        _ranges: &Ranges<T>,
    ) -> Self {
        Self { edge: beginning.edge }
    }
}

fn affine<'a, T: Number>(step: MatrixView<'a, T>, ranges: &'a Ranges<T>) -> Option<Affine<'a, T>> {
    step.quantizer.has_zero_point().then_some(Affine {
        w: step.w,
        rows: step.rows,
        cols: step.cols,
        scales: &ranges.scales,
        zero_points: &ranges.zero_points,
        spec: step.quantizer,
    })
}

impl<T: Number> Rounding<T> for Nearest {
    fn forward(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> Vec<T> {
        let MatrixView { w, rows, cols, quantizer, pool, .. } = step;
        let mut y = uninit_vec(w.len());
        match affine(step, ranges) {
            Some(affine) => affine.forward(pool, &mut y),
            None => lsq_forward(pool, w, rows, cols, &ranges.scales, quantizer, &mut y, None),
        }
        y
    }

    fn backward(
        &self,
        step: MatrixView<T>,
        ranges: &Ranges<T>,
        gradient: &mut Vec<T>,
        weight_learns: bool,
    ) -> Ranges<T> {
        let MatrixView { w, rows, cols, quantizer, pool, .. } = step;
        let zeros = || vec![<T as Real>::ZERO; ranges.scales.len()];
        let (mut ds, mut dz) = (zeros(), zeros());
        let Some(affine) = affine(step, ranges) else {
            let (mut dw, scales) = (uninit_vec(w.len()), &ranges.scales);
            lsq_backward(
                pool, w, rows, cols, scales, quantizer, self.edge, gradient, &mut dw, &mut ds,
            );
            std::mem::swap(gradient, &mut dw);
            return Ranges { scales: ds, zero_points: vec![] };
        };
        let mut dw = uninit_vec(if weight_learns { w.len() } else { 0 });
        affine.backward(pool, gradient, &mut dw, &mut ds, &mut dz);
        if weight_learns {
            std::mem::swap(gradient, &mut dw);
        }
        Ranges { scales: ds, zero_points: dz }
    }

    fn pack(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> QuantTensor {
        let (scales, zero_points) = ranges.packed();
        let w = T::to_f32s(step.w);
        quantize(step.pool, &w, step.rows, step.cols, step.quantizer, &scales, &zero_points)
    }

    fn panels(&self, step: MatrixView<T>, ranges: &Ranges<T>) -> WeightPanels {
        let (scales, zero_points) = ranges.packed();
        let MatrixView { rows, cols, quantizer, pool, .. } = step;
        WeightPanels::quantize(
            pool,
            &T::to_f32s(step.w),
            rows,
            cols,
            quantizer,
            &scales,
            &zero_points,
        )
    }
}
