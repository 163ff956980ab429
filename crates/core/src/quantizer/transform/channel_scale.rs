//! A learned scale of every input channel (the scales of OmniQuant's LET, 2023, arXiv 2308.13137,
//! stored with the linear instead of folded into the layer before it): `W' = W diag(1 / h)`, `x' = h
//! . x`.
//!
//!     h = f16(h0 e^t)        u = W r, r = h0 / h        W went through h0 already
//!     dW = dL/du . r        dt = h dL/dh - r sum_o (dL/du . W)        t begins at 0
//!
//! The first h0 is 1. The forward uses h as it is stored; gradients pass its rounding unchanged.

use super::{Config, InputMap, Transform, TransformTraits};
use crate::Result;
use crate::autograd::ops::input_map::ScaleChannels;
use crate::autograd::parameter::{Group, Parameters};
use crate::device::Device;
use crate::quantizer::builder::{Builder, part_name};
use half::f16;
use halfstep_formats::LinearParts;
use halfstep_formats::architecture::TensorSpec;
use halfstep_kernels::Real;
use halfstep_kernels::math::exp_f64;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use ts_rs::TS;

pub(super) const TRAITS: TransformTraits = TransformTraits { learns: true };

/// One scale for each input channel; there are no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelScaleConfig {}

impl Config for ChannelScaleConfig {
    fn first(&self, spec: &TensorSpec) -> LinearParts {
        let input_vector = Some(vec![f16::ONE; spec.shape[1]]);
        LinearParts { input_vector, ..LinearParts::default() }
    }

    fn register<D: Device>(
        &self,
        builder: &mut Builder<D>,
        spec: &TensorSpec,
        parts: LinearParts,
    ) -> Result<Arc<dyn Transform<D>>> {
        let (cols, learns) = (spec.shape[1], builder.trains.transforms);
        let first = parts.input_vector.unwrap_or_else(|| vec![f16::ONE; cols]);
        let name = part_name(&spec.name, "channel_scale");
        let zeros = vec![<D::Number as Real>::ZERO; cols];
        let t = builder.add_absolute(&name, Group::Ranges, zeros, learns)?;
        Ok(Arc::new(ChannelScale { t, first, learns }))
    }
}

/// The scales of one linear.
#[derive(Debug)]
struct ChannelScale {
    /// Index of t among the parameters.
    t: usize,
    /// h0.
    first: Vec<f16>,
    learns: bool,
}

/// The largest and the smallest positive h: what an f16 divides by without loss of precision.
const BOUNDS: [f32; 2] = [1.0 / 1024.0, 1024.0];

impl ChannelScale {
    /// h as it is stored.
    fn stored<D: Device>(&self, parameters: &Parameters<D>) -> Result<Vec<f16>> {
        let t = parameters.device.read(&parameters.list[self.t].value)?;
        let scale = |(h0, t): (&f16, &D::Number)| {
            let h = f64::from(h0.to_f32()) * exp_f64(Real::to_f64(*t));
            f16::from_f32((h as f32).clamp(BOUNDS[0], BOUNDS[1]))
        };
        Ok(self.first.iter().zip(t.iter()).map(scale).collect())
    }

    /// h and r of this step, on the host.
    #[allow(clippy::type_complexity)]
    fn scales<D: Device>(
        &self,
        parameters: &Parameters<D>,
    ) -> Result<(Vec<D::Number>, Vec<D::Number>)> {
        let number = <D::Number as Real>::from_f32;
        let of = |(h, h0): (f16, &f16)| {
            let h = number(h.to_f32());
            (h, number(h0.to_f32()) / h)
        };
        Ok(self.stored(parameters)?.into_iter().zip(&self.first).map(of).unzip())
    }
}

impl<D: Device> Transform<D> for ChannelScale {
    fn learns(&self) -> bool {
        self.learns
    }

    fn forward(&self, parameters: &Parameters<D>, w: &D::Buffer) -> Result<Option<D::Buffer>> {
        let device = &parameters.device;
        let (_, r) = self.scales(parameters)?;
        device.scale_channels(w, &device.upload(r)?).map(Some)
    }

    fn backward(
        &self,
        parameters: &Parameters<D>,
        w: &D::Buffer,
        gradient: &mut D::Buffer,
    ) -> Result<()> {
        let Parameters { device, list, .. } = parameters;
        let (h, r) = self.scales(parameters)?;
        if self.learns {
            let by_weight = device.scale_channels_backward(w, gradient, h.len())?;
            let by_weight = device.read(&by_weight)?;
            list[self.t].sink.with(|dt| {
                device.on_host(dt, |dt| {
                    // What arrived here is dL/dh.
                    for (i, dt) in dt.iter_mut().enumerate() {
                        *dt = *dt * h[i] - by_weight[i] * r[i];
                    }
                })
            })?;
        }
        *gradient = device.scale_channels(gradient, &device.upload(r)?)?;
        Ok(())
    }

    fn input(&self, parameters: &Parameters<D>) -> Result<InputMap<D>> {
        let (h, _) = self.scales(parameters)?;
        let sink = self.learns.then(|| parameters.list[self.t].sink.clone());
        let vector = Arc::new(parameters.device.upload(h)?);
        Ok(InputMap { vector: Some(ScaleChannels { vector, sink }), map: None })
    }

    fn pack(&self, parameters: &Parameters<D>) -> Result<LinearParts> {
        let input_vector = Some(self.stored(parameters)?);
        Ok(LinearParts { input_vector, ..LinearParts::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::tape::Tape;
    use crate::autograd::tensor::Tensor;
    use crate::device::Cpu;
    use crate::quantizer::builder::Trains;
    use crate::quantizer::gradient_check::{dot, normal, spec};
    use halfstep_kernels::Pool;

    #[test]
    fn gradients_are_those_of_differences() {
        let (spec, device) = (spec(), Cpu::<f64>::new(&Pool::new(1)));
        let mut parameters = Parameters::new(&device);
        let trains = Trains { transforms: true, ..Trains::NONE };
        let builder = &mut Builder { parameters: &mut parameters, trains, relative: false };
        let config = ChannelScaleConfig {};
        let transform = config.register(builder, &spec, config.first(&spec)).expect("scales");
        let (w, c, x, e) = (normal(1, 48), normal(2, 48), normal(3, 24), normal(4, 24));
        let rows =
            |values: &[f64]| Tensor::<Cpu<f64>>::new(values.to_vec(), &[3, 8]).expect("rows");
        // A function of the weight that is quantized and of the mapped input, at t = ln h, h an f16.
        let scales = [1.0f64, 1.25, 0.75, 1.5, 0.5, 1.0, 2.0, 1.125];
        let value = |parameters: &mut Parameters<Cpu<f64>>, at: usize, factor: f64| {
            for (i, (t, h)) in parameters.list[0].value.iter_mut().zip(scales).enumerate() {
                *t = (h * if i == at { factor } else { 1.0 }).ln();
            }
            let u = transform.forward(parameters, &w).expect("a weight").expect("another one");
            let input = transform.input(parameters).expect("a map");
            let mapped = input.apply(&mut Tape::off(&device), &rows(&x)).expect("mapped");
            dot(&u, &c) + dot(mapped.buffer().expect("values"), &e)
        };
        value(&mut parameters, 0, 1.0);
        let (mut tape, x) = (Tape::on(&device), rows(&x));
        let mapped = transform.input(&parameters).expect("a map").apply(&mut tape, &x);
        let dx = tape.backward(&x, &mapped.expect("mapped"), rows(&e)).expect("dx");
        let mut dw = c.clone();
        transform.backward(&parameters, &w, &mut dw).expect("gradients");
        let dt = parameters.list[0].sink.with(|dt| dt.clone());
        for (at, dt) in dt.iter().enumerate() {
            // Steps that f16 holds exactly.
            let (up, down) = (1.0 + 1.0 / 64.0, 1.0 - 1.0 / 64.0);
            let difference = value(&mut parameters, at, up) - value(&mut parameters, at, down);
            let difference = difference / (up.ln() - down.ln());
            assert!((difference - dt).abs() < 3e-3 * (1.0 + dt.abs()), "{at}: {dt} {difference}");
        }
        for (i, (dx, e)) in dx.buffer().expect("values").iter().zip(&e).enumerate() {
            assert!((dx - e * scales[i % 8]).abs() < 1e-12);
        }
        for (i, (dw, c)) in dw.iter().zip(&c).enumerate() {
            assert!((dw - c / scales[i % 8]).abs() < 1e-12);
        }
    }
}
