//! Linears of a layer: what they read, as the target's runtime would see it, and what is added after
//! the product.

use super::{Block, StaticScale};
use crate::autograd::ops::fake_quant::{DynamicQuant, StaticQuant};
use crate::autograd::ops::linear::{Linear, ResidualLinear};
use crate::autograd::ops::scale::AddScaled;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceWeight};
use crate::quantizer::low_rank::Factors;
use crate::{Error, Result};
use halfstep_formats::architecture::{ActivationSite, Linear as Name, Norm, Parameter, Role};
use halfstep_kernels::ActivationSpec;
use halfstep_kernels::ops::gemm::Precision;

impl<D: Device> Block<'_, D> {
    /// What one linear gives for its input x `[M, I]` -> `[M, O]`, as in the layer: x quantized at
    /// its site, factors and bias added. Of the weights it reads those of this linear alone.
    pub fn forward_linear(
        &mut self,
        tape: &mut Tape<D>,
        x: &Tensor<D>,
        name: Name,
    ) -> Result<Tensor<D>> {
        let [y] = self.linears(tape, name.input(), x.clone(), [name])?;
        Ok(y)
    }

    /// `residual + factor norm(linear(x))`, x quantized at the linear's site: the end of a branch.
    pub(super) fn end_of_branch(
        &mut self,
        tape: &mut Tape<D>,
        x: Tensor<D>,
        residual: &Tensor<D>,
        name: Name,
        norm: Norm,
        factor: f64,
    ) -> Result<Tensor<D>> {
        if factor == 1.0 && !self.weights.vectors.contains_key(&Role::Norm(norm)) {
            return self.residual_linear(tape, name.input(), x, residual, name);
        }
        let [y] = self.linears(tape, name.input(), x, [name])?;
        let y = self.norm(tape, norm, y)?;
        tape.apply([residual, &y], AddScaled(factor))
    }

    /// Linears of one input x `[M, I]`, quantized at `site`.
    pub(super) fn linears<const N: usize>(
        &mut self,
        tape: &mut Tape<D>,
        site: ActivationSite,
        x: Tensor<D>,
        names: [Name; N],
    ) -> Result<[Tensor<D>; N]> {
        if !names.iter().any(|name| self.weights.inputs.contains_key(name)) {
            return self.linears_of(tape, site, &x, x.clone(), names);
        }
        // Each maps the input in its own way.
        self.show(site, &x)?;
        let tap = self.tap.take();
        let mut out = Vec::with_capacity(N);
        for name in names {
            let input = self.mapped(tape, name, &x)?;
            out.extend(self.linears_of(tape, site, &x, input, [name])?);
        }
        self.tap = tap;
        out.try_into().map_err(|_| Error::Internal { reason: "one output per linear".into() })
    }

    /// What a linear reads of the site's values x.
    fn mapped(&self, tape: &mut Tape<D>, name: Name, x: &Tensor<D>) -> Result<Tensor<D>> {
        match self.weights.inputs.get(&name) {
            Some(input) => input.apply(tape, x),
            None => Ok(x.clone()),
        }
    }

    /// Linears that read the same `input`, which is x or made of it; factors read x itself.
    fn linears_of<const N: usize>(
        &mut self,
        tape: &mut Tape<D>,
        site: ActivationSite,
        x: &Tensor<D>,
        input: Tensor<D>,
        names: [Name; N],
    ) -> Result<[Tensor<D>; N]> {
        let rows = x.rows();
        let quantized = names.iter().filter(|&name| !self.weights.float.contains(name));
        let quantized = quantized.map(|&name| self.linear(name)).collect::<Result<Vec<_>>>()?;
        let outputs = self.integer_outputs(site, &input, &quantized)?;
        let input = match &quantized[..] {
            [] => {
                self.show(site, x)?;
                input
            }
            _ => self.input(tape, site, input, outputs.is_some())?,
        };
        let mut out = Vec::with_capacity(N);
        let mut outputs = outputs.map(Vec::into_iter);
        for name in names {
            let linear = self.linear(name)?;
            if self.weights.float.contains(&name) {
                let y = tape.apply([x], linear)?;
                out.push(self.add_factors_and_bias(tape, name, x, y)?);
                continue;
            }
            let y = match outputs.as_mut().and_then(Iterator::next) {
                Some(y) => {
                    let y = Tensor::new(y, &[rows, linear.weight.rows()])?;
                    tape.record([&input], linear, &y);
                    y
                }
                None => tape.apply([&input], linear)?,
            };
            out.push(self.add_factors_and_bias(tape, name, x, y)?);
        }
        out.try_into().map_err(|_| Error::Internal { reason: "one output per linear".into() })
    }

    /// `residual + linear(x)`, x quantized at `site`.
    fn residual_linear(
        &mut self,
        tape: &mut Tape<D>,
        site: ActivationSite,
        x: Tensor<D>,
        residual: &Tensor<D>,
        name: Name,
    ) -> Result<Tensor<D>> {
        let linear = self.linear(name)?;
        if self.weights.float.contains(&name) {
            self.show(site, &x)?;
            let y = tape.apply([&x, residual], ResidualLinear(linear))?;
            return self.add_factors_and_bias(tape, name, &x, y);
        }
        let mapped = self.mapped(tape, name, &x)?;
        let outputs = self.integer_outputs(site, &mapped, std::slice::from_ref(&linear))?;
        let output = outputs.and_then(|mut y| y.pop());
        self.show(site, &x)?;
        let tap = self.tap.take();
        let input = self.input(tape, site, mapped, output.is_some())?;
        self.tap = tap;
        let y = match output {
            Some(mut y) => {
                self.context.device.add(&mut y, residual.buffer()?)?;
                let y = Tensor::new(y, residual.shape())?;
                tape.record([&input, residual], ResidualLinear(linear), &y);
                y
            }
            None => tape.apply([&input, residual], ResidualLinear(linear))?,
        };
        self.add_factors_and_bias(tape, name, &x, y)
    }

    /// `y + (x A^T) B^T + b`: the factors and the bias of the linear, if it has them; x before any
    /// quantizer.
    fn add_factors_and_bias(
        &self,
        tape: &mut Tape<D>,
        name: Name,
        x: &Tensor<D>,
        y: Tensor<D>,
    ) -> Result<Tensor<D>> {
        let y = self.low_rank(tape, name, x, y)?;
        self.add_bias(tape, Role::Bias(name), y)
    }

    fn low_rank(
        &self,
        tape: &mut Tape<D>,
        name: Name,
        x: &Tensor<D>,
        y: Tensor<D>,
    ) -> Result<Tensor<D>> {
        let Some(Factors { a, b }) = self.weights.low_rank.get(&name).cloned() else {
            return Ok(y);
        };
        let sinks = self.sinks.low_rank.get(&name).cloned();
        let (to_a, to_b) = sinks.map_or((None, None), |sinks| (Some(sinks.a), Some(sinks.b)));
        let precision = self.context.precision;
        let linear = |weight, sink| Linear { precision, weight, sink };
        let h = tape.apply([x], linear(a, to_a))?; // [M, r]
        tape.apply([&h, &y], ResidualLinear(linear(b, to_b)))
    }

    /// What linears at `site` read; where their outputs are `known`, only their backwards will.
    fn input(
        &mut self,
        tape: &mut Tape<D>,
        site: ActivationSite,
        x: Tensor<D>,
        known: bool,
    ) -> Result<Tensor<D>> {
        let spec = self.quantizer(site);
        match known {
            true if !tape.is_on() => {
                self.show(site, &x)?;
                Ok(x)
            }
            true if spec.has_codes() && !spec.is_static() => {
                tape.defer(&x, self.dynamic(spec, None))
            }
            _ => self.quantized(tape, site, x),
        }
    }

    /// What the packed runtime computes from x as it is, by the same function; None where the
    /// weights are no codes.
    fn integer_outputs(
        &self,
        site: ActivationSite,
        x: &Tensor<D>,
        linears: &[Linear<D>],
    ) -> Result<Option<Vec<D::Buffer>>> {
        let activation = self.quantizer(site);
        let packed = !linears.is_empty() && linears.iter().all(|linear| linear.weight.is_packed());
        if activation == ActivationSpec::F32 || !packed {
            return Ok(None);
        }
        let step = self.sinks.steps.get(&site).map(|scale| &*scale.step);
        let weights: Vec<_> = linears.iter().map(|linear| &linear.weight).collect();
        self.context.device.integer_linear(x.buffer()?, activation, step, &weights).map(Some)
    }

    /// `x W^T` by one of the layer's matrices that stay in floating point.
    pub(super) fn float_linear(
        &self,
        tape: &mut Tape<D>,
        parameter: Parameter,
        x: &Tensor<D>,
    ) -> Result<Tensor<D>> {
        let (device, (values, sink)) = (&self.context.device, self.required(parameter)?);
        let weight = device.weight(device.copy(&values)?, x.cols())?;
        tape.apply([x], Linear { precision: Precision::F32, weight, sink })
    }

    /// Shows the tap what comes to a site.
    pub(super) fn show(&mut self, site: ActivationSite, x: &Tensor<D>) -> Result<()> {
        if let Some(tap) = &mut self.tap {
            tap(site, &x.read(&self.context.device)?);
        }
        Ok(())
    }

    /// The value as the target's runtime would see it at `site`.
    pub(super) fn quantized(
        &mut self,
        tape: &mut Tape<D>,
        site: ActivationSite,
        x: Tensor<D>,
    ) -> Result<Tensor<D>> {
        self.show(site, &x)?;
        let (spec, heads) =
            (self.quantizer(site), self.layer().attention().filter(|_| site.is_cache()));
        let head_dim = heads.map(|heads| heads.head_dim);
        if spec == ActivationSpec::F32 {
            return Ok(x);
        }
        let Some(static_spec) = spec.static_spec() else {
            return tape.apply([&x], self.dynamic(spec, head_dim));
        };
        let Some(StaticScale { step, sink }) = self.sinks.steps.get(&site) else {
            let reason = format!("static site {} has no step", site.name());
            return Err(Error::Internal { reason });
        };
        tape.apply(
            [&x],
            StaticQuant {
                spec: static_spec,
                step: step.clone(),
                edge: self.context.edge,
                sink: sink.clone(),
            },
        )
    }

    /// The quantizer of this layer at `site`.
    fn quantizer(&self, site: ActivationSite) -> ActivationSpec {
        self.context.quantization.at(self.weights.layer, site)
    }

    fn dynamic(&self, spec: ActivationSpec, head_dim: Option<usize>) -> DynamicQuant {
        DynamicQuant { spec, head_dim }
    }

    fn linear(&self, name: Name) -> Result<Linear<D>> {
        let weight = self.weights.linears.get(&name).cloned();
        Ok(Linear {
            precision: self.context.precision,
            weight: weight.ok_or_else(|| Error::Internal {
                reason: format!("the layer has no {}", name.name()),
            })?,
            sink: self.sinks.linears.get(&name).cloned(),
        })
    }
}
