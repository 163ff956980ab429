//! `y = Qa(x) Wq^T` on packed codes of 2 to 8 bits, by the kernels and in the arithmetic of
//! halfstep's runtime: integer sums where activations are quantized, else decoded weights.
//!
//! The codes are frozen. dL/dx = dL/dy Wq: the quantizer of activations passes its gradient on.

use crate::values::{read, slice};
use candle_core::{CpuStorage, CustomOp1, Device, Error, Layout, Module, Result, Shape, Tensor};
use halfstep_kernels::ops::gemm::{Dense, Precision, linear_backward_input};
use halfstep_kernels::ops::linear::{WeightPanels, linear_panels};
use halfstep_kernels::pack::row_bytes;
use halfstep_kernels::quant::tensor::QuantTensor;
use halfstep_kernels::{ActivationSpec, Pool, uninit_vec};
use std::sync::Arc;

/// A linear layer without bias: x `[.., I]` in f32 gives `[.., O]`.
#[derive(Clone)]
pub struct PackedLinear {
    weight: Arc<WeightPanels>,
    activation: ActivationSpec,
    pool: Pool,
}

impl PackedLinear {
    /// Errors: codes, scales or zero points of another number than the shape has; bits outside 2 to
    /// 8; a static quantizer of activations, whose scale is a model's.
    pub fn new(weight: &QuantTensor, activation: ActivationSpec, pool: Pool) -> Result<Self> {
        let (rows, cols, quantizer) = (weight.rows, weight.cols, weight.spec);
        if cols == 0 || !(2..=8).contains(&quantizer.bits()) {
            return Err(Error::Msg("a packed linear has columns, of 2 to 8 bits".into()));
        }
        let scales = quantizer.granularity.scales(rows, cols);
        let affine = quantizer.has_zero_point();
        let want = [
            ("bytes of codes", weight.codes.len(), rows * row_bytes(cols, quantizer.bits())),
            ("scales", weight.scales.len(), scales),
            ("zero points", weight.zero_points.len(), if affine { scales } else { 0 }),
        ];
        if let Some((name, got, want)) = want.into_iter().find(|(_, got, want)| got != want) {
            let reason = format!("a packed linear [{rows}, {cols}] has {want} {name}, not {got}");
            return Err(Error::Msg(reason));
        }
        if quantizer.row_table().is_some() {
            return Err(Error::Msg("a packed linear has no tables of its rows".into()));
        }
        if activation.is_static() {
            return Err(Error::Msg("a packed linear has no static scale of activations".into()));
        }
        Ok(Self { weight: Arc::new(WeightPanels::new(&pool, weight)), activation, pool })
    }
}

impl Module for PackedLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self.clone())
    }
}

impl CustomOp1 for PackedLinear {
    fn name(&self) -> &'static str {
        "halfstep_packed_linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, mut shape) = (slice(storage, layout)?, layout.dims().to_vec());
        match shape.last_mut() {
            Some(last) if *last == self.weight.cols() => *last = self.weight.rows(),
            _ => {
                let reason = format!("x {shape:?} for {} columns", self.weight.cols());
                return Err(Error::Msg(reason));
            }
        }
        let m = x.len() / self.weight.cols();
        let mut y = uninit_vec(m * self.weight.rows());
        let outputs = &mut [(&*self.weight, &mut y[..])];
        linear_panels(&self.pool, x, m, self.activation, None, outputs);
        Ok((CpuStorage::F32(y), shape.into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = uninit_vec(x.elem_count());
        read!(dy);
        let dy = Dense::new(dy, self.weight.rows());
        let weight = &*self.weight;
        linear_backward_input(&self.pool, Precision::F32, &dy, weight, &mut dx, false);
        Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
    }
}
