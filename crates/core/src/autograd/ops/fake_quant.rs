//! Activation and cache quantizers in the forward: the values the integer runtime would use.
//!
//! Dynamic scales follow the data and clip nothing, so their gradient is straight through. A static
//! site has one learned step, with LSQ's gradients (arXiv 1902.08153): dx = dy inside the grid, 0
//! outside; ds (into the sink) = g * sum dy (code - x/s inside, code outside), g = 1/sqrt(features
//! p).

use crate::Result;
use crate::autograd::ops::{Op, Sink};
use crate::autograd::tensor::Tensor;
use crate::device::{Device, Grid};
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{ActivationSpec, QuantSpec};
use std::sync::Arc;

/// Straight-through fake quantization with scales from the data.
pub(crate) struct DynamicQuant {
    pub(crate) spec: ActivationSpec,
    /// Width of a head, for keys and values; None for the input of a linear.
    pub(crate) head_dim: Option<usize>,
}

impl<D: Device> Op<D, 1> for DynamicQuant {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "dynamic_quant"
    }

    /// Not for the cache: its arguments would have to be kept instead.
    fn is_cheap(&self) -> bool {
        self.head_dim.is_none()
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        let width = self.head_dim.unwrap_or(x.cols());
        Tensor::new(device.quantize_activation(self.spec, x.buffer()?, width)?, x.shape())
    }

    fn backward(
        &self,
        _: &D,
        _: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        Ok([Some(dy.clone())])
    }
}

/// One learned step for the whole site.
pub(crate) struct StaticQuant<D: Device> {
    pub(crate) spec: QuantSpec,
    /// One number.
    pub(crate) step: Arc<D::Buffer>,
    pub(crate) edge: EdgeRule,
    pub(crate) sink: Option<Sink<D>>,
}

impl<D: Device> StaticQuant<D> {
    fn grid(&self, x: &Tensor<D>) -> Grid<'_, D::Buffer> {
        let (rows, cols) = (x.rows(), x.cols());
        Grid { spec: self.spec, rows, cols, scales: &self.step, zero_points: None }
    }
}

impl<D: Device> Op<D, 1> for StaticQuant<D> {
    fn name(&self) -> &'static str {
        "static_quant"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        Tensor::new(device.fake_quant(x.buffer()?, self.grid(x))?, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        let (grid, dy) = (self.grid(x), dy.buffer()?);
        let mut gradients = device.fake_quant_backward(x.buffer()?, grid, self.edge, dy, true)?;
        if let Some(sink) = &self.sink {
            let g = 1.0 / (x.cols() as f64 * f64::from(self.spec.max_code())).sqrt();
            device.scale(&mut gradients.scales, g)?;
            sink.add_buffer(device, gradients.scales)?;
        }
        Ok([gradients.values.map(|dx| Tensor::new(dx, x.shape())).transpose()?])
    }
}
