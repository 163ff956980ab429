//! One transformer block as ops on a tape: the architecture's data read by the trainer.

use crate::autograd::ops::Sink;
use crate::autograd::ops::attention::Attention;
use crate::autograd::ops::bias::AddBias;
use crate::autograd::ops::fake_quant::{DynamicQuant, StaticQuant};
use crate::autograd::ops::linear::{Linear, ResidualLinear};
use crate::autograd::ops::rms_norm::RmsNorm;
use crate::autograd::ops::rope::Rope;
use crate::autograd::ops::swiglu::SwiGlu;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{Device, DeviceWeight};
use crate::layer::weights::BlockWeights;
use crate::quantizer::low_rank::{FactorSinks, Factors};
use crate::{Error, Result};
use halfstep_formats::architecture::{
    ActivationSite, Attention as Heads, Linear as Name, Norm, Role,
};
use halfstep_formats::{Architecture, Quantization};
use halfstep_kernels::ActivationSpec;
use halfstep_kernels::ops::attention::AttentionShape;
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::ops::rope::RopeTable;
use halfstep_kernels::quant::lsq::EdgeRule;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What all blocks of a forward share.
#[derive(Clone)]
pub struct Context<D: Device> {
    /// Where the operations run.
    pub device: D,
    /// The graph and sizes of the model.
    pub architecture: Arc<Architecture>,
    /// The rotation of each layer.
    pub ropes: Arc<[Arc<RopeTable>]>,
    /// Number of sequences, B.
    pub batch: usize,
    /// Number of tokens of a sequence, T.
    pub tokens: usize,
    /// What products in floating point are computed in.
    pub precision: Precision,
    /// The quantizers of inputs of linears, and of keys and values.
    pub quantization: Arc<Quantization>,
    /// Whether a value exactly on the edge of its grid counts as inside when gradients are
    /// computed.
    pub edge: EdgeRule,
}

/// The learned step of a static site and where its gradient goes.
pub struct StaticScale<D: Device> {
    /// One number.
    pub(crate) step: Arc<D::Buffer>,
    pub(crate) sink: Option<Sink<D>>,
}

/// Sinks of what learns in one layer, and its static steps; empty for the teacher.
pub struct BlockSinks<D: Device> {
    pub(crate) vectors: BTreeMap<Role, Sink<D>>,
    pub(crate) linears: BTreeMap<Name, Sink<D>>,
    pub(crate) low_rank: BTreeMap<Name, FactorSinks<D>>,
    pub(crate) steps: BTreeMap<ActivationSite, StaticScale<D>>,
}

impl<D: Device> BlockSinks<D> {
    /// Returns no sinks: nothing of the layer learns.
    pub fn none() -> Self {
        Self {
            vectors: BTreeMap::new(),
            linears: BTreeMap::new(),
            low_rank: BTreeMap::new(),
            steps: BTreeMap::new(),
        }
    }
}

/// The rotation of each layer of an architecture.
pub(crate) fn rope_tables(architecture: &Architecture) -> Arc<[Arc<RopeTable>]> {
    architecture
        .layers
        .iter()
        .map(|layer| Arc::new(layer.attention.rope_table(architecture.max_positions)))
        .collect()
}

/// Sees the values at every activation and cache site where they are quantized, before, on the host;
/// in a forward without gradients.
pub type SiteTap<'a, T> = &'a mut dyn FnMut(ActivationSite, &[T]);

/// One layer of a forward.
pub struct Block<'a, D: Device> {
    /// What all layers of the forward share.
    pub context: &'a Context<D>,
    /// The layer's weights.
    pub weights: &'a BlockWeights<D>,
    /// Where its gradients go.
    pub sinks: &'a BlockSinks<D>,
    /// Who sees what its sites get.
    pub tap: Option<SiteTap<'a, D::Number>>,
}

impl<D: Device> Block<'_, D> {
    /// x `[M, D]` -> `[M, D]`, M = batch x tokens.
    pub fn forward(&mut self, tape: &mut Tape<D>, x: &Tensor<D>) -> Result<Tensor<D>> {
        let (heads, kv_heads) = (self.heads().heads, self.heads().kv_heads);
        let normed = self.norm(tape, Norm::Attention, x.clone())?; // [M, D]
        let [q, k, v] =
            self.linears(tape, ActivationSite::AttnIn, normed, [Name::Q, Name::K, Name::V])?; // [M, H D'], [M, K D'] twice
        let q = self.norm(tape, Norm::Query, q)?;
        let k = self.norm(tape, Norm::Key, k)?;
        let q = tape.apply([&q], self.rope(heads))?;
        let k = tape.apply([&k], self.rope(kv_heads))?;
        let k = self.quantized(tape, ActivationSite::KCache, k)?;
        let v = self.quantized(tape, ActivationSite::VCache, v)?;
        let attended = tape.apply([&q, &k, &v], Attention::new(self.attention_shape()))?;
        let x = &self.residual_linear(tape, ActivationSite::OIn, attended, x, Name::O)?;
        let normed = self.norm(tape, Norm::FeedForward, x.clone())?;
        let [gate, up] =
            self.linears(tape, ActivationSite::FfnIn, normed, [Name::Gate, Name::Up])?; // [M, F]
        let hidden = tape.apply([&gate, &up], SwiGlu)?;
        self.residual_linear(tape, ActivationSite::DownIn, hidden, x, Name::Down)
    }

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

    /// Linears of one input x `[M, I]`, quantized at `site`.
    fn linears<const N: usize>(
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
        let role = Role::Bias(name);
        let Some(bias) = self.weights.vectors.get(&role) else { return Ok(y) };
        let sink = self.sinks.vectors.get(&role).cloned();
        tape.apply([&y], AddBias { bias: bias.clone(), sink })
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

    /// Shows the tap what comes to a site.
    fn show(&mut self, site: ActivationSite, x: &Tensor<D>) -> Result<()> {
        if let Some(tap) = &mut self.tap {
            tap(site, &x.read(&self.context.device)?);
        }
        Ok(())
    }

    /// The value as the target's runtime would see it at `site`.
    fn quantized(
        &mut self,
        tape: &mut Tape<D>,
        site: ActivationSite,
        x: Tensor<D>,
    ) -> Result<Tensor<D>> {
        self.show(site, &x)?;
        let (spec, head_dim) =
            (self.quantizer(site), site.is_cache().then(|| self.heads().head_dim));
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

    /// x normalised, if the layer has this norm.
    fn norm(&self, tape: &mut Tape<D>, norm: Norm, x: Tensor<D>) -> Result<Tensor<D>> {
        let role = Role::Norm(norm);
        let Some(weight) = self.weights.vectors.get(&role) else { return Ok(x) };
        let op = RmsNorm {
            weight: weight.clone(),
            eps: self.context.architecture.norm.eps,
            sink: self.sinks.vectors.get(&role).cloned(),
        };
        tape.apply([&x], op)
    }

    /// The layer's attention.
    fn heads(&self) -> &Heads {
        &self.context.architecture.layers[self.weights.layer].attention
    }

    fn rope(&self, heads: usize) -> Rope {
        Rope {
            table: self.context.ropes[self.weights.layer].clone(),
            heads,
            period: self.context.tokens,
        }
    }

    fn attention_shape(&self) -> AttentionShape {
        let (a, t) = (self.heads(), self.context.tokens);
        AttentionShape {
            batch: self.context.batch,
            queries: t,
            keys: t,
            heads: a.heads,
            kv_heads: a.kv_heads,
            head_dim: a.head_dim,
        }
    }
}

/// Errors: `NonFinite`, naming `place` and the first number that is none.
pub(crate) fn check_finite(values: &[f32], place: impl FnOnce() -> String) -> Result<()> {
    let Some(at) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    Err(Error::NonFinite { step: 0, tensor: format!("{}, number {at}", place()) })
}
