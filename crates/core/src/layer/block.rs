//! One transformer block as ops on a tape: the architecture's data read by the trainer.

use crate::autograd::ops::attention::Attention;
use crate::autograd::ops::bias::AddBias;
use crate::autograd::ops::fake_quant::{DynamicQuant, StaticQuant};
use crate::autograd::ops::linear::{Linear, ResidualLinear, add, integer_products};
use crate::autograd::ops::rms_norm::RmsNorm;
use crate::autograd::ops::rope::Rope;
use crate::autograd::ops::swiglu::SwiGlu;
use crate::autograd::ops::weight::Weight;
use crate::autograd::ops::{Number, Sink};
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::layer::weights::BlockWeights;
use crate::quantizer::low_rank::{FactorSinks, Factors};
use crate::{Error, Result};
use halfstep_formats::architecture::{
    ActivationSite, Attention as Heads, Linear as Name, Norm, Role,
};
use halfstep_formats::{Architecture, Quantization};
use halfstep_kernels::ops::attention::AttentionShape;
use halfstep_kernels::ops::gemm::{Precision, Rows};
use halfstep_kernels::ops::rope::RopeTable;
use halfstep_kernels::quant::lsq::EdgeRule;
use halfstep_kernels::{ActivationSpec, Pool, Real};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What all blocks of a forward share.
#[derive(Clone)]
pub struct Context {
    pub architecture: Arc<Architecture>,
    pub pool: Pool,
    /// The rotation of each layer.
    pub ropes: Arc<[Arc<RopeTable>]>,
    pub batch: usize,
    pub tokens: usize,
    pub precision: Precision,
    /// The quantizers of inputs of linears, and of keys and values.
    pub quantization: Arc<Quantization>,
    pub edge: EdgeRule,
}

/// The learned step of a static site and where its gradient goes.
#[derive(Clone)]
pub struct StaticScale<T> {
    pub step: T,
    pub sink: Option<Sink<T>>,
}

/// Sinks of what learns in one layer, and its static steps; empty for the teacher.
pub struct BlockSinks<T> {
    pub vectors: BTreeMap<Role, Sink<T>>,
    pub linears: BTreeMap<Name, Sink<T>>,
    pub low_rank: BTreeMap<Name, FactorSinks<T>>,
    pub steps: BTreeMap<ActivationSite, StaticScale<T>>,
}

impl<T> BlockSinks<T> {
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
    architecture.layers.iter().map(|layer| Arc::new(layer.attention.rope_table())).collect()
}

/// Sees the values at every activation and cache site where they are quantized, before; for
/// calibration, whose weights are values.
pub type SiteTap<'a, T> = &'a mut dyn FnMut(ActivationSite, &[T]);

/// One block being run.
pub struct Block<'a, T> {
    pub context: &'a Context,
    pub weights: &'a BlockWeights<T>,
    pub sinks: &'a BlockSinks<T>,
    pub tap: Option<SiteTap<'a, T>>,
}

impl<T: Number> Block<'_, T> {
    /// x `[M, D]` -> `[M, D]`, M = batch x tokens.
    pub fn forward(&mut self, tape: &mut Tape<T>, x: &Tensor<T>) -> Result<Tensor<T>> {
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
        let attended = tape.apply(
            [&q, &k, &v],
            Attention::new(self.context.pool.clone(), self.attention_shape()),
        )?;
        let x = &self.residual_linear(tape, ActivationSite::OIn, attended, x, Name::O)?;
        let normed = self.norm(tape, Norm::FeedForward, x.clone())?;
        let [gate, up] =
            self.linears(tape, ActivationSite::FfnIn, normed, [Name::Gate, Name::Up])?; // [M, F]
        let hidden = tape.apply([&gate, &up], SwiGlu { pool: self.context.pool.clone() })?;
        self.residual_linear(tape, ActivationSite::DownIn, hidden, x, Name::Down)
    }

    /// Linears of one input x `[M, I]`, quantized at `site`.
    fn linears<const N: usize>(
        &mut self,
        tape: &mut Tape<T>,
        site: ActivationSite,
        x: Tensor<T>,
        names: [Name; N],
    ) -> Result<[Tensor<T>; N]> {
        let rows = x.rows();
        let linears = names.iter().map(|&name| self.linear(name)).collect::<Result<Vec<_>>>()?;
        let outputs = self.integer_outputs(site, &x, &linears);
        let input = self.input(tape, site, x.clone(), outputs.is_some())?;
        let mut out = Vec::with_capacity(N);
        let mut outputs = outputs.map(Vec::into_iter);
        for (name, linear) in names.into_iter().zip(linears) {
            let y = match outputs.as_mut().and_then(Iterator::next) {
                Some(y) => {
                    let y = Tensor::new(y, &[rows, linear.weight.rows()])?;
                    tape.record([&input], linear, &y);
                    y
                }
                None => tape.apply([&input], linear)?,
            };
            out.push(self.add_factors_and_bias(tape, name, &x, y)?);
        }
        out.try_into().map_err(|_| Error::Internal { reason: "one output per linear".into() })
    }

    /// `residual + linear(x)`, x quantized at `site`.
    fn residual_linear(
        &mut self,
        tape: &mut Tape<T>,
        site: ActivationSite,
        x: Tensor<T>,
        residual: &Tensor<T>,
        name: Name,
    ) -> Result<Tensor<T>> {
        let linear = self.linear(name)?;
        let output =
            self.integer_outputs(site, &x, std::slice::from_ref(&linear)).and_then(|mut y| y.pop());
        let input = self.input(tape, site, x.clone(), output.is_some())?;
        let y = match output {
            Some(mut y) => {
                add(&self.context.pool, &mut y, residual.values());
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
        tape: &mut Tape<T>,
        name: Name,
        x: &Tensor<T>,
        y: Tensor<T>,
    ) -> Result<Tensor<T>> {
        let y = self.low_rank(tape, name, x, y)?;
        let role = Role::Bias(name);
        let Some(bias) = self.weights.vectors.get(&role) else { return Ok(y) };
        let sink = self.sinks.vectors.get(&role).cloned();
        tape.apply([&y], AddBias { pool: self.context.pool.clone(), bias: bias.clone(), sink })
    }

    fn low_rank(
        &self,
        tape: &mut Tape<T>,
        name: Name,
        x: &Tensor<T>,
        y: Tensor<T>,
    ) -> Result<Tensor<T>> {
        let Some(Factors { a, b }) = self.weights.low_rank.get(&name).cloned() else {
            return Ok(y);
        };
        let sinks = self.sinks.low_rank.get(&name).cloned();
        let (to_a, to_b) = sinks.map_or((None, None), |sinks| (Some(sinks.a), Some(sinks.b)));
        let linear = |weight, sink| Linear {
            pool: self.context.pool.clone(),
            precision: self.context.precision,
            weight,
            sink,
        };
        let h = tape.apply([x], linear(a, to_a))?; // [M, r]
        tape.apply([&h, &y], ResidualLinear(linear(b, to_b)))
    }

    /// What linears at `site` read; where their outputs are `known`, only their backwards will.
    fn input(
        &mut self,
        tape: &mut Tape<T>,
        site: ActivationSite,
        x: Tensor<T>,
        known: bool,
    ) -> Result<Tensor<T>> {
        let spec = self.quantizer(site);
        match known {
            true if !tape.is_on() => Ok(x),
            true if spec.has_codes() && !spec.is_static() => {
                tape.defer(&x, self.dynamic(spec, None))
            }
            _ => self.quantized(tape, site, x),
        }
    }

    /// What the packed runtime computes from x as it is, by the same function; None where the
    /// weights are no panels.
    fn integer_outputs(
        &self,
        site: ActivationSite,
        x: &Tensor<T>,
        linears: &[Linear<T>],
    ) -> Option<Vec<Vec<T>>> {
        let activation = self.quantizer(site);
        if activation == ActivationSpec::F32 {
            return None;
        }
        let panels: Option<Vec<_>> = linears
            .iter()
            .map(|l| if let Weight::Panels(panels) = &l.weight { Some(panels) } else { None })
            .collect();
        let panels = panels?;
        let step = self.sinks.steps.get(&site).map(|s| Real::to_f32(s.step));
        Some(integer_products(&self.context.pool, x.values(), activation, step, &panels))
    }

    /// The value as the target's runtime would see it at `site`.
    fn quantized(
        &mut self,
        tape: &mut Tape<T>,
        site: ActivationSite,
        x: Tensor<T>,
    ) -> Result<Tensor<T>> {
        if let Some(tap) = &mut self.tap {
            tap(site, x.values());
        }
        let pool = self.context.pool.clone();
        let (spec, head_dim) =
            (self.quantizer(site), site.is_cache().then(|| self.heads().head_dim));
        if spec == ActivationSpec::F32 {
            return Ok(x);
        }
        let Some(static_spec) = spec.static_spec() else {
            return tape.apply([&x], self.dynamic(spec, head_dim));
        };
        let Some(StaticScale { step, sink }) = self.sinks.steps.get(&site).cloned() else {
            let reason = format!("static site {} has no step", site.name());
            return Err(Error::Internal { reason });
        };
        tape.apply(
            [&x],
            StaticQuant { pool, spec: static_spec, step, edge: self.context.edge, sink },
        )
    }

    /// The quantizer of this layer at `site`.
    fn quantizer(&self, site: ActivationSite) -> ActivationSpec {
        self.context.quantization.at(self.weights.layer, site)
    }

    fn dynamic(&self, spec: ActivationSpec, head_dim: Option<usize>) -> DynamicQuant {
        DynamicQuant { pool: self.context.pool.clone(), spec, head_dim }
    }

    fn linear(&self, name: Name) -> Result<Linear<T>> {
        let weight = self.weights.linears.get(&name).cloned();
        Ok(Linear {
            pool: self.context.pool.clone(),
            precision: self.context.precision,
            weight: weight.ok_or_else(|| Error::Internal {
                reason: format!("the layer has no {}", name.name()),
            })?,
            sink: self.sinks.linears.get(&name).cloned(),
        })
    }

    /// x normalised, if the layer has this norm.
    fn norm(&self, tape: &mut Tape<T>, norm: Norm, x: Tensor<T>) -> Result<Tensor<T>> {
        let role = Role::Norm(norm);
        let Some(weight) = self.weights.vectors.get(&role) else { return Ok(x) };
        let op = RmsNorm {
            pool: self.context.pool.clone(),
            weight: weight.clone(),
            eps: self.context.architecture.norm_eps,
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
            pool: self.context.pool.clone(),
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
