//! Sums and products with one number: `y = f x`, `y = r + f x`, and `y = s x` with a learned s,
//! whose gradient `sum x dL/dy` goes into the sink.

use crate::Result;
use crate::autograd::ops::{Op, Sink};
use crate::autograd::tensor::Tensor;
use crate::device::Device;
use halfstep_kernels::Real;
use std::sync::Arc;

/// `f x`.
fn scaled<D: Device>(device: &D, x: &Tensor<D>, factor: f64) -> Result<Tensor<D>> {
    if factor == 1.0 {
        return Ok(x.clone());
    }
    let mut y = device.copy(x.buffer()?)?;
    device.scale(&mut y, factor)?;
    Tensor::new(y, x.shape())
}

/// `y = f x`.
pub(crate) struct Scale(pub(crate) f64);

impl<D: Device> Op<D, 1> for Scale {
    const READS_ARGUMENTS: [bool; 1] = [false];

    fn name(&self) -> &'static str {
        "scale"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        // A result is a tensor of its own, with another identity than the argument's.
        let mut y = device.copy(x.buffer()?)?;
        device.scale(&mut y, self.0)?;
        Tensor::new(y, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        _: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        Ok([Some(scaled(device, dy, self.0)?)])
    }
}

/// `y = r + f x`.
pub(crate) struct AddScaled(pub(crate) f64);

impl<D: Device> Op<D, 2> for AddScaled {
    const READS_ARGUMENTS: [bool; 2] = [false; 2];

    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn forward(&self, device: &D, [r, x]: [&Tensor<D>; 2]) -> Result<Tensor<D>> {
        let mut y = device.copy(x.buffer()?)?;
        if self.0 != 1.0 {
            device.scale(&mut y, self.0)?;
        }
        device.add(&mut y, r.buffer()?)?;
        Tensor::new(y, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        _: [&Tensor<D>; 2],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 2]> {
        Ok([Some(dy.clone()), Some(scaled(device, dy, self.0)?)])
    }
}

/// `y = s x`, s a learned number.
pub(crate) struct ScaleByParameter<D: Device> {
    /// One number.
    pub(crate) scale: Arc<D::Buffer>,
    pub(crate) sink: Option<Sink<D>>,
}

impl<D: Device> ScaleByParameter<D> {
    fn factor(&self, device: &D) -> Result<f64> {
        Ok(device.read(&self.scale)?.first().map_or(1.0, |&s| Real::to_f64(s)))
    }
}

impl<D: Device> Op<D, 1> for ScaleByParameter<D> {
    fn name(&self) -> &'static str {
        "scale_by_parameter"
    }

    fn forward(&self, device: &D, [x]: [&Tensor<D>; 1]) -> Result<Tensor<D>> {
        let mut y = device.copy(x.buffer()?)?;
        device.scale(&mut y, self.factor(device)?)?;
        Tensor::new(y, x.shape())
    }

    fn backward(
        &self,
        device: &D,
        [x]: [&Tensor<D>; 1],
        _: &Tensor<D>,
        dy: &Tensor<D>,
    ) -> Result<[Option<Tensor<D>>; 1]> {
        if let Some(sink) = &self.sink {
            let sums = device.scale_channels_backward(x.buffer()?, dy.buffer()?, x.cols())?;
            let sum: f64 = device.read(&sums)?.iter().map(|&s| Real::to_f64(s)).sum();
            let gradient = device.upload(vec![<D::Number as Real>::from_f64(sum)])?;
            sink.add_buffer(device, gradient)?;
        }
        Ok([Some(scaled(device, dy, self.factor(device)?)?)])
    }
}
