//! One transformer block as ops on a tape: the architecture's data read by the trainer. Each kind
//! of mixer and the second half of a layer have a file each, and so have experts and what linears
//! read.

mod attention;
mod convolution;
mod delta_rule;
pub(crate) mod experts;
mod feed_forward;
mod linears;

use crate::autograd::ops::bias::AddBias;
use crate::autograd::ops::norm::Normalize;
use crate::autograd::ops::scale::ScaleByParameter;
use crate::autograd::ops::{Learned, Sink};
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::device::{self, Device, DeviceBuffer};
use crate::layer::sides::SideInputs;
use crate::layer::top_up::TopUp;
use crate::layer::weights::{BlockWeights, norm_weight};
use crate::quantizer::low_rank::FactorSinks;
use crate::{Error, Result};
use halfstep_formats::architecture::{
    ActivationSite, Attention as Heads, Layer, Linear as Name, Mixer, Norm, Parameter, QkNorm, Role,
};
use halfstep_formats::{Architecture, Quantization};
use halfstep_kernels::ops::gemm::Precision;
use halfstep_kernels::ops::rope::{RopePairs, RopeTable};
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

/// The rotation of each layer of an architecture for sequences of so many tokens; nothing turns in
/// layers without attention.
pub(crate) fn rope_tables(architecture: &Architecture, tokens: usize) -> Arc<[Arc<RopeTable>]> {
    let still = || RopeTable {
        head_dim: 0,
        pairs: RopePairs::Half,
        factor: 1.0,
        inverse_frequencies: vec![],
    };
    let table = |layer: &Layer| match layer.attention() {
        Some(heads) => heads.rope_table(tokens),
        None => still(),
    };
    architecture.layers.iter().map(|layer| Arc::new(table(layer))).collect()
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
    /// What it reads beside the rows of the layer before.
    sides: SideInputs<D>,
    /// Who sees what its sites get.
    tap: Option<SiteTap<'a, D::Number>>,
    /// Rows that experts get for those who see them.
    top_up: Option<&'a TopUp>,
    /// Keys and values of the last forward, where a later layer reads them.
    kept: Option<[Tensor<D>; 2]>,
}

impl<'a, D: Device> Block<'a, D> {
    /// A layer that reads nothing beside the rows of the layer before, and that nobody watches.
    pub fn new(
        context: &'a Context<D>,
        weights: &'a BlockWeights<D>,
        sinks: &'a BlockSinks<D>,
    ) -> Self {
        let (sides, tap, top_up, kept) = (SideInputs::default(), None, None, None);
        Self { context, weights, sinks, sides, tap, top_up, kept }
    }

    /// With what it reads beside.
    pub fn beside(self, sides: SideInputs<D>) -> Self {
        Self { sides, ..self }
    }

    /// With somebody who sees what its sites get.
    pub fn seen_by(self, tap: SiteTap<'a, D::Number>) -> Self {
        Self { tap: Some(tap), ..self }
    }

    /// With rows in addition for experts that few rows would reach; only for who sees them.
    pub fn topped_up(self, top_up: Option<&'a TopUp>) -> Self {
        Self { top_up, ..self }
    }

    /// Keys and values of the last forward, where a later layer reads them.
    pub fn kept(&mut self) -> Option<[Tensor<D>; 2]> {
        self.kept.take()
    }

    /// x `[M, D]` -> `[M, D]`, M = batch x tokens.
    pub fn forward(&mut self, tape: &mut Tape<D>, x: &Tensor<D>) -> Result<Tensor<D>> {
        let Layer { mixer, norms, parallel, .. } = self.layer();
        let normed = self.norm(tape, Norm::Attention, x.clone())?; // [M, D]
        let shared = (*parallel && !norms.pre_feed_forward).then(|| normed.clone());
        let h = match mixer {
            Mixer::Attention(heads) => self.attention(tape, heads, normed, x)?,
            Mixer::DeltaRule(delta) => self.delta_rule(tape, delta, normed, x)?,
            Mixer::Convolution(_) => self.convolution(tape, normed, x)?,
        };
        let read = match shared {
            Some(shared) => shared,
            None => self.norm(tape, Norm::FeedForward, if *parallel { x } else { &h }.clone())?,
        };
        let y = self.feed_forward(tape, read, &h)?;
        let y = self.per_layer_input(tape, y)?;
        let Some((scale, sink)) = self.parameter(Parameter::OutputScale) else { return Ok(y) };
        tape.apply([&y], ScaleByParameter { scale, sink })
    }

    /// x normalised, if the layer has this norm.
    fn norm(&self, tape: &mut Tape<D>, norm: Norm, x: Tensor<D>) -> Result<Tensor<D>> {
        let role = Role::Norm(norm);
        let Some(weight) = self.weights.vectors.get(&role) else { return Ok(x) };
        let a = &self.context.architecture;
        let alone = |heads: &&Heads| norm.is_of_heads() && heads.qk_norm != Some(QkNorm::Whole);
        let each_head = self.layer().attention().filter(alone);
        let offset = if role.is_norm() { a.norm.offset } else { 0.0 };
        let op = Normalize {
            norm: device::Norm {
                kind: a.norm_kind(self.weights.layer, norm),
                eps: a.norm.eps,
                width: each_head.map_or(weight.len(), |heads| heads.head_dim),
            },
            weight: norm_weight(&self.context.device, weight, offset)?,
            sink: self.sinks.vectors.get(&role).cloned(),
        };
        let y = tape.apply([&x], op)?;
        self.add_bias(tape, Role::NormBias(norm), y)
    }

    /// `y + b`, if the layer has this bias.
    fn add_bias(&self, tape: &mut Tape<D>, role: Role, y: Tensor<D>) -> Result<Tensor<D>> {
        let Some(bias) = self.weights.vectors.get(&role) else { return Ok(y) };
        let sink = self.sinks.vectors.get(&role).cloned();
        tape.apply([&y], AddBias { bias: bias.clone(), sink })
    }

    /// One of the layer's other tensors and where its gradient goes, if the layer has it.
    fn parameter(&self, parameter: Parameter) -> Option<Learned<D>> {
        let role = Role::Parameter(parameter);
        let values = self.weights.vectors.get(&role)?;
        Some((values.clone(), self.sinks.vectors.get(&role).cloned()))
    }

    /// The same of a tensor that the layer's graph asks for.
    fn required(&self, parameter: Parameter) -> Result<Learned<D>> {
        self.parameter(parameter).ok_or_else(|| Error::Internal {
            reason: format!("the layer has no {}", parameter.name()),
        })
    }

    fn layer(&self) -> &'a Layer {
        &self.context.architecture.layers[self.weights.layer]
    }
}

/// Errors: `NonFinite`, naming `place` and the first NaN or infinite value.
pub(crate) fn check_finite(values: &[f32], place: impl FnOnce() -> String) -> Result<()> {
    let Some(at) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    Err(Error::NonFinite { step: 0, tensor: format!("{}, number {at}", place()) })
}
