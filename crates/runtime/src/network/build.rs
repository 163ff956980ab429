//! A network out of a model: its parts found by name, checked, and laid out as the kernels read
//! them.

use super::attention::{Attention, KeysAndValues};
use super::check::check_graph;
use super::convolution::Convolution;
use super::delta_rule::DeltaRule;
use super::experts::Experts;
use super::feed_forward::{Dense, FeedForward};
use super::mixer::Mixer;
use super::norm::NormLayer;
use super::per_layer_input::{PerLayerGate, PerLayerInput};
use super::{Arithmetic, Block, Network, Rotation};
use crate::cache::Kept;
use crate::linear_parts::{Wrapping, widened};
use crate::low_rank::Factors;
use crate::matrix::{Matrix, Projection, vector};
use crate::{Error, Result};
use halfstep_formats::architecture::{
    self as graph, ActivationSite, EMBEDDING, FINAL_NORM, FINAL_NORM_BIAS, HEAD, Linear,
    LinearSpec, Norm, NormKind, PER_LAYER_EMBEDDING, PER_LAYER_MODEL_PROJECTION, PER_LAYER_NORM,
    Parameter, Role, Rope,
};
use halfstep_formats::{Error as FormatError, Model, Quantization, TensorData};
use halfstep_kernels::ops::activation::Activation;
use halfstep_kernels::ops::convolution::taps;
use halfstep_kernels::ops::routing::{Routing, Score};
use halfstep_kernels::{ActivationSpec, Pool};
use std::borrow::Cow;
use std::sync::Arc;

impl Network {
    /// Errors: a tensor or a static step that is missing or has the wrong shape; low-rank factors
    /// or other parts that fit no weight; `Integer` for a model that is not quantized.
    pub fn new(model: &Model, arithmetic: Arithmetic, pool: Pool) -> Result<Self> {
        Self::build(Cow::Borrowed(model), arithmetic, pool)
    }

    /// [`Self::new`] of a model that nothing else needs: its large tensors go as the network gets
    /// its own form of them, so that the model is hardly ever in memory twice.
    pub fn consume(model: Model, arithmetic: Arithmetic, pool: Pool) -> Result<Self> {
        Self::build(Cow::Owned(model), arithmetic, pool)
    }

    fn build(model: Cow<'_, Model>, arithmetic: Arithmetic, pool: Pool) -> Result<Self> {
        let architecture = model.architecture.clone();
        let quantization = match (arithmetic, &model.quantization) {
            (Arithmetic::Float, _) | (Arithmetic::Auto, None) => None,
            (_, Some(quantization)) => Some(quantization.clone()),
            (Arithmetic::Integer, None) => {
                return Err(Error::argument(
                    "arithmetic",
                    format!(
                        "{} is not quantized, so it has no integer arithmetic; use float",
                        model.name
                    ),
                ));
            }
        };
        check_graph(&model)?;
        let linears = (0..architecture.layers.len()).map(|layer| architecture.linears(layer));
        let linears = linears.collect();
        let mut builder = Builder { model, quantization, pool: &pool, linears, ropes: vec![] };
        builder.check_quantizers()?;
        builder.model.check_low_rank()?;
        builder.model.check_linear_parts()?;
        let layers = 0..architecture.layers.len();
        let blocks = layers.map(|layer| builder.block(layer)).collect::<Result<_>>()?;
        let mut table = |name| builder.table(name).map(Arc::new);
        let embedding = table(EMBEDDING)?;
        let head = if architecture.tied_head { embedding.clone() } else { table(HEAD)? };
        let per_layer_input = architecture.per_layer_input;
        Ok(Self {
            embedding,
            per_layer_input: per_layer_input
                .map(|input| builder.per_layer_input(input.width))
                .transpose()?,
            blocks,
            final_norm: builder.final_norm()?,
            head,
            ropes: builder.ropes,
            architecture,
            pool,
        })
    }
}

/// The kernel's word for a function.
fn activation(of: graph::Activation) -> Activation {
    match of {
        graph::Activation::Silu => Activation::Silu,
        graph::Activation::GeluTanh => Activation::GeluTanh,
        graph::Activation::SquaredRelu => Activation::SquaredRelu,
        graph::Activation::Clamped { alpha, limit } => Activation::Clamped { alpha, limit },
    }
}

/// The kernel's words for a routing.
fn routing(experts: &graph::Experts) -> Routing {
    let graph::Routing { score, groups, normalise, scale, .. } = experts.routing;
    let score = match score {
        graph::Score::Softmax => Score::Softmax,
        graph::Score::SoftmaxOfChosen => Score::SoftmaxOfChosen,
        graph::Score::Sigmoid => Score::Sigmoid,
    };
    Routing { used: experts.used, score, groups, normalise, scale }
}

/// Takes the parts of a network out of a model. `quantization` is None when everything runs in
/// float.
struct Builder<'a> {
    /// Its own where the tensors go with the building.
    model: Cow<'a, Model>,
    quantization: Option<Quantization>,
    pool: &'a Pool,
    /// Of every layer.
    linears: Vec<Vec<LinearSpec>>,
    /// The rotations of the layers that are built so far.
    ropes: Vec<Rotation>,
}

impl Builder<'_> {
    /// Refuses, by name, parts that are not computed.
    fn check_quantizers(&self) -> Result<()> {
        let Some(q) = &self.quantization else { return Ok(()) };
        let unsupported = |name: String, reason: &str| FormatError::Unsupported {
            file: self.model.name.clone(),
            name,
            reason: reason.into(),
        };
        let told = format!(
            "activations {}, head activations {}, cache {}",
            q.activation.name(),
            q.head_activation.name(),
            q.cache.name()
        );
        q.check(&self.model.architecture).map_err(|reason| unsupported(told, &reason).into())
    }

    fn block(&mut self, layer: usize) -> Result<Block> {
        let l = &self.model.architecture.layers[layer];
        let feed_forward = match &l.feed_forward {
            graph::FeedForward::Dense(dense) => {
                let linears = [Linear::Gate, Linear::Up, Linear::Down];
                FeedForward::Dense(self.dense(layer, dense, linears)?)
            }
            graph::FeedForward::Experts(experts) => {
                FeedForward::Experts(self.experts(layer, experts)?)
            }
        };
        let per_layer = self.model.architecture.per_layer_input;
        let scale = self.parameter(layer, Parameter::OutputScale)?;
        let block = Block {
            attn_norm: self.norm(layer, Norm::Attention)?,
            mixer: self.mixer(layer)?,
            post_attention: self.norm(layer, Norm::PostAttention)?,
            ffn_norm: self.norm(layer, Norm::FeedForward)?,
            feed_forward,
            post_feed_forward: self.norm(layer, Norm::PostFeedForward)?,
            per_layer: per_layer.map(|_| self.per_layer_gate(layer)).transpose()?,
            output_scale: scale.map(|scale| scale[0]),
        };
        let linears = self.linears[layer].iter();
        let names: Vec<_> = linears.map(|spec| spec.kind.weight_name(layer)).collect();
        names.iter().for_each(|name| self.let_go(name));
        Ok(block)
    }

    /// Drops a tensor that the network has its own form of, if the model is the builder's own.
    fn let_go(&mut self, name: &str) {
        if let Cow::Owned(model) = &mut self.model {
            model.tensors.remove(name);
        }
    }

    fn mixer(&mut self, layer: usize) -> Result<Mixer> {
        Ok(match self.model.architecture.layers[layer].mixer.clone() {
            graph::Mixer::Attention(a) => Mixer::Attention(self.attention(layer, &a)?.into()),
            graph::Mixer::DeltaRule(delta) => {
                Mixer::DeltaRule(self.delta_rule(layer, &delta)?.into())
            }
            graph::Mixer::Convolution(convolution) => {
                Mixer::Convolution(self.convolution(layer, &convolution)?.into())
            }
        })
    }

    fn convolution(&self, layer: usize, graph: &graph::Convolution) -> Result<Convolution> {
        let kernel = self.required(layer, Parameter::ConvolutionKernel)?;
        let channels = kernel.len() / graph.kernel;
        Ok(Convolution {
            input: self.linear(Linear::ConvolutionIn, layer)?,
            taps: taps(&kernel, channels),
            output: self.linear(Linear::ConvolutionOut, layer)?,
            channels,
        })
    }

    fn delta_rule(&self, layer: usize, graph: &graph::DeltaRule) -> Result<DeltaRule> {
        let shape = graph.shape();
        Ok(DeltaRule {
            shape,
            qkv: self.linear(Linear::DeltaQkv, layer)?,
            gate: self.linear(Linear::DeltaGate, layer)?,
            out: self.linear(Linear::DeltaOut, layer)?,
            taps: taps(&self.required(layer, Parameter::DeltaKernel)?, shape.channels()),
            write: self.required(layer, Parameter::DeltaWrite)?,
            decay: self.required(layer, Parameter::DeltaDecay)?,
            decay_bias: self.required(layer, Parameter::DeltaDecayBias)?,
            rates: self.required(layer, Parameter::DeltaRate)?,
            norm: self.norm(layer, Norm::Delta)?.expect("a delta rule has this norm"),
        })
    }

    fn attention(&mut self, layer: usize, a: &graph::Attention) -> Result<Attention> {
        let rope = a.rope.as_ref().map(|rope| self.rotation(a.head_dim, rope));
        let own = match a.kv_from {
            None => Some(self.keys_and_values(layer, a)?),
            Some(_) => None,
        };
        Ok(Attention {
            graph: a.clone(),
            q: self.linear(Linear::Q, layer)?,
            own,
            o: self.linear(Linear::O, layer)?,
            query_norm: self.norm(layer, Norm::Query)?,
            sub_norm: self.norm(layer, Norm::AttentionOutput)?,
            sinks: self.parameter(layer, Parameter::Sinks)?,
            rope,
            source: a.kv_from.unwrap_or(layer),
        })
    }

    fn keys_and_values(&self, layer: usize, a: &graph::Attention) -> Result<KeysAndValues> {
        let architecture = &self.model.architecture;
        let kept = |site| -> Result<Kept> {
            let spec =
                self.quantization.as_ref().map_or(ActivationSpec::F32, |q| q.at(layer, site));
            Ok(Kept { spec, step: self.step_of(spec, site, layer)? })
        };
        let reads = |(i, l): &(usize, &graph::Layer)| *i == layer || l.kv_from() == Some(layer);
        let readers = architecture.layers.iter().enumerate().filter(reads);
        // None is the widest.
        let widest =
            readers.map(|(_, l)| l.attention().and_then(|a| a.window).unwrap_or(usize::MAX)).max();
        let value_norm = NormLayer {
            kind: NormKind::Rms,
            eps: architecture.norm.eps,
            width: a.head_dim,
            weight: vec![1.0; a.head_dim],
            bias: None,
        };
        Ok(KeysAndValues {
            k: self.linear(Linear::K, layer)?,
            v: self.linear(Linear::V, layer)?,
            key_norm: self.norm(layer, Norm::Key)?,
            value_norm: a.v_norm.then_some(value_norm),
            keys: kept(ActivationSite::KCache)?,
            values: kept(ActivationSite::VCache)?,
            window: widest.filter(|&window| window < usize::MAX),
        })
    }

    fn dense(
        &self,
        layer: usize,
        dense: &graph::Dense,
        [gate, up, down]: [Linear; 3],
    ) -> Result<Dense> {
        let sub_norm = if down == Linear::Down { self.norm(layer, Norm::DownInput)? } else { None };
        Ok(Dense {
            gate: if dense.gated { Some(self.linear(gate, layer)?) } else { None },
            up: self.linear(up, layer)?,
            down: self.linear(down, layer)?,
            activation: activation(dense.activation),
            intermediate_size: dense.intermediate_size,
            sub_norm,
        })
    }

    fn experts(&self, layer: usize, experts: &graph::Experts) -> Result<Experts> {
        let expert = |e| self.dense(layer, &experts.expert, Linear::expert(e));
        let shared = |shared| self.dense(layer, shared, Linear::SHARED);
        Ok(Experts {
            router: self.required(layer, Parameter::Router)?,
            router_bias: self.parameter(layer, Parameter::RouterBias)?,
            choice_bias: self.parameter(layer, Parameter::ChoiceBias)?,
            routing: routing(experts),
            experts: (0..experts.count as u16).map(expert).collect::<Result<_>>()?,
            shared: experts.shared.as_ref().map(shared).transpose()?,
            shared_gate: self.parameter(layer, Parameter::SharedGate)?,
        })
    }

    fn per_layer_gate(&self, layer: usize) -> Result<PerLayerGate> {
        let of = match &self.model.architecture.layers[layer].feed_forward {
            graph::FeedForward::Dense(dense) => dense.activation,
            graph::FeedForward::Experts(experts) => experts.expert.activation,
        };
        Ok(PerLayerGate {
            gate: self.linear(Linear::PerLayerGate, layer)?,
            projection: self.linear(Linear::PerLayerProjection, layer)?,
            norm: self.norm(layer, Norm::PerLayer)?.expect("per-layer inputs have this norm"),
            activation: activation(of),
        })
    }

    fn per_layer_input(&self, width: usize) -> Result<PerLayerInput> {
        let a = &self.model.architecture;
        let all = a.layers.len() * width;
        let matrix = |name, rows, cols, keep_packed| {
            Matrix::new(&self.model, name, rows, cols, keep_packed, self.pool)
        };
        let packed = self.quantization.is_some();
        let weight = self.vector(PER_LAYER_NORM, &[width])?;
        Ok(PerLayerInput {
            embedding: matrix(PER_LAYER_EMBEDDING, a.vocab_size, all, packed)?,
            projection: matrix(PER_LAYER_MODEL_PROJECTION, all, a.hidden_size, false)?,
            norm: self.norm_layer(a.norm.kind, width, weight, None),
            width,
            layers: a.layers.len(),
        })
    }

    /// Index of a rotation, which is made if there is none like it.
    fn rotation(&mut self, head_dim: usize, rope: &Rope) -> usize {
        let same = |other: &Rotation| other.head_dim == head_dim && other.rope == *rope;
        self.ropes.iter().position(same).unwrap_or_else(|| {
            // The frequencies of short sequences where these are others.
            let length = rope.original().unwrap_or(self.model.architecture.max_positions);
            let table = rope.table(head_dim, length);
            self.ropes.push(Rotation { head_dim, rope: rope.clone(), table });
            self.ropes.len() - 1
        })
    }

    /// A norm of a layer, if it has it.
    fn norm(&self, layer: usize, norm: Norm) -> Result<Option<NormLayer>> {
        let a = &self.model.architecture;
        let norms = a.norms(layer);
        let Some((_, shape)) = norms.iter().find(|(kind, _)| *kind == norm) else {
            return Ok(None);
        };
        let weight = self.vector(&norm.weight_name(layer), shape)?;
        let bias = if a.norm.bias && !norm.is_of_heads() {
            Some(self.vector(&norm.bias_name(layer), shape)?)
        } else {
            None
        };
        let width = *shape.last().expect("a norm has a width");
        let kind = a.norm_kind(layer, norm);
        if Role::Norm(norm).is_norm() {
            return Ok(Some(self.norm_layer(kind, width, weight, bias)));
        }
        // No offset is added to this weight.
        Ok(Some(NormLayer { kind, eps: a.norm.eps, width, weight, bias }))
    }

    fn final_norm(&self) -> Result<NormLayer> {
        let a = &self.model.architecture;
        let bias = a.norm.bias.then(|| self.vector(FINAL_NORM_BIAS, &[a.hidden_size]));
        let weight = self.vector(FINAL_NORM, &[a.hidden_size])?;
        Ok(self.norm_layer(a.norm.kind, a.hidden_size, weight, bias.transpose()?))
    }

    fn norm_layer(
        &self,
        kind: NormKind,
        width: usize,
        mut weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    ) -> NormLayer {
        let norm = &self.model.architecture.norm;
        if norm.offset != 0.0 {
            weight.iter_mut().for_each(|w| *w += norm.offset as f32);
        }
        NormLayer { kind, eps: norm.eps, width, weight, bias }
    }

    /// Another tensor of a layer, if it has it.
    fn parameter(&self, layer: usize, parameter: Parameter) -> Result<Option<Vec<f32>>> {
        let parameters = self.model.architecture.parameters_of(layer);
        let found = parameters.iter().find(|(kind, _)| *kind == parameter);
        found.map(|(_, shape)| self.vector(&parameter.name_in(layer), shape)).transpose()
    }

    /// Another tensor of a layer that has it.
    fn required(&self, layer: usize, parameter: Parameter) -> Result<Vec<f32>> {
        Ok(self.parameter(layer, parameter)?.expect("a tensor that the graph has"))
    }

    fn vector(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        vector(&self.model, name, shape, self.pool)
    }

    fn linear(&self, linear: Linear, layer: usize) -> Result<Projection> {
        let linears = &self.linears[layer];
        let spec = linears.iter().find(|spec| spec.kind == linear);
        let &LinearSpec { shape: [o, i], bias, .. } = spec.expect("the layer has this linear");
        let name = linear.weight_name(layer);
        let weight = Matrix::new(&self.model, &name, o, i, self.quantization.is_some(), self.pool)?;
        let activation = match &self.quantization {
            Some(q) if self.is_packed(&name) => q.at(layer, linear.input()),
            _ => ActivationSpec::F32,
        };
        let step = self.step_of(activation, linear.input(), layer)?;
        let parts = self.model.linear_parts.get(&name);
        let wrapping = parts
            .and_then(|parts| Wrapping::new(parts, i, self.quantization.is_some(), self.pool))
            .map(Box::new);
        let bias = if bias {
            Some(self.vector(&linear.bias_name(layer), &[o])?)
        } else {
            parts.and_then(|parts| parts.bias.as_deref()).map(widened)
        };
        let low_rank = self.model.low_rank.get(&name).map(Factors::new);
        Ok(Projection { weight, activation, step, low_rank, wrapping, bias })
    }

    fn is_packed(&self, name: &str) -> bool {
        let tensor = self.model.tensors.get(name);
        tensor.is_some_and(|tensor| matches!(tensor.data, TensorData::Packed(_)))
    }

    /// Embedding or head.
    fn table(&mut self, name: &str) -> Result<Projection> {
        let a = &self.model.architecture;
        let weight = Matrix::new(
            &self.model,
            name,
            a.vocab_size,
            a.hidden_size,
            self.quantization.is_some(),
            self.pool,
        )?;
        let activation = match &self.quantization {
            Some(q) if self.is_packed(name) => q.head_activation,
            _ => ActivationSpec::F32,
        };
        self.let_go(name);
        let (step, low_rank, wrapping, bias) = (None, None, None, None);
        Ok(Projection { weight, activation, step, low_rank, wrapping, bias })
    }

    /// The stored step of a site, if its quantizer is static.
    fn step_of(
        &self,
        spec: ActivationSpec,
        site: ActivationSite,
        layer: usize,
    ) -> Result<Option<f32>> {
        if spec.is_static() { self.step(site, layer).map(Some) } else { Ok(None) }
    }

    /// The stored step of a static site.
    fn step(&self, site: ActivationSite, layer: usize) -> Result<f32> {
        let (file, name) = (self.model.name.clone(), site.static_scale_name(layer));
        match self.quantization.as_ref().and_then(|q| q.static_scales.get(&name)) {
            Some(&step) if step.is_finite() && step > 0.0 => Ok(step),
            Some(step) => Err(FormatError::Unsupported {
                file,
                name,
                reason: format!("a step is a positive number, not {step}"),
            }
            .into()),
            None => Err(FormatError::MissingTensor { file, tensor: name }.into()),
        }
    }
}
